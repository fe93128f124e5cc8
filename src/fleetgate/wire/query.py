"""The AWS Query protocol, which IAM and STS speak: a form in, XML out.

Theory of operation. The names of a form's fields are paths: ``Tags.member.2.Key``. They are sorted
into a tree first, and the tree is then read along the operation's input shape, so that the model
bounds the work; fields the model does not know are left behind. As with ``wire.restjson`` only
types are checked here. :mod:`fleetgate.wire.xml` writes the answer.

Source: Smithy specification, "AWS query protocol"; IAM API Reference, "Common Errors".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from fleetgate.errors import (
    InvalidAction,
    MalformedQueryString,
    MissingAction,
    SerializationException,
    ServiceError,
    ValidationError,
)
from fleetgate.wire import xml
from fleetgate.wire.model import Operation, Service, Shape
from fleetgate.wire.values import from_document, from_text

FORM = "application/x-www-form-urlencoded"
"""The media type by which a request of this protocol is recognised."""

MAXIMUM_FIELDS = 1024
"""Fields a form may have. No operation served takes more than some hundred."""

MAXIMUM_DEPTH = 16
"""Parts the name of a field may have."""

_CODES = {
    # the front door says the same thing in each protocol's own words
    "AccessDeniedException": "AccessDenied",
    "ExpiredTokenException": "ExpiredToken",
    "IncompleteSignatureException": "IncompleteSignature",
    "InternalFailureException": "InternalFailure",
    "InvalidRequestException": "ValidationError",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
    "SerializationException": "ValidationError",
    "ServiceUnavailableException": "ServiceUnavailable",
    "ThrottlingException": "Throttling",
    "UnrecognizedClientException": "InvalidClientTokenId",
}


def is_spoken(
    path: str, query: str, content_type: str, authorization: str, others: Iterable[str]
) -> bool:
    """Whether a request is one of this protocol: a form for ``/``, not signed for `others`.

    The path and the form alone do not tell it: curl calls any body a form. `query` is the query
    string, `others` are the signing names of services with another protocol.
    """
    said = f"{authorization} {unquote(query)}"
    return (
        path == "/"
        and content_type.startswith(FORM)
        and not any(f"/{name}/aws4_request" in said for name in others)
    )


def decode_request(
    service: Service, body: bytes, content_type: str = FORM
) -> tuple[Operation, dict[str, Any]]:
    """The operation a form names and its parameters, by their snake_case names.

    `body` is the form (or the query string of a request without a body). Members that are absent
    are left out. Timestamps become seconds since the epoch (float), blobs bytes. Raises
    MalformedQueryString, MissingAction, InvalidAction or, naming the member, ValidationError.
    """
    if content_type.partition(";")[0].strip().lower() != FORM:
        raise MalformedQueryString(f"the body is `{content_type[:80]}`, not `{FORM}`")
    root = _tree(_fields(body))
    action, version = root.parts.get("Action"), root.parts.get("Version")
    if action is None or not action.text:
        raise MissingAction("the request has no Action")
    stated = "NO_VERSION_SPECIFIED" if version is None else version.text
    if stated != service.version or action.text not in service.names:
        raise InvalidAction(
            f"Could not find operation {_shown(action.text)} for version {_shown(stated)}"
        )
    operation = service.operation(action.text)
    if operation.input is None:
        return operation, {}
    try:
        return operation, {
            member.python_name: _read(member.shape, part, member.name, member.timestamp_format)
            for member in operation.input.members.values()
            if (part := _part(root, member.shape, member.location_name)) is not None
        }
    except SerializationException as error:
        raise ValidationError(error.message) from None


def encode_response(
    operation: Operation, result: Mapping[str, Any], request_id: str
) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body that answer a call; `result` has the model's names.

    Members that are None are left out; timestamps may be aware datetimes or seconds since the
    epoch. Raises ValueError or TypeError when the result is not what the model says: that is a
    defect of the operation and no answer.
    """
    name = operation.name
    if operation.output is None:
        if result:
            raise ValueError(f"{name} has no output, got {sorted(result)}")
        answered = ""
    else:
        answered = xml.members(operation.output, result, name)
        if operation.result_wrapper is not None:
            answered = f"<{operation.result_wrapper}>{answered}</{operation.result_wrapper}>"
    body = (
        f'<{name}Response xmlns="{xml.text(operation.xml_namespace)}">{answered}'
        f"<ResponseMetadata><RequestId>{xml.text(request_id)}</RequestId></ResponseMetadata>"
        f"</{name}Response>"
    )
    return 200, _headers(request_id), body.encode(errors="replace")


def encode_error(
    error: ServiceError, request_id: str, xml_namespace: str
) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body that tell a caller of an error; the namespace is the service's.

    Errors of the front door have the codes they have in this protocol, ``AccessDenied`` for
    ``AccessDeniedException``. What the caller sent and was not UTF-8 (``surrogateescape``)
    becomes question marks.
    """
    side = "Sender" if error.status < 500 or error.status == 501 else "Receiver"
    code = _CODES.get(error.code(), error.code())
    body = (
        f'<ErrorResponse xmlns="{xml.text(xml_namespace)}">'
        f"<Error><Type>{side}</Type><Code>{code}</Code>"
        f"<Message>{xml.text(error.message)}</Message></Error>"
        f"<RequestId>{xml.text(request_id)}</RequestId></ErrorResponse>"
    )
    return error.status, _headers(request_id), body.encode(errors="replace")


def _headers(request_id: str) -> dict[str, str]:
    return {"content-type": "text/xml", "x-amzn-requestid": request_id}


# --- reading -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Field:
    """What a form says at one place: a text, further places below, or both."""

    text: str | None = None
    parts: dict[str, _Field] = field(default_factory=dict)


def _fields(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            body.decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAXIMUM_FIELDS,
        )
    except UnicodeDecodeError:
        raise MalformedQueryString("the form is not percent-encoded utf-8") from None
    except ValueError:
        raise MalformedQueryString(f"the form has more than {MAXIMUM_FIELDS} fields") from None


def _tree(fields: Iterable[tuple[str, str]]) -> _Field:
    root = _Field()
    for name, text in fields:
        if name.count(".") >= MAXIMUM_DEPTH:
            raise MalformedQueryString(
                f"the field {_shown(name)} has more than {MAXIMUM_DEPTH} parts"
            )
        at = root
        for part in name.split("."):
            at = at.parts.setdefault(part, _Field())
        if at.text is not None:
            raise MalformedQueryString(f"the field {_shown(name)} is given twice")
        at.text = text
    return root


def _part(outer: _Field, shape: Shape, name: str) -> _Field | None:
    """The field of a member; the elements of a flattened list may have a name of their own."""
    if shape.flattened and shape.type == "list" and shape.element_name:
        name = shape.element_name
    return outer.parts.get(name)


def _read(shape: Shape, found: _Field, path: str, timestamp_format: str | None = None) -> Any:
    match shape.type:
        case "structure":
            return {
                member.name: _read(
                    member.shape, part, f"{path}.{member.name}", member.timestamp_format
                )
                for member in shape.members.values()
                if (part := _part(found, member.shape, member.location_name)) is not None
            }
        case "list" if shape.element is not None:
            name = shape.element_name or "member"
            return [
                _read(shape.element, entry, f"{path}.{number}")
                for number, entry in _entries(shape, found, path, name)
            ]
        case "map" if shape.key is not None and shape.element is not None:
            key_name, name = shape.key_name or "key", shape.element_name or "value"
            entries = {}
            for number, entry in _entries(shape, found, path, "entry"):
                key, value = entry.parts.get(key_name), entry.parts.get(name)
                if key is None or value is None:
                    raise ValidationError(
                        f"{path}.{number}: an entry of a map has a `{key_name}` and a `{name}`"
                    )
                entries[_read(shape.key, key, f"{path}.{number}.{key_name}")] = _read(
                    shape.element, value, f"{path}.{number}.{name}"
                )
            return entries
    if found.parts or found.text is None:
        below = next(iter(found.parts))
        raise ValidationError(f"{path}: a {shape.type} has nothing below it, got `.{below[:80]}`")
    if shape.type == "blob":
        return from_document(shape, found.text, path)
    return from_text(shape, found.text, path, timestamp_format or "iso8601")


def _entries(shape: Shape, found: _Field, path: str, name: str) -> list[tuple[int, _Field]]:
    """The numbered entries of a list or map in their order; an empty one is sent as no text."""
    if found.text:
        raise ValidationError(
            f"{path}: {_shown(found.text)} can not be converted to a {shape.type}"
        )
    entries = found if shape.flattened else found.parts.get(name, _Field())
    numbered = []
    for number, entry in entries.parts.items():
        if not (number.isascii() and number.isdigit() and number[0] != "0" and len(number) <= 9):
            raise ValidationError(f"{path}: {_shown(number)} is not the number of an entry")
        numbered.append((int(number), entry))
    return sorted(numbered, key=lambda each: each[0])


def _shown(text: str | None) -> str:
    return f"`{(text or '')[:80]}`"

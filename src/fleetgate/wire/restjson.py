"""Requests and answers of the REST-JSON protocol, read and written by the service model alone.

Theory of operation. A request's members lie in the path, the query, the headers and the body;
the model says where. :func:`decode_request` collects them into a dict ready for ``**params``:
snake_case names at the top, the model's own names below. Only types are checked here; lengths,
patterns and required members are the business of ``wire.constraints``. The MQTT door parses JSON
or CBOR itself and hands the outcome to :func:`decode_document`, so that both doors decode alike.

Source: Smithy specification, "AWS restJson1 protocol" and "HTTP bindings"; the texts of
SerializationException are those of AWS's front end, with the path of the member before them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from fleetgate.errors import SerializationException, ServiceError
from fleetgate.wire.model import Member, Operation, Shape
from fleetgate.wire.values import (
    from_document,
    from_text,
    kind_of,
    not_convertible,
    refuse_unknown,
    to_document,
)

MAXIMUM_DEPTH = 64
"""Levels of nesting a JSON body may have."""

LARGE = 1 << 20
"""Bytes of a JSON body from which on blobs in it are not made texts first."""

MAXIMUM_QUERY_FIELDS = 128
"""Fields a query string may have."""

Headers = dict[str, str]


def parse_query(raw: str) -> list[tuple[str, str]]:
    """The fields of a query string, decoded, in their order, the empty ones included.

    Raises SerializationException for too many fields and for what is not UTF-8.
    """
    try:
        return parse_qsl(
            raw, keep_blank_values=True, errors="strict", max_num_fields=MAXIMUM_QUERY_FIELDS
        )
    except UnicodeDecodeError:
        raise SerializationException("the query is not percent-encoded utf-8") from None
    except ValueError:
        raise SerializationException(
            f"the query has more than {MAXIMUM_QUERY_FIELDS} fields"
        ) from None


def decode_request(
    operation: Operation,
    uri_params: Mapping[str, str],
    query: Sequence[tuple[str, str]],
    headers: Mapping[str, str],
    body: bytes,
) -> dict[str, Any]:
    """The parameters of an HTTP request, by their snake_case names.

    `uri_params` are the labels as ``Service.route`` returns them, `query` the decoded fields;
    `headers` has lower-case names, its values are text as ``sigv4.parse_authorization`` takes it.
    Members that are absent or null are left out, and what the model does not know is ignored. A
    body is read only when the model has members in it. Timestamps become seconds since the epoch
    (float), blobs bytes.

    Raises SerializationException, which names the member and what was found instead.
    """
    shape = operation.input
    if shape is None:
        return {}
    params = _located(shape, uri_params, query, headers)
    if shape.payload is not None:
        if body:
            params[shape.payload.python_name] = _payload(shape.payload, body)
    elif body and shape.reads_body:
        document = _json(body) if len(body) <= LARGE else _large_json(shape, body)
        params.update(_members_of_body(shape, document))
    return params


def decode_document(
    operation: Operation, uri_params: Mapping[str, str], document: Any
) -> dict[str, Any]:
    """The parameters of a message whose body is already parsed (JSON or CBOR).

    `document` is looked at only when the operation has members in the body
    (``operation.input.reads_body``); None stands for an empty body. Otherwise as
    :func:`decode_request`; blobs may be bytes.
    """
    shape = operation.input
    if shape is None:
        return {}
    params = _located(shape, uri_params, (), {})
    if document is not None and shape.reads_body:
        params.update(_members_of_body(shape, document))
    return params


def encode_response(operation: Operation, result: Mapping[str, Any]) -> tuple[int, Headers, bytes]:
    """The status, headers and body that answer a call; `result` has the model's names.

    Members that are None are left out. Timestamps may be aware datetimes or seconds since the
    epoch and leave as seconds with milliseconds.

    Raises ValueError or TypeError when the result is not what the model says: that is a defect
    of the operation and no answer.
    """
    shape = operation.output
    if shape is None:
        if result:
            raise ValueError(f"{operation.name} has no output, got {sorted(result)}")
        return operation.response_code, {}, b""
    refuse_unknown(shape, result, operation.name)
    status = operation.response_code
    headers: Headers = {}
    document: dict[str, Any] = {}
    for member in shape.members.values():
        value = result.get(member.name)
        if value is None:
            continue
        path = f"{operation.name}.{member.name}"
        if member is shape.payload and member.shape.type in {"blob", "string"}:
            continue
        if member.location is None:
            document[member.location_name] = to_document(
                member.shape, value, path, member.timestamp_format
            )
        elif member.location == "statusCode":
            status = int(value)
        elif member.location == "headers":
            for name, entry in value.items():
                headers[member.location_name + name.lower()] = _header_text(entry, path)
        else:
            sent = to_document(member.shape, value, path, member.timestamp_format or "rfc822")
            headers[member.location_name] = _header_text(sent, path)
    if status == 204:  # no content (RFC 9110 section 15.3.5)
        return status, headers, b""
    if shape.payload is None:
        body = msgspec.json.encode(document)
    else:
        payload = document.get(shape.payload.location_name)
        if shape.payload.shape.type in {"blob", "string"}:
            raw = result.get(shape.payload.name) or b""
            headers["content-type"] = "application/octet-stream"
            return status, headers, raw.encode() if isinstance(raw, str) else raw
        body = msgspec.json.encode({} if payload is None else payload)
    headers["content-type"] = "application/json"
    return status, headers, body


def encode_error(
    error: ServiceError,
    request_id: str,
    message: str = "message",
    further: Mapping[str, Any] | None = None,
) -> tuple[int, Headers, bytes]:
    """The status, headers and body that tell a caller of an error.

    `message` is what the member with the message is called; `further` members are those of every
    error of the service. What the caller sent and was not UTF-8 (``surrogateescape``) becomes
    question marks.
    Source: Smithy specification, "AWS restJson1 protocol", operation error serialization.
    """
    members = {
        name: _sendable(value) if isinstance(value, str) else value
        for name, value in ({message: error.message, **(further or {})} | error.members).items()
        if value is not None
    }
    headers = {
        "content-type": "application/json",
        "x-amzn-errortype": error.code(),
        "x-amzn-requestid": request_id,
    }
    return error.status, headers, msgspec.json.encode(members)


# --- reading -------------------------------------------------------------------------------


def _located(
    shape: Shape,
    uri_params: Mapping[str, str],
    query: Sequence[tuple[str, str]],
    headers: Mapping[str, str],
) -> dict[str, Any]:
    """The members of the path, the query and the headers."""
    params: dict[str, Any] = {}
    for member in shape.members.values():
        name = member.location_name
        value: Any = None
        if member.location == "uri":
            value = _from_text(member, uri_params.get(name), "iso8601")
        elif member.location == "querystring":
            value = _from_query(member, [text for key, text in query if key == name])
        elif member.location == "header":
            value = _from_text(member, _utf8(headers.get(name), name), "rfc822")
        elif member.location == "headers":
            value = {
                key.removeprefix(name): _utf8(text, key)
                for key, text in headers.items()
                if key.startswith(name)
            } or None
        if value is not None:
            params[member.python_name] = value
    return params


def _from_query(member: Member, texts: list[str]) -> Any:
    if not texts:
        return None
    if member.shape.type == "list" and member.shape.element is not None:
        return [from_text(member.shape.element, text, member.name, "iso8601") for text in texts]
    if len(texts) > 1:
        raise not_convertible(member.name, f"{len(texts)} values", member.shape)
    return _from_text(member, texts[0], "iso8601")


def _from_text(member: Member, text: str | None, timestamp_format: str) -> Any:
    if text is None:
        return None
    return from_text(member.shape, text, member.name, member.timestamp_format or timestamp_format)


def _utf8(text: str | None, header: str) -> str | None:
    """The value of a header; refuses what was not UTF-8 when it arrived."""
    if text is not None and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise SerializationException(f"the header {header[:80]} is not utf-8") from None
    return text


def _payload(member: Member, body: bytes) -> Any:
    """The member that is the whole body."""
    if member.shape.type == "blob":
        return body
    if member.shape.type == "string":
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise SerializationException(f"{member.name}: the body is not utf-8") from None
    return from_document(member.shape, _json(body), member.name, member.timestamp_format)


def _json(body: bytes) -> Any:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SerializationException(f"the body is not a JSON document: {error}") from None
    # Fewer brackets than that cannot be deeper; most bodies need no second look.
    if body.count(b"[") + body.count(b"{") > MAXIMUM_DEPTH:
        _refuse_depth(document)
    return document


def _large_json(shape: Shape, body: bytes) -> Any:
    """A large document, along the shape; blobs are bytes already.

    A text of many megabytes beside the body and the bytes it stands for would be a third copy.
    """
    try:
        document = _along(shape, msgspec.Raw(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SerializationException(f"the body is not a JSON document: {error}") from None
    _refuse_depth(document)
    return document


def _along(shape: Shape, raw: msgspec.Raw) -> Any:
    start = bytes(memoryview(raw)[:1])
    if shape.type == "structure" and start == b"{":
        entries = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        return {
            member.location_name: _along(member.shape, entries[member.location_name])
            for member in shape.members.values()
            if member.location_name in entries
        }
    if shape.type == "blob" and start == b'"':
        return msgspec.json.decode(raw, type=bytes)
    return msgspec.json.decode(raw)


def _refuse_depth(document: Any) -> None:
    level = [document]
    for _ in range(MAXIMUM_DEPTH + 1):
        level = [
            entry
            for value in level
            if isinstance(value, (dict, list))
            for entry in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise SerializationException(f"the body is nested more than {MAXIMUM_DEPTH} levels deep")


def _members_of_body(shape: Shape, document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise SerializationException(f"the body is {kind_of(document)}, not a structure")
    params: dict[str, Any] = {}
    for member in shape.members.values():
        if member.location is None:
            value = document.get(member.location_name)
            if value is not None:
                params[member.python_name] = from_document(
                    member.shape, value, member.name, member.timestamp_format
                )
    return params


# --- writing -------------------------------------------------------------------------------


def _sendable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _header_text(value: Any, path: str) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if not text.isprintable():
        raise ValueError(f"{path}: a header can not carry control characters")
    return text

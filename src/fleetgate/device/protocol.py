"""The three provisioning operations as topics and payloads, seen from the device.

Source: AWS IoT Core Developer Guide, "Device provisioning MQTT API".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Literal, TypeAlias

from fleetgate.device.errors import BadAnswer, BadRequest, Rejected, Unreadable

PayloadFormat: TypeAlias = Literal["json", "cbor"]

MAX_PAYLOAD = 128 * 1024
"""Bytes. AWS IoT's limit for a message ("AWS IoT Core endpoints and quotas")."""

# RFC 8259 section 3: how a value may begin
_JSON_BEGINS = frozenset(bytes([each]) for each in b'{["-0123456789tfn')

_MOST_STATUS = 999  # three digits: RFC 9110 section 15

_TEMPLATE_NAME = re.compile(r"[0-9A-Za-z_-]{1,36}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Operation:
    """Where an operation is asked for, and where its answer comes."""

    request: str
    payload_format: PayloadFormat

    @property
    def accepted(self) -> str:
        """The topic of success."""
        return f"{self.request}/accepted"

    @property
    def rejected(self) -> str:
        """The topic of failure."""
        return f"{self.request}/rejected"


@dataclass(frozen=True, slots=True)
class Issued:
    """The answer of both Create operations; ``private_key`` is PEM, or None for a CSR."""

    certificate_id: str
    certificate_pem: str
    ownership_token: str = field(repr=False)
    private_key: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Registered:
    """The answer of RegisterThing; ``thing_name`` is None when the template makes no thing."""

    thing_name: str | None
    device_configuration: dict[str, str]


def create_keys_and_certificate(payload_format: PayloadFormat) -> Operation:
    """CreateKeysAndCertificate: the server makes the key. Its request is the empty map."""
    return Operation(f"$aws/certificates/create/{payload_format}", payload_format)


def create_certificate_from_csr(payload_format: PayloadFormat) -> Operation:
    """CreateCertificateFromCsr: the device has made the key."""
    return Operation(f"$aws/certificates/create-from-csr/{payload_format}", payload_format)


def register_thing(template: str, payload_format: PayloadFormat) -> Operation:
    """RegisterThing. Raises BadRequest when `template` cannot be the name of a template."""
    if not _TEMPLATE_NAME.fullmatch(template):
        raise BadRequest(
            f"`{template[:80]}` cannot be the name of a provisioning template: "
            "1 to 36 characters of A-Z, a-z, 0-9, `_` and `-`"
        )
    topic = f"$aws/provisioning-templates/{template}/provision/{payload_format}"
    return Operation(topic, payload_format)


# --- payloads ---


def encode(payload_format: PayloadFormat, values: Mapping[str, Any]) -> bytes:
    """`values` as a payload: compact JSON in UTF-8, or CBOR of definite lengths (RFC 8949).

    Raises BadRequest when a text in it cannot be UTF-8 (a lone surrogate), and when it has more
    than MAX_PAYLOAD bytes: a server ends the connection for that.
    """
    try:
        if payload_format == "cbor":
            import cbor2

            payload: bytes = cbor2.dumps(dict(values))
        else:
            text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
            payload = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRequest(f"the request cannot be written as UTF-8: {error.reason}") from error
    if len(payload) > MAX_PAYLOAD:
        raise BadRequest(
            f"the request has {len(payload)} bytes, more than the {MAX_PAYLOAD} that a message "
            "may have"
        )
    return payload


def csr_request(csr_pem: str) -> dict[str, Any]:
    """The request of CreateCertificateFromCsr."""
    return {"certificateSigningRequest": csr_pem}


def register_request(
    ownership_token: str,
    parameters: Mapping[str, str] | None,
    certificate_id: str | None = None,
) -> dict[str, Any]:
    """The request of RegisterThing, in the order of AWS's C library; what is None is left out.

    The token alone says which certificate it is; an id that is sent too has to be of the same.
    """
    values: dict[str, Any] = {}
    if certificate_id is not None:
        values["certificateId"] = certificate_id
    values["certificateOwnershipToken"] = ownership_token
    if parameters is not None:
        values["parameters"] = dict(parameters)
    return values


def read(operation: Operation, topic: str, payload: bytes) -> dict[str, Any]:
    """The values in the answer to `operation` that came on `topic`.

    Raises Rejected when it came on the rejected topic, and BadAnswer when it cannot be read
    (Unreadable when it does not even begin as JSON or CBOR).
    """
    values = _decode(operation.payload_format, topic, payload)
    if topic != operation.rejected:
        return values
    status = values.get("statusCode")
    code, message = values.get("errorCode"), values.get("errorMessage")
    # a bool is an int, too, but not a status code; and CBOR has integers without an end
    good = type(status) is int and 0 <= status <= _MOST_STATUS
    if not good or not isinstance(code, str) or not isinstance(message, str):
        raise BadAnswer(
            f"the server rejected `{operation.request}` without saying why", topic=topic
        )
    raise Rejected(
        f"the server rejected `{operation.request}` with {status} {code}: {message}",
        topic=topic,
        status_code=status,
        error_code=code,
        error_message=message,
    )


def issued(operation: Operation, values: Mapping[str, Any], *, with_key: bool) -> Issued:
    """The accepted answer of a Create operation. Raises BadAnswer when a member is missing."""
    return Issued(
        _text(operation, values, "certificateId"),
        _text(operation, values, "certificatePem"),
        _text(operation, values, "certificateOwnershipToken"),
        _text(operation, values, "privateKey") if with_key else None,
    )


def registered(operation: Operation, values: Mapping[str, Any]) -> Registered:
    """The accepted answer of RegisterThing; members the template has nothing for may be missing.

    Raises BadAnswer when a member is of the wrong type, and when neither is there: AWS sends an
    empty `deviceConfiguration` when there is nothing in it.
    """
    if not values.keys() & {"deviceConfiguration", "thingName"}:
        raise BadAnswer(
            "neither `deviceConfiguration` nor `thingName` is in the answer",
            topic=operation.accepted,
        )
    configuration = values.get("deviceConfiguration")
    if configuration is None:
        configuration = {}
    if not isinstance(configuration, dict) or not all(
        isinstance(part, str) for item in configuration.items() for part in item
    ):
        raise BadAnswer(
            "`deviceConfiguration` in the answer is not a map of text to text",
            topic=operation.accepted,
        )
    name = None if values.get("thingName") is None else _text(operation, values, "thingName")
    return Registered(name, configuration)


def _text(operation: Operation, values: Mapping[str, Any], member: str) -> str:
    value = values.get(member)
    if not isinstance(value, str) or not value:
        problem = "is missing" if value is None else "is not a text with characters in it"
        raise BadAnswer(f"`{member}` in the answer {problem}", topic=operation.accepted)
    return value


def _decode(payload_format: PayloadFormat, topic: str, payload: bytes) -> dict[str, Any]:
    try:
        values = _from_cbor(payload) if payload_format == "cbor" else json.loads(payload)
    except (ValueError, RecursionError) as error:
        kind = BadAnswer if _begins(payload_format, payload) else Unreadable
        raise kind(
            f"the answer on `{topic}` is not {payload_format.upper()}: {error}", topic=topic
        ) from error
    if not isinstance(values, dict):
        raise BadAnswer(f"the answer on `{topic}` is not a map", topic=topic)
    if payload_format == "json":  # which can name half a character; CBOR cannot
        try:
            json.dumps(values, ensure_ascii=False).encode("utf-8")
        except (UnicodeEncodeError, RecursionError) as error:
            raise BadAnswer(
                f"the answer on `{topic}` holds what is no Unicode text: {error}", topic=topic
            ) from error
    return values


def _begins(payload_format: PayloadFormat, payload: bytes) -> bool:
    """Whether there is a first character of JSON, or the head of a first item of CBOR.

    RFC 8949 section 3: with the additional information 24 to 27 the head goes on for 1, 2, 4 or 8
    bytes, 28 to 30 are reserved, and 31 (indefinite length, "break") is there for strings, arrays
    and maps only.
    """
    if payload_format == "json":
        return payload.lstrip(b" \t\r\n")[:1] in _JSON_BEGINS
    if not payload:
        return False
    major, more = payload[0] >> 5, payload[0] & 0x1F
    if 24 <= more < 28:
        return len(payload) > 1 << (more - 24)
    return more < 24 or (more == 31 and major in (2, 3, 4, 5))


def _from_cbor(payload: bytes) -> Any:
    import cbor2

    try:
        with BytesIO(payload) as stream:
            value = cbor2.load(stream)
            rest = stream.read(1)
    except cbor2.CBORError as error:
        raise ValueError(str(error)) from error
    if rest:
        raise ValueError("there is more after the first value")
    return value

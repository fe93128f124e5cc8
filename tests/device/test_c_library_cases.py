"""The unit tests of AWS's C library, case by case, under their names.

Source: AWS IoT Device SDK for Embedded C, v4 beta, libraries/aws/provisioning/test/unit: groups
Provisioning_Unit_API, _Serializer and _Parser. The samples are theirs, written as bytes. Cases of
memory that does not suffice have no counterpart, because nothing is allocated by the caller here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleetgate.device import protocol
from fleetgate.device.c_contract import (
    AcceptedCertificateFromCsr,
    AcceptedKeysAndCertificate,
    AcceptedRegisterThing,
    CreateCertificateFromCsrResponse,
    CreateKeysAndCertificateResponse,
    Provisioning,
    RegisterThingRequest,
    RegisterThingResponse,
    RejectedResponse,
)
from fleetgate.device.errors import Status
from tests.device.scripted_client import Messages, ScriptedClient, nothing


def head(major: int, length: int) -> bytes:
    """The head of a CBOR item (RFC 8949 section 3), for lengths below 256."""
    return bytes([major << 5 | length]) if length < 24 else bytes([major << 5 | 24, length])


def text(value: str) -> bytes:
    return head(3, len(value)) + value.encode()


def pairs(**values: bytes) -> bytes:
    return b"".join(text(name) + value for name, value in values.items())


def mapping(**values: bytes) -> bytes:
    return head(5, len(values)) + pairs(**values)


LONG = "Oops! We have a long error message..........."
REJECTED = mapping(
    statusCode=bytes.fromhex("1901f4"),
    errorCode=text("InvalidPayload"),
    errorMessage=text(LONG),
)
REFUSED = (500, None, RejectedResponse("InvalidPayload", LONG))
KEYS = {
    "certificatePem": text("abcdefg"),
    "certificateId": text("hijklm"),
    "privateKey": text("Secret!"),
    "certificateOwnershipToken": text("Token!"),
}
CSR = {name: value for name, value in KEYS.items() if name != "privateKey"}
CONFIGURATION = pairs(
    FallbackUrl=text("https://www.example.com/test-site"), LocationUrl=text("https://example.aws")
)
REGISTERED = mapping(
    deviceConfiguration=b"\xbf" + CONFIGURATION + b"\xff",  # of indefinite length
    thingName=text("TestThing"),
)
REQUEST = RegisterThingRequest("TEST_TEMPLATE", "TestCertificateID", "TestToken")

Given = tuple[Status, list[Any]]


def call(
    kind: str,
    answer: Callable[[str, bytes], Messages] = nothing,
    *,
    init: bool = True,
    timeout_ms: int = 20,
    csr: str = "TestCSR",
    request: RegisterThingRequest = REQUEST,
    client: ScriptedClient | None = None,
) -> Given:
    """What an operation returns, and what its callback was given."""
    given: list[Any] = []
    client = client or ScriptedClient(answer)
    provisioning = Provisioning(client)
    if init:
        provisioning.init()
    if kind == "keys":
        return provisioning.create_keys_and_certificate(0, timeout_ms, given.append), given
    if kind == "csr":
        status = provisioning.create_certificate_from_csr(1, csr, timeout_ms, given.append)
        return status, given
    return provisioning.register_thing(request, timeout_ms, given.append), given


def accepted(payload: bytes) -> Callable[[str, bytes], Messages]:
    return lambda topic, _: [(f"{topic}/accepted", payload)]


def rejected(payload: bytes) -> Callable[[str, bytes], Messages]:
    return lambda topic, _: [(f"{topic}/rejected", payload)]


def response_of(kind: str, *parts: Any) -> object:
    if kind == "keys":
        return CreateKeysAndCertificateResponse(*parts)
    if kind == "csr":
        return CreateCertificateFromCsrResponse(*parts)
    return RegisterThingResponse(*parts)


NOMINAL: dict[str, tuple[bytes, Any]] = {
    "keys": (
        mapping(**KEYS),
        AcceptedKeysAndCertificate("abcdefg", "hijklm", "Secret!", "Token!"),
    ),
    "csr": (mapping(**CSR), AcceptedCertificateFromCsr("abcdefg", "hijklm", "Token!")),
    "register": (
        REGISTERED,
        AcceptedRegisterThing(
            "TestThing",
            {
                "FallbackUrl": "https://www.example.com/test-site",
                "LocationUrl": "https://example.aws",
            },
        ),
    ),
}
each_kind = pytest.mark.parametrize("kind", ["keys", "csr", "register"])


# --- Provisioning_Unit_API ---


def test_init() -> None:
    provisioning = Provisioning(ScriptedClient())
    assert provisioning.mqtt_timeout_ms == 5000
    assert provisioning.init(5001) == Status.SUCCESS
    assert provisioning.mqtt_timeout_ms == 5001
    provisioning.cleanup()
    assert provisioning.mqtt_timeout_ms == 5000


def test_init_with_already_initialized_library() -> None:
    provisioning = Provisioning(ScriptedClient())
    assert provisioning.init(1000) == Status.SUCCESS
    assert provisioning.init(2000) == Status.SUCCESS
    assert provisioning.mqtt_timeout_ms == 1000


def test_cleanup_before_init_and_twice() -> None:
    provisioning = Provisioning(ScriptedClient())
    provisioning.cleanup()
    assert provisioning.init() == Status.SUCCESS
    provisioning.cleanup()
    provisioning.cleanup()


def test_string_coverage() -> None:
    assert [Provisioning.strerror(each) for each in range(12)] == [
        "INVALID STATUS",
        "SUCCESS",
        "INIT FAILED",
        "NOT INITIALIZED",
        "BAD PARAMETER",
        "NO MEMORY",
        "BAD RESPONSE",
        "TIMEOUT",
        "SERVER REFUSED",
        "FAILED: INTERNAL FAILURE",
        "MQTT ERROR",
        "INVALID STATUS",
    ]


def test_create_keys_and_certificate_api_invalid_parameters() -> None:
    provisioning = Provisioning(None)
    provisioning.init()
    assert provisioning.create_keys_and_certificate(0, 0, None) == Status.BAD_PARAMETER
    assert provisioning.create_keys_and_certificate(0, 0, print) == Status.BAD_PARAMETER
    provisioning = Provisioning(ScriptedClient())
    provisioning.init()
    assert provisioning.create_keys_and_certificate(2, 0, None) == Status.BAD_PARAMETER
    assert provisioning.create_keys_and_certificate(0, 0, None) == Status.BAD_PARAMETER


def test_create_certificate_from_csr_api_invalid_parameters() -> None:
    provisioning = Provisioning(None)
    provisioning.init()
    assert provisioning.create_certificate_from_csr(1, "CSR", 0, print) == Status.BAD_PARAMETER
    provisioning = Provisioning(ScriptedClient())
    provisioning.init()
    assert provisioning.create_certificate_from_csr(1, None, 0, print) == Status.BAD_PARAMETER
    assert provisioning.create_certificate_from_csr(1, "", 0, print) == Status.BAD_PARAMETER
    assert provisioning.create_certificate_from_csr(1, "CSR", 0, None) == Status.BAD_PARAMETER


def test_register_thing_api_invalid_parameters() -> None:
    provisioning = Provisioning(None)
    provisioning.init()
    assert provisioning.register_thing(REQUEST, 0, print) == Status.BAD_PARAMETER
    provisioning = Provisioning(ScriptedClient())
    provisioning.init()
    assert provisioning.register_thing(REQUEST, 0, None) == Status.BAD_PARAMETER
    for request in (
        None,
        RegisterThingRequest("TEST_TEMPLATE", "", "TestToken"),
        RegisterThingRequest("TEST_TEMPLATE", "TestCertificateID", ""),
        RegisterThingRequest("", "TestCertificateID", "TestToken"),
    ):
        assert provisioning.register_thing(request, 0, print) == Status.BAD_PARAMETER


@each_kind
def test_api_called_without_init(kind: str) -> None:
    assert call(kind, init=False) == (Status.NOT_INITIALIZED, [])


@each_kind
def test_api_no_server_response(kind: str) -> None:
    assert call(kind) == (Status.TIMEOUT, [])


@each_kind
def test_api_rejected_response(kind: str) -> None:
    expected = (Status.SERVER_REFUSED, [response_of(kind, *REFUSED)])
    assert call(kind, rejected(REJECTED)) == expected


CORRUPT: dict[str, list[bytes]] = {
    "keys": [
        # two entries announced, one there
        head(5, 2) + pairs(privateKey=b"\x4a" + b"x\x9a" * 5),
        # a text that is longer than its content
        head(5, 2) + pairs(certificatePem=b"\x4a" + b"\x124" * 5) + b"\x6aPublicKey\x4a" + b"x" * 9,
    ],
    "csr": [head(5, 2) + pairs(certificatePem=text("abcdefg"))],
    "register": [
        head(5, 1) + text("deviceConfiguration") + text("no map"),
        head(5, 2) + pairs(thingName=text("TestThing")),
    ],
}


@each_kind
def test_api_corrupt_data_in_response(kind: str) -> None:
    for payload in CORRUPT[kind]:
        assert call(kind, accepted(payload)) == (Status.BAD_RESPONSE, [])


@each_kind
def test_api_nominal_success(kind: str) -> None:
    payload, values = NOMINAL[kind]
    expected = (Status.SUCCESS, [response_of(kind, 202, values)])
    assert call(kind, accepted(payload)) == expected


@each_kind
def test_api_server_response_after_timeout(kind: str) -> None:
    client = ScriptedClient(accepted(NOMINAL[kind][0]), delay=0.5)
    assert call(kind, client=client) == (Status.TIMEOUT, [])
    client.disconnect()


@each_kind
def test_api_server_response_and_timeout_race_condition(kind: str) -> None:
    """The answer comes at the very moment of the time-out, which is that of the request."""
    payload, values = NOMINAL[kind]
    expected = (Status.SUCCESS, [response_of(kind, 202, values)])
    assert call(kind, accepted(payload), timeout_ms=0) == expected


def test_register_thing_api_server_response_without_device_configuration() -> None:
    payload = mapping(thingName=text("TestThing"))
    values = AcceptedRegisterThing("TestThing", {})
    expected = (Status.SUCCESS, [RegisterThingResponse(202, values)])
    assert call("register", accepted(payload)) == expected


def test_register_thing_api_server_response_without_thing_name() -> None:
    payload = mapping(deviceConfiguration=b"\xbf" + CONFIGURATION + b"\xff")
    values = AcceptedRegisterThing(None, NOMINAL["register"][1].device_configuration)
    expected = (Status.SUCCESS, [RegisterThingResponse(202, values)])
    assert call("register", accepted(payload)) == expected


# --- Provisioning_Unit_Serializer ---


def published(kind: str, **arguments: Any) -> bytes:
    client = ScriptedClient()
    call(kind, client=client, timeout_ms=0, **arguments)
    return client.payloads[0]


def test_serialize_create_keys_and_certificate_payload_nominal_case() -> None:
    assert published("keys") == b"\xa0"


def test_serialize_create_cert_from_csr_payload() -> None:
    """Also TestCalculateCertFromCsrPayloadSize: the size is that of the payload."""
    expected = bytes.fromhex(
        "a1 7819 636572746966696361746553 69676e696e6752657175657374 67 54657374435352"
    )
    assert published("csr", csr="TestCSR") == expected
    assert len(expected) == 36


def test_serialize_create_cert_from_csr_payload_is_never_cut_off() -> None:
    """In place of the failure case, a buffer that is one byte too small."""
    csr = "x" * 3000
    assert published("csr", csr=csr) == (
        head(5, 1) + text("certificateSigningRequest") + bytes.fromhex("79 0bb8") + csr.encode()
    )


REGISTER_HEAD = (
    text("certificateId")
    + text("TestCertificateId")
    + text("certificateOwnershipToken")
    + text("Token!")
)


def test_serialize_register_thing_payload_nominal_case() -> None:
    parameters = {f"Param{each}": f"Value{each}" for each in (1, 2, 3)}
    request = RegisterThingRequest("T", "TestCertificateId", "Token!", parameters)
    payload = published("register", request=request)
    assert payload == b"\xa3" + REGISTER_HEAD + b"\x6aparameters\xa3" + b"".join(
        text(f"Param{each}") + text(f"Value{each}") for each in (1, 2, 3)
    )
    assert payload[:15] == b"\xa3\x6dcertificateId"


def test_serialize_register_thing_payload_case_without_parameters() -> None:
    request = RegisterThingRequest("T", "TestCertificateId", "Token!")
    assert published("register", request=request) == b"\xa2" + REGISTER_HEAD


def test_the_other_format_carries_the_same() -> None:
    assert protocol.encode("json", protocol.csr_request("TestCSR")) == (
        b'{"certificateSigningRequest":"TestCSR"}'
    )


# --- Provisioning_Unit_Parser ---


@each_kind
def test_parse_rejected_response(kind: str) -> None:
    """TestParse{KeysAndCertificate,CreateCertFromCsr,RegisterThing}RejectedResponse, of which
    the C library never runs the last."""
    status, given = call(kind, rejected(REJECTED))
    assert status == Status.SERVER_REFUSED
    assert (given[0].status_code, given[0].accepted, given[0].rejected) == REFUSED


@each_kind
def test_parse_accepted_response(kind: str) -> None:
    payload, values = NOMINAL[kind]
    status, given = call(kind, accepted(payload))
    assert (status, given[0].status_code, given[0].accepted) == (Status.SUCCESS, 202, values)


@pytest.mark.parametrize(("kind", "entries"), [("keys", KEYS), ("csr", CSR)])
def test_parse_response_with_missing_entries(kind: str, entries: dict[str, bytes]) -> None:
    """Each entry alone, as in the C library, and each missing in turn."""
    for name, value in entries.items():
        others = {each: entries[each] for each in entries if each != name}
        for payload in (mapping(**{name: value}), mapping(**others)):
            assert call(kind, accepted(payload)) == (Status.BAD_RESPONSE, [])


@pytest.mark.parametrize("wrong", [b"\x0a", b"\x41x", b"\x80", b"\xa0", b"\xf5", b"\xf6"])
@pytest.mark.parametrize(("kind", "entries"), [("keys", KEYS), ("csr", CSR)])
def test_parse_response_with_incorrect_data_type(
    kind: str, entries: dict[str, bytes], wrong: bytes
) -> None:
    for name in entries:
        payload = mapping(**{**entries, name: wrong})
        assert call(kind, accepted(payload)) == (Status.BAD_RESPONSE, [])


@each_kind
def test_parses_with_rejected_response_containing_missing_entries(kind: str) -> None:
    members = {
        "statusCode": bytes.fromhex("1901f4"),
        "errorCode": text("InvalidPayload"),
        "errorMessage": text(LONG),
    }
    for name in members:
        others = {each: members[each] for each in members if each != name}
        assert call(kind, rejected(mapping(**others))) == (Status.BAD_RESPONSE, [])
        wrong = {**members, name: text("500") if name == "statusCode" else b"\x0a"}
        assert call(kind, rejected(mapping(**wrong))) == (Status.BAD_RESPONSE, [])

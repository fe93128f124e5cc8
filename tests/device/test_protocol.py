"""Topics and payloads of the three operations, byte by byte.

Source: AWS IoT Core Developer Guide, "Device provisioning MQTT API"; the CBOR bytes follow RFC
8949 (definite lengths, as AWS's embedded SDK writes and expects them).
"""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.device import protocol
from fleetgate.device.errors import BadAnswer, BadRequest, Rejected
from fleetgate.device.protocol import Operation, PayloadFormat

KEYS = protocol.create_keys_and_certificate("json")
CSR = protocol.create_certificate_from_csr("cbor")
REGISTER = protocol.register_thing("Lamps_v-2", "json")


@pytest.mark.parametrize(
    ("operation", "topic"),
    [
        (KEYS, "$aws/certificates/create/json"),
        (CSR, "$aws/certificates/create-from-csr/cbor"),
        (REGISTER, "$aws/provisioning-templates/Lamps_v-2/provision/json"),
    ],
)
def test_topics(operation: Operation, topic: str) -> None:
    assert operation.request == topic
    assert operation.accepted == f"{topic}/accepted"
    assert operation.rejected == f"{topic}/rejected"


@pytest.mark.parametrize("name", ["", "a" * 37, "a/b", "a+", "#", "lämp", "a b", "a\n"])
def test_a_name_that_is_no_template_s_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="cannot be the name of a provisioning template"):
        protocol.register_thing(name, "json")


@pytest.mark.parametrize(
    ("values", "as_json", "as_cbor"),
    [
        ({}, b"{}", "a0"),
        (
            protocol.csr_request("PEM\n"),
            b'{"certificateSigningRequest":"PEM\\n"}',
            "a1 7819" + b"certificateSigningRequest".hex() + "64" + b"PEM\n".hex(),
        ),
        (
            protocol.register_request("tok", {"Name": "ä"}),
            '{"certificateOwnershipToken":"tok","parameters":{"Name":"ä"}}'.encode(),
            "a2 7819"
            + b"certificateOwnershipToken".hex()
            + "63"
            + b"tok".hex()
            + "6a"
            + b"parameters".hex()
            + "a1 64"
            + b"Name".hex()
            + "62 c3a4",
        ),
    ],
)
def test_payloads(values: dict[str, Any], as_json: bytes, as_cbor: str) -> None:
    assert protocol.encode("json", values) == as_json
    assert protocol.encode("cbor", values) == bytes.fromhex(as_cbor)


def test_a_rejection_is_raised_with_its_three_members() -> None:
    # statusCode as an unsigned integer (19 0190), as AWS's embedded SDK expects it.
    payload = bytes.fromhex(
        "a3 6a" + b"statusCode".hex() + "190190"
        "69" + b"errorCode".hex() + "6a" + b"InvalidCsr".hex() + ""
        "6c" + b"errorMessage".hex() + "63" + b"bad".hex()
    )
    with pytest.raises(Rejected, match="with 400 InvalidCsr: bad") as caught:
        protocol.read(CSR, CSR.rejected, payload)
    assert caught.value.topic == CSR.rejected
    assert (caught.value.status_code, caught.value.error_code) == (400, "InvalidCsr")


@pytest.mark.parametrize("status", [1 << 40_000, -400, 1000], ids=["huge", "negative", "1000"])
def test_a_status_that_is_none_is_a_bad_answer(status: int) -> None:
    """CBOR has integers of any size, and Python does not write them all."""
    operation = protocol.create_certificate_from_csr("cbor")
    values = {"statusCode": status, "errorCode": "X", "errorMessage": "x"}
    with pytest.raises(BadAnswer, match="without saying why"):
        protocol.read(operation, operation.rejected, cbor2.dumps(values))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"errorCode": "X", "errorMessage": "x"},
        {"statusCode": "400", "errorCode": "X", "errorMessage": "x"},
        {"statusCode": 400, "errorCode": None, "errorMessage": "x"},
    ],
)
def test_a_rejection_without_its_members_is_a_bad_answer(values: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer, match="without saying why"):
        protocol.read(KEYS, KEYS.rejected, json.dumps(values).encode())


@pytest.mark.parametrize(
    ("operation", "payload", "message"),
    [
        (KEYS, b"", "is not JSON"),
        (KEYS, b"{", "is not JSON"),
        (KEYS, b"\xff", "is not JSON"),
        (KEYS, b"[" * 100_000, "is not JSON"),
        (KEYS, b"[]", "is not a map"),
        (KEYS, b"{} {}", "is not JSON"),
        (CSR, b"", "is not CBOR"),
        (CSR, b"\xa0\xa0", "is not CBOR: there is more after the first value"),
        (CSR, b"\x81" * 100_000, "is not CBOR"),
        (CSR, bytes.fromhex("bb00000000ffffffff"), "is not CBOR"),
        (CSR, bytes.fromhex("7a7fffffff"), "is not CBOR"),
        (CSR, b"\x01", "is not a map"),
    ],
)
def test_what_cannot_be_read_is_a_bad_answer(
    operation: Operation, payload: bytes, message: str
) -> None:
    with pytest.raises(BadAnswer, match=message) as caught:
        protocol.read(operation, operation.accepted, payload)
    assert caught.value.topic == operation.accepted


@given(payload=st.binary(max_size=64), payload_format=st.sampled_from(["json", "cbor"]))
def test_any_bytes_are_read_or_a_bad_answer(payload: bytes, payload_format: PayloadFormat) -> None:
    operation = protocol.create_keys_and_certificate(payload_format)
    try:
        assert isinstance(protocol.read(operation, operation.accepted, payload), dict)
    except BadAnswer:
        return


ISSUED = {
    "certificateId": "ab",
    "certificatePem": "PEM",
    "certificateOwnershipToken": "tok",
    "privateKey": "KEY",
    "unknown": 1,
}


def test_an_issued_certificate_is_read() -> None:
    issued = protocol.issued(KEYS, ISSUED, with_key=True)
    assert issued == protocol.Issued("ab", "PEM", "tok", "KEY")
    assert protocol.issued(CSR, ISSUED, with_key=False).private_key is None
    assert "tok" not in repr(issued)
    assert "KEY" not in repr(issued)


@pytest.mark.parametrize(
    "member", ["certificateId", "certificatePem", "certificateOwnershipToken", "privateKey"]
)
def test_each_member_of_an_issued_certificate_is_needed(member: str) -> None:
    with pytest.raises(BadAnswer, match=f"`{member}` in the answer is missing"):
        protocol.issued(KEYS, {**ISSUED, member: None}, with_key=True)
    for value in (1, "", b"x", ["x"]):
        with pytest.raises(BadAnswer, match=f"`{member}` in the answer is not a text"):
            protocol.issued(KEYS, {**ISSUED, member: value}, with_key=True)


def test_an_answer_without_its_members_is_none() -> None:
    """AWS sends an empty `deviceConfiguration` when the template has none: an answer without both
    is not one, and its token would be gone for nothing."""
    with pytest.raises(BadAnswer, match="neither `deviceConfiguration` nor `thingName`"):
        protocol.registered(REGISTER, {"padding": "x"})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"thingName": "t", "deviceConfiguration": {"a": "b"}}, ("t", {"a": "b"})),
        ({"thingName": "t", "deviceConfiguration": {}}, ("t", {})),
        ({"thingName": "t"}, ("t", {})),
        ({"thingName": None, "deviceConfiguration": None}, (None, {})),
        ({"deviceConfiguration": {}}, (None, {})),
    ],
)
def test_a_registration_is_read(
    values: dict[str, Any], expected: tuple[str | None, dict[str, str]]
) -> None:
    registered = protocol.registered(REGISTER, values)
    assert (registered.thing_name, registered.device_configuration) == expected


@pytest.mark.parametrize(
    "values",
    [
        {"thingName": 1},
        {"thingName": ""},
        {"deviceConfiguration": [1]},
        {"deviceConfiguration": {"a": 1}},
        {"deviceConfiguration": {1: "a"}},
    ],
)
def test_a_registration_of_wrong_types_is_a_bad_answer(values: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer):
        protocol.registered(REGISTER, values)

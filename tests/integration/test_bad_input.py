"""Bad input over MQTT: each gets its documented error or a closed connection; the server goes on.

Source of the documented errors: AWS IoT Core developer guide, "Device provisioning MQTT API".
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.integration.fleet import (
    CSR,
    Fleet,
    Identity,
    create_fleet,
    register_topic,
    rsa_key,
    signing_request,
    write_identity,
)
from tests.integration.paho_device import PahoDevice, Refused, tls_context
from tests.integration.server import Server, run

pytestmark = pytest.mark.usefixtures("goes_on")


@pytest.fixture
def device(server: Server, shared_fleet: Fleet, name: str) -> Iterator[PahoDevice]:
    """A claim connection that listens to all replies of both formats."""
    with PahoDevice(server, shared_fleet.claim, name) as device:
        for form in ("json", "cbor"):
            device.listen(CSR, register_topic(shared_fleet.template), form=form)
        yield device


# --- certificates ------------------------------------------------------------------------------


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("version", [4, 5], ids=["mqtt311", "mqtt5"])
def test_an_unknown_certificate_is_refused(
    server: Server, name: str, tmp_path: Path, version: int
) -> None:
    made = run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "1", "-subj", "/CN=stranger"),
        *("-keyout", "stranger.key", "-out", "stranger.pem"),
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    stranger = Identity(tmp_path / "stranger.pem", tmp_path / "stranger.key", "")
    with pytest.raises(Refused), PahoDevice(server, stranger, name, version=version):
        pass


def test_a_deleted_certificate_is_unknown(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path
) -> None:
    """Signed by the server's own authority, but not in the registry."""
    with PahoDevice(server, shared_fleet.claim, f"claim-{name}") as device:
        device.listen(CSR)
        made, key = device.create()
    own = write_identity(tmp_path, name, made["certificatePem"], key, made["certificateId"])
    server.iot.delete_certificate(certificateId=own.id)
    with pytest.raises(Refused), PahoDevice(server, own, name):
        pass


def test_no_certificate_is_refused(server: Server, shared_fleet: Fleet, name: str) -> None:
    context = tls_context(server, None)
    device = PahoDevice(server, shared_fleet.claim, name, context=context)
    with pytest.raises(Refused), device:
        pass


# --- tokens ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def foreign_token(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A genuine token, of another server."""
    tmp_path = tmp_path_factory.mktemp("foreign")
    with Server(tmp_path / "data") as other:
        fleet = create_fleet(other, tmp_path, "foreign")
        with PahoDevice(other, fleet.claim, "foreign") as device:
            device.listen(CSR)
            made, _ = device.create()
    return str(made["certificateOwnershipToken"])


@pytest.mark.parametrize("form", ["json", "cbor"])
def test_a_foreign_token_is_refused(
    device: PahoDevice, shared_fleet: Fleet, foreign_token: str, form: str
) -> None:
    body = {"certificateOwnershipToken": foreign_token, "parameters": {"SerialNumber": "x"}}
    rejected = device.rejected(register_topic(shared_fleet.template), body, form=form)
    assert rejected["statusCode"] == 400
    assert rejected["errorCode"] == "InvalidCertificateOwnershipToken"


def test_a_changed_token_is_refused(
    server: Server, device: PahoDevice, shared_fleet: Fleet, name: str
) -> None:
    made, _ = device.create()
    token = made["certificateOwnershipToken"]
    register = register_topic(shared_fleet.template)
    middle = len(token) // 2
    other = "A" if token[middle] != "A" else "B"
    for changed in (
        token[:-4],
        token + "AAAA",
        token[:middle] + other + token[middle + 1 :],
        token.swapcase(),
        "x",
        "x" * 1000,
        "\x00",
        "ü",
    ):
        body = {"certificateOwnershipToken": changed, "parameters": {"SerialNumber": name}}
        rejected = device.rejected(register, body)
        assert (rejected["statusCode"], rejected["errorCode"]) == (
            400,
            "InvalidCertificateOwnershipToken",
        )
    body = {"certificateOwnershipToken": token, "parameters": {"SerialNumber": name}}
    assert device.accepted(register, body)["thingName"] == shared_fleet.thing(name)


@pytest.mark.parametrize("form", ["json", "cbor"])
@pytest.mark.parametrize(
    "body", [{}, {"certificateOwnershipToken": ""}, {"parameters": {"SerialNumber": "x"}}]
)
def test_a_token_has_to_be_there(
    device: PahoDevice, shared_fleet: Fleet, form: str, body: dict[str, Any]
) -> None:
    """The text is AWS's: aws/aws-iot-device-sdk-js-v2 issue 69."""
    assert device.rejected(register_topic(shared_fleet.template), body, form=form) == {
        "statusCode": 400,
        "errorCode": "InvalidCertificateOwnershipToken",
        "errorMessage": "Certificate ownership token cannot be empty.",
    }


# --- templates and parameters ------------------------------------------------------------------


def test_an_unknown_template_is_not_found(server: Server, operator: Identity, name: str) -> None:
    register = register_topic(f"{name}-unknown")
    with PahoDevice(server, operator, name) as device:
        device.listen(CSR, register)
        made, _ = device.create()
        body = {"certificateOwnershipToken": made["certificateOwnershipToken"]}
        rejected = device.rejected(register, body)
    assert (rejected["statusCode"], rejected["errorCode"]) == (404, "ResourceNotFound")
    assert f"{name}-unknown" in rejected["errorMessage"]


@pytest.mark.parametrize("form", ["json", "cbor"])
def test_a_missing_parameter_is_named(
    server: Server, device: PahoDevice, shared_fleet: Fleet, form: str
) -> None:
    made, _ = device.create(form=form)
    missing: list[dict[str, Any]] = [{}, {"parameters": {}}, {"parameters": {"Another": "x"}}]
    for more in missing:
        body = {"certificateOwnershipToken": made["certificateOwnershipToken"]} | more
        assert device.rejected(register_topic(shared_fleet.template), body, form=form) == {
            "statusCode": 400,
            "errorCode": "InvalidParameters",
            "errorMessage": "Cannot resolve reference value: SerialNumber",
        }
    described = server.iot.describe_certificate(certificateId=made["certificateId"])
    assert described["certificateDescription"]["status"] == "PENDING_ACTIVATION"


def test_a_value_that_makes_a_bad_name_changes_nothing(
    server: Server, device: PahoDevice, shared_fleet: Fleet
) -> None:
    made, _ = device.create()
    for serial in ("with blank", "x" * 200, "a/b", "#"):
        body = {
            "certificateOwnershipToken": made["certificateOwnershipToken"],
            "parameters": {"SerialNumber": serial},
        }
        rejected = device.rejected(register_topic(shared_fleet.template), body)
        assert rejected["statusCode"] == 400
    described = server.iot.describe_certificate(certificateId=made["certificateId"])
    assert described["certificateDescription"]["status"] == "PENDING_ACTIVATION"


@pytest.mark.parametrize(
    "parameters", ["text", ["SerialNumber"], {"SerialNumber": 5}, {"SerialNumber": None}, 7]
)
def test_parameters_of_another_type_are_refused(
    device: PahoDevice, shared_fleet: Fleet, parameters: Any
) -> None:
    made, _ = device.create()
    body = {
        "certificateOwnershipToken": made["certificateOwnershipToken"],
        "parameters": parameters,
    }
    for form in ("json", "cbor"):
        rejected = device.rejected(register_topic(shared_fleet.template), body, form=form)
        assert rejected["statusCode"] == 400


def test_a_token_of_any_length_is_only_refused(device: PahoDevice, shared_fleet: Fleet) -> None:
    for length in (5_000, 100_000):
        body = {"certificateOwnershipToken": "x" * length}
        rejected = device.rejected(register_topic(shared_fleet.template), body)
        assert rejected["statusCode"] == 400
        assert rejected["errorCode"] == "InvalidCertificateOwnershipToken"
        assert len(rejected["errorMessage"]) < 1000


# --- signing requests --------------------------------------------------------------------------


def tampered(pem: str) -> str:
    """The request with the last octet of its signature changed."""
    der = x509.load_pem_x509_csr(pem.encode()).public_bytes(serialization.Encoding.DER)
    text = base64.encodebytes(der[:-1] + bytes([der[-1] ^ 1])).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n"


BAD_CSRS = {
    "gibberish": "gibberish",
    "cut": signing_request().csr[:200],
    "no-armour": signing_request().csr.splitlines()[1],
    "weak": signing_request(key=rsa_key(1024)).csr,
    "unsigned": tampered(signing_request().csr),
}


@pytest.mark.parametrize("form", ["json", "cbor"])
@pytest.mark.parametrize("csr", list(BAD_CSRS.values()), ids=list(BAD_CSRS))
def test_a_bad_signing_request_is_refused(device: PahoDevice, form: str, csr: str) -> None:
    rejected = device.rejected(CSR, {"certificateSigningRequest": csr}, form=form)
    assert (rejected["statusCode"], rejected["errorCode"]) == (400, "InvalidCsr")


@pytest.mark.parametrize("form", ["json", "cbor"])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "InvalidCsr"),
        ({"csr": "x"}, "InvalidCsr"),
        ({"certificateSigningRequest": 5}, "InvalidPayload"),
        ({"certificateSigningRequest": None}, "InvalidCsr"),
        ({"certificateSigningRequest": ""}, "InvalidCsr"),
        ({"certificateSigningRequest": "x" * 5000}, "InvalidCsr"),
    ],
    ids=["nothing", "another", "number", "null", "empty", "long"],
)
def test_a_signing_request_has_to_be_there_and_of_a_sane_length(
    device: PahoDevice, form: str, body: dict[str, Any], code: str
) -> None:
    rejected = device.rejected(CSR, body, form=form)
    assert (rejected["statusCode"], rejected["errorCode"]) == (400, code)


# --- payloads ----------------------------------------------------------------------------------

BAD_PAYLOADS = {
    "json": {
        "empty": b"",
        "cut": b'{"certificateSigningRequest": "',
        "list": b"[]",
        "text": b'"x"',
        "utf-8": b'{"a": "\xff\xfe"}',
        "deep": b"[" * 100_000,
        "deep-map": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        "cbor": b"\xa0",
    },
    "cbor": {
        "empty": b"",
        "cut": b"\xa1",
        "list": b"\x80",
        "text": b"\x61x",
        "utf-8": b"\xa1\x61a\x62\xff\xfe",
        "deep": b"\x81" * 100_000,
        "deep-map": b"\xa1\x61a" * 30_000 + b"\x01",
        "deep-tags": b"\xc1" * 100_000,
        "long-list": b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        "long-map": b"\xbb\x00\x00\x00\xff\xff\xff\xff\xff",
        "long-text": b"\x7b\x7f\xff\xff\xff\xff\xff\xff\xff",
        "long-octets": b"\x5b\x00\x00\x00\x7f\xff\xff\xff\xff",
        "reserved": b"\xfc",
        "unended": b"\xbf\x61a",
        "trailing": b"\xa0\xa0",
    },
}


@pytest.mark.parametrize(
    ("form", "payload"),
    [
        pytest.param(form, payload, id=f"{form}-{name}")
        for form, payloads in BAD_PAYLOADS.items()
        for name, payload in payloads.items()
    ],
)
def test_a_payload_that_cannot_be_read_is_refused(
    device: PahoDevice, shared_fleet: Fleet, form: str, payload: bytes
) -> None:
    for topic in (CSR, register_topic(shared_fleet.template)):
        rejected = device.rejected(topic, payload, form=form)
        assert (rejected["statusCode"], rejected["errorCode"]) == (400, "InvalidPayload")

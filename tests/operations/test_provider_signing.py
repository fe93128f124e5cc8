"""What the certificate provider changes for devices, and what it does not.

Source: AWS IoT Developer Guide, "Self-managed certificate signing using AWS IoT Core certificate
provider": input and output of the function, what its certificate has to carry, that the MQTT
operation alone is concerned.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

from fleetgate.errors import InternalErrorException, InvalidCsrException
from fleetgate.functions import local_ca
from fleetgate.functions.target import Failure, FunctionError, Run
from fleetgate.operations import admission
from fleetgate.operations.identity import Peer
from fleetgate.operations.provider_signing import MESSAGE
from fleetgate.operations.sweep import sweep
from fleetgate.pki import pem
from tests.operations import foreign
from tests.operations.conftest import CLAIM, START, Registry, csr
from tests.operations.foreign import authority, with_other_signature
from tests.operations.hooks import ALLOW, Here, configure, hook, permit
from tests.operations.test_certificate_providers import create
from tests.operations.test_provisioning import register, set_up
from tests.provider_authority import ProviderAuthority, common_name, provider_authority

NOW = datetime.fromtimestamp(START, UTC)
CLAIM_ID = CLAIM.certificate_id
Sign = Callable[[str], Any]


def signing(sign: Sign) -> Here:
    """A provider's function; `sign` makes the answer to a CSR, or raises."""
    return Here(lambda event: sign(event["certificateSigningRequest"]))


@pytest.fixture(scope="module")
def root() -> ProviderAuthority:
    return provider_authority(NOW)


@pytest.fixture
def as_it_should(root: ProviderAuthority) -> Here:
    return signing(lambda text: {"certificatePem": root.sign(text, NOW)})


@pytest.fixture
def function(registry: Registry, as_it_should: Here) -> Here:
    """The function of the account's provider; it signs as it should."""
    configure(registry, "sign", as_it_should)
    create(registry)
    return as_it_should


def then_sign(function: Here, sign: Sign) -> None:
    """From now on the function signs in this way."""
    function.function = signing(sign).function


def ask(registry: Registry, request: str | None = None) -> dict[str, Any]:
    return registry.device(
        "CreateCertificateFromCsr",
        CLAIM,
        certificate_signing_request=csr() if request is None else request,
    )


def described(registry: Registry, certificate_id: str) -> Any:
    answer = registry.call("DescribeCertificate", certificate_id=certificate_id)
    return answer["certificateDescription"]


def certificates(registry: Registry) -> list[str]:
    found = registry.call("ListCertificates")["certificates"]
    return [each["certificateId"] for each in found if each["certificateId"] != CLAIM_ID]


def not_issued(registry: Registry, request: str | None = None) -> str:
    """The reason why there is no certificate; nothing was stored."""
    before = certificates(registry)
    with pytest.raises(InternalErrorException) as caught:
        ask(registry, request)
    assert caught.value.message == MESSAGE
    assert certificates(registry) == before
    (note,) = caught.value.__notes__
    return str(note)


def test_the_provider_signs(registry: Registry, function: Here, root: ProviderAuthority) -> None:
    request = csr("lamp")
    answer = ask(registry, request)
    assert function.events == [
        {"certificateSigningRequest": request, "principalId": "c" * 64, "clientId": "client"}
    ]
    certificate = x509.load_pem_x509_certificate(answer["certificatePem"].encode())
    assert certificate.issuer == root.name
    assert certificate.subject == common_name("lamp")
    found = described(registry, answer["certificateId"])
    assert found["certificatePem"] == answer["certificatePem"]
    assert found["status"] == "PENDING_ACTIVATION"
    assert found["certificateMode"] == "DEFAULT"
    assert found["caCertificateId"] is None
    assert found["validity"] == {
        "notBefore": START,
        "notAfter": START + timedelta(days=365).total_seconds(),
    }


def test_nothing_but_the_mqtt_operation_asks_it(registry: Registry, function: Here) -> None:
    own = registry.services.authority.certificate.subject
    for answer in (
        registry.certificate(),
        registry.call("CreateKeysAndCertificate"),
        registry.device("CreateKeysAndCertificate", CLAIM),
        registry.call("RegisterThing", template_body=SIGNED, parameters={"Csr": csr()}),
    ):
        issued = x509.load_pem_x509_certificate(answer["certificatePem"].encode())
        assert issued.issuer == own
    assert function.events == []
    registry.call("DeleteCertificateProvider", certificate_provider_name="mine")
    issued = x509.load_pem_x509_certificate(ask(registry)["certificatePem"].encode())
    assert issued.issuer == own
    assert function.events == []


SIGNED = json.dumps(
    {
        "Parameters": {"Csr": {"Type": "String"}},
        "Resources": {
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateSigningRequest": {"Ref": "Csr"}},
            }
        },
    }
)


def test_what_is_wrong_with_a_request_the_provider_never_sees(
    registry: Registry, function: Here
) -> None:
    for request in ("", "gibberish", csr("gate.example"), csr()[:-60]):
        with pytest.raises(InvalidCsrException):
            ask(registry, request)
    weak = x509.CertificateSigningRequestBuilder().subject_name(common_name("weak"))
    key = ec.generate_private_key(ec.SECP256K1())
    with pytest.raises(InvalidCsrException, match="secp256k1"):
        ask(registry, weak.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode())
    assert function.events == []


def test_the_device_gets_the_chain_word_for_word_and_the_registry_the_leaf(
    registry: Registry, function: Here, root: ProviderAuthority
) -> None:
    middle = provider_authority(NOW, "middle", root)

    def sign(text: str) -> Any:
        leaf = middle.sign(text, NOW)
        return {"certificatePem": f"Data:\n{leaf}{middle.pem}{root.pem}".replace("\n", "\r\n")}

    then_sign(function, sign)
    answer = ask(registry)
    assert answer["certificatePem"].startswith("Data:\r\n-----BEGIN")
    assert answer["certificatePem"].count("END CERTIFICATE") == 3
    leaf = described(registry, answer["certificateId"])["certificatePem"]
    assert leaf == pem.encode(
        "CERTIFICATE", pem.decode_all(answer["certificatePem"], "CERTIFICATE")[0]
    )


def test_the_built_in_authority_signs_what_is_taken(
    registry: Registry, root: ProviderAuthority, tmp_path: Path
) -> None:
    key = root.key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    (tmp_path / "ca.pem").write_text(root.pem)
    (tmp_path / "ca.key").touch(mode=0o600)
    (tmp_path / "ca.key").write_text(key)
    options = {"certificate": "ca.pem", "key": "ca.key", "chain": True}
    registry.services.functions.targets["sign"] = local_ca.from_options(
        "sign", options, tmp_path, now=lambda: datetime.fromtimestamp(registry.clock(), UTC)
    )
    permit(registry, "sign")
    create(registry)
    answer = ask(registry)
    assert answer["certificatePem"].endswith(root.pem)
    days = timedelta(days=365).total_seconds()
    validity = described(registry, answer["certificateId"])["validity"]
    assert validity == {"notBefore": START - 120, "notAfter": START + days}


def test_its_authority_may_be_registered(registry: Registry, function: Here) -> None:
    lamps, namesake = authority(), authority()
    for each in (namesake, lamps):
        foreign.register(registry, each)

    def sign(text: str) -> Any:
        request = x509.load_pem_x509_csr(text.encode())
        return {"certificatePem": lamps.issue(request.subject, key=request.public_key())}

    then_sign(function, sign)
    made = ask(registry)["certificateId"]
    ca = described(registry, made)["caCertificateId"]
    assert registry.call("DescribeCACertificate", certificate_id=ca)["certificateDescription"][
        "certificatePem"
    ] == pem.encode("CERTIFICATE", pem.decode(lamps.pem, "CERTIFICATE"))
    found = registry.call("ListCertificatesByCA", ca_certificate_id=ca)["certificates"]
    assert [each["certificateId"] for each in found] == [made]


def test_the_device_connects_once_it_is_registered(registry: Registry, function: Here) -> None:
    set_up(registry)
    asked = Here(lambda _: ALLOW)
    hook(registry, asked)
    answer = ask(registry)
    der = pem.decode(answer["certificatePem"], "CERTIFICATE")
    peer = Peer("127.0.0.1", "", der)
    with pytest.raises(admission.NotActivated):
        registry.runner.run(admission.admit(registry.services, peer))
    register(registry, answer)
    assert asked.events[0]["certificatePem"] == answer["certificatePem"]
    identity = registry.runner.run(admission.admit(registry.services, peer))
    assert identity.certificate_id == answer["certificateId"]
    registry.clock.now = START + timedelta(days=365).total_seconds()
    with pytest.raises(admission.NotAdmitted, match="expired at"):
        registry.runner.run(admission.admit(registry.services, peer))


# --- failures --------------------------------------------------------------------------------


def test_without_permission_it_is_not_asked(
    registry: Registry, as_it_should: Here, caplog: pytest.LogCaptureFixture
) -> None:
    configure(registry, "sign", as_it_should, permitted=False)
    with caplog.at_level(logging.INFO, "fleetgate"):
        create(registry)
    assert "event=provider-not-ready provider=mine" in caplog.text
    assert not_issued(registry).startswith("no-permission: iot.amazonaws.com is not authorized")
    assert as_it_should.events == []
    assert "event=provider-failed provider=mine" in caplog.text
    assert "function=arn:aws:lambda:eu-west-1:123456789012:function:sign" in caplog.text
    assert "target='configured python:test:here' kind=no-permission seconds=" in caplog.text


@pytest.mark.parametrize("separator", [":", "/"], ids=["of-answers", "of-policies"])
def test_a_permission_names_the_provider_by_either_form_of_its_arn(
    registry: Registry, as_it_should: Here, separator: str, caplog: pytest.LogCaptureFixture
) -> None:
    configure(registry, "sign", as_it_should, permitted=False)
    permit(registry, "sign", SourceArn=registry.arn(f"certificateprovider{separator}mine"))
    create(registry)
    assert "provider-not-ready" not in caplog.text
    assert ask(registry)["certificateId"]
    registry.call("DeleteCertificateProvider", certificate_provider_name="mine")
    create(registry, "other")
    assert not_issued(registry).startswith("no-permission: ")


def test_a_function_that_is_not_there(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    create(registry)
    assert not_issued(registry).startswith("no-function: there is no function `sign`")
    assert "target='none' kind=no-function" in caplog.text


def raised(error: Exception) -> Any:
    raise error


Wrong = Callable[[ProviderAuthority, str], Any]
WRONG: list[tuple[str, Wrong, str]] = [
    (
        "error",
        lambda *_: Run(b'{"errorType":"ValueError","errorMessage":"no"}', "Unhandled"),
        "failed: function `sign` (configured python:test:here) failed (Unhandled): ValueError: no",
    ),
    (
        "late",
        lambda *_: raised(FunctionError(Failure.TIMED_OUT, "too late")),
        "timed-out: too late",
    ),
    (
        "throttled",
        lambda *_: raised(FunctionError(Failure.THROTTLED, "too many")),
        "throttled: too many",
    ),
    ("no-object", lambda *_: "PEM", "malformed: the answer of function `sign`"),
    (
        "nothing",
        lambda *_: {"certificate": "x", "b": 1},
        "cannot be used: it has no `certificatePem` among its 2 members",
    ),
    ("null", lambda *_: {"certificatePem": None}, "must be a string, not NoneType"),
    ("list", lambda *_: {"certificatePem": ["x"]}, "must be a string, not list"),
    ("garbage", lambda *_: {"certificatePem": "x"}, "refused-certificate: the certificate"),
    (
        "another-key",
        lambda ca, text: {
            "certificatePem": ca.sign(
                text, NOW, key=ec.generate_private_key(ec.SECP256R1()).public_key()
            )
        },
        "refused-certificate: the certificate cannot be used: its public key is not the one",
    ),
    (
        "another-subject",
        lambda ca, text: {"certificatePem": ca.sign(text, NOW, subject=common_name("other"))},
        "its subject is `CN=other`, that of the signing request is `CN=device`",
    ),
    (
        "expired",
        lambda ca, text: {"certificatePem": ca.sign(text, NOW, starts=timedelta(days=-400))},
        "it expired at ",
    ),
    (
        "authority",
        lambda ca, text: {"certificatePem": ca.sign(text, NOW, is_ca=True)},
        "basicConstraints has CA:TRUE",
    ),
]


@pytest.mark.parametrize(
    ("wrong", "reason"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG]
)
def test_whatever_fails_nothing_is_stored(
    registry: Registry,
    function: Here,
    root: ProviderAuthority,
    wrong: Wrong,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    then_sign(function, lambda text: wrong(root, text))
    told = not_issued(registry)
    assert reason in told
    kind = told.partition(": ")[0]
    (line,) = [each for each in caplog.messages if "event=provider-failed" in each]
    target = "configured python:test:here"
    assert re.search(rf" target='{target}' kind={kind} seconds=[0-9]\.[0-9]{{3}} reason=", line)
    assert "PRIVATE KEY" not in caplog.text


def test_a_certificate_is_given_once(
    registry: Registry, function: Here, root: ProviderAuthority
) -> None:
    request = csr()
    given: dict[str, str] = {}

    def sign(text: str) -> Any:
        return {"certificatePem": given.setdefault(text, root.sign(text, NOW))}

    then_sign(function, sign)
    first = ask(registry, request)["certificateId"]
    assert f"{first} is registered already" in not_issued(registry, request)
    registry.call("UpdateCertificate", certificate_id=first, new_status="REVOKED")
    assert f"{first} is registered already" in not_issued(registry, request)


def test_a_certificate_with_its_signature_written_in_another_way_is_the_same(
    registry: Registry, function: Here
) -> None:
    lamps, request, given = authority(), csr(), list[str]()

    def sign(text: str) -> Any:
        read = x509.load_pem_x509_csr(text.encode())
        if not given:
            given.append(lamps.issue(read.subject, key=read.public_key()))
            return {"certificatePem": given[0]}
        return {"certificatePem": with_other_signature(given[0])}

    then_sign(function, sign)
    first = ask(registry, request)["certificateId"]
    reason = not_issued(registry, request)
    assert f"is registered already with another signature, as {first}" in reason


def test_the_moment_is_that_of_the_answer(
    registry: Registry, function: Here, root: ProviderAuthority
) -> None:
    """The clock goes on while the function signs, and a certificate may begin with it."""

    def sign(text: str) -> Any:
        registry.clock.now = START + 4
        return {"certificatePem": root.sign(text, NOW, starts=timedelta(seconds=4))}

    then_sign(function, sign)
    assert ask(registry)["certificateId"]


def test_certificates_nobody_registered_go_as_others_do(registry: Registry, function: Here) -> None:
    made = ask(registry)["certificateId"]
    swept = registry.runner.run(
        registry.services.store.write(sweep, registry.services.account, START + 3600)
    )
    assert swept.certificates == [made]
    assert certificates(registry) == []

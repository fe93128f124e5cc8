"""``key-reuse-audit``: which keys count as used, and what is done then.

Source of the threat: AWS IoT developer guide, "Device provisioning"; Device Defender's audit check
"Device certificate shared". Rules: docs/built-in-functions.md.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from fleetgate.errors import AccessDeniedException, Error
from fleetgate.functions.configured import BuiltIn
from fleetgate.operations import public_keys
from fleetgate.operations.built_in_functions import built_in_functions
from fleetgate.operations.identity import Identity
from fleetgate.operations.sweep import sweep
from fleetgate.pki import keys
from fleetgate.store.engine import Tx
from tests.operations.built_ins import hooked, register_at_once
from tests.operations.conftest import START, Registry
from tests.operations.foreign import authority
from tests.operations.foreign import register as register_ca
from tests.operations.test_provisioning import register, things

DENIED = "the pre-provisioning hook of template `T` did not allow the provisioning"
KIND = "key-reuse-audit"

Key = ec.EllipticCurvePrivateKey


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def request_for(key: Any) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def create(registry: Registry, key: Key) -> dict[str, Any]:
    return registry.device("CreateCertificateFromCsr", certificate_signing_request=request_for(key))


def come(registry: Registry, key: Key, serial: str, identity: Identity | None = None) -> str:
    """Provisions a device with a key and a serial number; the id of its certificate."""
    created = create(registry, key)
    register(registry, created, parameters={"SerialNumber": serial}, identity=identity)
    return str(created["certificateId"])


def refusal(registry: Registry, key: Key, serial: str, caplog: pytest.LogCaptureFixture) -> str:
    """What the log says of a device that was refused, and heard no more than that."""
    caplog.clear()
    with pytest.raises(AccessDeniedException) as caught:
        come(registry, key, serial)
    assert caught.value.message == DENIED
    (line,) = [each for each in caplog.messages if each.startswith("event=hook-refused")]
    return line.partition(" reason=")[2]


def status(registry: Registry, certificate_id: str) -> str:
    found = registry.call("DescribeCertificate", certificate_id=certificate_id)
    return str(found["certificateDescription"]["status"])


def reused(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each for each in caplog.messages if each.startswith("event=key-reused")]


def delete(registry: Registry, certificate_id: str, *attached_to: str) -> None:
    arn = registry.arn(f"cert/{certificate_id}")
    for thing in attached_to:
        registry.call("DetachThingPrincipal", thing_name=thing, principal=arn)
    registry.call("UpdateCertificate", certificate_id=certificate_id, new_status="INACTIVE")
    registry.call("DeleteCertificate", certificate_id=certificate_id, force_delete=True)


def test_a_key_of_another_thing_is_refused(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    assert hooked(registry, KIND).description == "builtin:key-reuse-audit refuse"
    key = new_key()
    first = come(registry, key, "1")
    reason = refusal(registry, key, "2", caplog)
    assert f"the key is that of certificate {first} (ACTIVE, thing `dev-1`)" in reason
    assert things(registry) == ["dev-1"]
    assert status(registry, first) == "ACTIVE"
    come(registry, new_key(), "2")


def test_a_thing_may_keep_its_key(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fleetgate")
    hooked(registry, KIND)
    key = new_key()
    ids = [come(registry, key, "1") for _ in range(2)]
    (line,) = reused(caplog)
    assert f"verdict=same-thing certificate={ids[1]} thing=dev-1 " in line
    assert f"others={ids[0]}:ACTIVE:dev-1 deactivated=None" in line
    # not when the certificate is attached to another one as well
    registry.call("CreateThing", thing_name="shelf")
    registry.call(
        "AttachThingPrincipal", thing_name="shelf", principal=registry.arn(f"cert/{ids[0]}")
    )
    assert f"{ids[0]} (ACTIVE, thing `dev-1` and `shelf`)" in refusal(registry, key, "1", caplog)


def test_a_thing_may_not_keep_its_key_when_that_is_wanted(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    hooked(registry, KIND, same_thing="refuse")
    key = new_key()
    first = come(registry, key, "1")
    assert f"certificate {first} (ACTIVE, thing `dev-1`)" in refusal(registry, key, "1", caplog)


def test_what_was_never_registered_is_no_use(registry: Registry) -> None:
    """A device that lost an answer asks for a certificate again."""
    hooked(registry, KIND, same_thing="refuse")
    key = new_key()
    lost = create(registry, key)
    come(registry, key, "1")
    # what the sweep deletes is not remembered either
    registry.clock.now += 4000
    services = registry.services
    now = registry.clock.now
    swept = registry.runner.run(services.store.write(sweep, services.account, now))
    assert swept.certificates == [lost["certificateId"]]
    assert kept(registry, "deleted_key") == []


def test_flagged_reuse_is_allowed_and_told(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    hooked(registry, KIND, action="flag")
    key = new_key()
    first = come(registry, key, "1")
    second = come(registry, key, "2")
    (line,) = reused(caplog)
    assert f"verdict=flagged certificate={second} thing=dev-2 " in line
    assert f"others={first}:ACTIVE:dev-1 deactivated=None" in line
    assert f"key={keys.key_id(key.public_key())}" in line
    assert registry.ended == []


def test_older_certificates_are_deactivated(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    hooked(registry, KIND, action="flag", deactivate=True)
    key = new_key()
    made = registry.call(
        "CreateCertificateFromCsr", certificate_signing_request=request_for(key), set_as_active=True
    )
    claim = made["certificateId"]
    registry.call("AttachPolicy", policy_name="device", target=made["certificateArn"])
    first = come(registry, key, "1", Identity(claim, None, START * 2))
    assert (status(registry, claim), registry.ended) == ("ACTIVE", []), "it is in use by a fleet"
    revoked = come(registry, key, "3")
    assert (status(registry, claim), status(registry, first)) == ("INACTIVE", "INACTIVE")
    assert sorted(registry.ended) == sorted([claim, first])
    registry.call("UpdateCertificate", certificate_id=revoked, new_status="REVOKED")
    registry.ended.clear()
    caplog.clear()
    newest = come(registry, key, "1")
    assert (status(registry, revoked), status(registry, newest)) == ("REVOKED", "ACTIVE")
    assert registry.ended == []
    assert "deactivated=None" in reused(caplog)[0]


def test_the_older_certificate_of_the_same_thing_is_deactivated(registry: Registry) -> None:
    hooked(registry, KIND, deactivate=True)
    key = new_key()
    first, second = (come(registry, key, "1") for _ in range(2))
    assert (status(registry, first), status(registry, second)) == ("INACTIVE", "ACTIVE")
    assert registry.ended == [first]


def test_a_refused_registration_deactivates_nothing(registry: Registry) -> None:
    hooked(registry, KIND, deactivate=True)
    key = new_key()
    first = come(registry, key, "1")
    with pytest.raises(AccessDeniedException):
        come(registry, key, "2")
    assert status(registry, first) == "ACTIVE"


def test_keys_of_deleted_certificates(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    hooked(registry, KIND)
    key = new_key()
    first = come(registry, key, "1")
    delete(registry, first, "dev-1")
    assert f"certificate {first} (DELETED, thing `dev-1`)" in refusal(registry, key, "2", caplog)
    come(registry, key, "1")
    hooked(registry, KIND, deleted="ignore", same_thing="refuse")
    assert "DELETED" not in refusal(registry, key, "2", caplog)


def test_keys_of_deleted_certificates_are_ignored_when_that_is_wanted(registry: Registry) -> None:
    hooked(registry, KIND, deleted="ignore", same_thing="refuse")
    key = new_key()
    delete(registry, come(registry, key, "1"), "dev-1")
    come(registry, key, "2")


def test_every_way_a_certificate_comes_in_is_seen(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    hooked(registry, KIND)
    key = new_key()
    template = '{"Resources":{"c":{"Type":"AWS::IoT::Certificate","Properties":'
    lamps = authority()
    register_ca(registry, lamps)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])

    def bulk() -> str:
        pem = registry.call(
            "RegisterThing",
            template_body=template + '{"CertificateSigningRequest":{"Ref":"C"}}}},'
            '"Parameters":{"C":{"Type":"String"}}}',
            parameters={"C": request_for(key)},
        )["certificatePem"]
        return str(pem)

    ways = {
        "CreateCertificateFromCsr": lambda: registry.call(
            "CreateCertificateFromCsr", certificate_signing_request=request_for(key)
        ),
        "RegisterCertificateWithoutCA": lambda: registry.call(
            "RegisterCertificateWithoutCA",
            certificate_pem=authority("elsewhere").issue(subject, key=key.public_key()),
        ),
        "RegisterCertificate": lambda: registry.call(
            "RegisterCertificate", certificate_pem=lamps.issue(subject, key=key.public_key())
        ),
        "RegisterThing": bulk,
    }
    for way, enter in ways.items():
        key = new_key()
        enter()
        assert "the key is that of certificate" in refusal(registry, key, "1", caplog), way
    # over HTTP the server makes the key, and so it does for a temporary claim
    made = registry.call("CreateKeysAndCertificate")
    claim = registry.call("CreateProvisioningClaim", template_name="T")
    for found, state in ((made, "INACTIVE"), (claim, "TEMPORARY_CLAIM")):
        private = load_pem_private_key(found["keyPair"]["PrivateKey"].encode(), None)
        reason = refusal(registry, private, "1", caplog)  # type: ignore[arg-type]
        assert f"certificate {found['certificateId']} ({state})" in reason


def kept(registry: Registry, table: str) -> list[Any]:
    return registry.runner.run(
        registry.services.store.read(lambda tx: tx.all(f"SELECT * FROM {table}"))  # noqa: S608
    )


def test_a_registry_of_an_older_release(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    hooked(registry, KIND)
    services = registry.services
    key, other = new_key(), new_key()
    first = come(registry, key, "1")
    deleted = come(registry, other, "2")
    garbage = come(registry, new_key(), "3")

    def older(tx: Tx) -> None:
        tx.run("UPDATE certificate SET public_key = NULL WHERE pem <> ''")
        tx.run("UPDATE certificate SET pem = 'PEM' WHERE certificate_id = :id", id=garbage)

    registry.runner.run(services.store.write(older))
    delete(registry, deleted, "dev-2")
    hooked(registry, KIND)
    assert "that an older release stored are still" in refusal(registry, new_key(), "9", caplog)
    assert registry.runner.run(public_keys.look(services)) == 2
    assert any(f"event=key-unreadable certificate={garbage}" in each for each in caplog.messages)
    assert registry.runner.run(public_keys.look(services)) == 0
    assert f"certificate {first} (ACTIVE" in refusal(registry, key, "9", caplog)
    assert f"certificate {deleted} (DELETED" in refusal(registry, other, "9", caplog)
    come(registry, new_key(), "9")


@pytest.mark.parametrize("action", ["refuse", "flag"])
def test_of_many_devices_with_one_key_at_once(
    registry: Registry, action: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused: one gets through; flagged with `deactivate`: one is ACTIVE in the end."""
    hooked(registry, KIND, action=action, deactivate=action == "flag")
    key = new_key()
    created = [create(registry, key) for _ in range(12)]
    found = register_at_once(registry, created, [str(number) for number in range(12)])
    refused = [each for each in found if isinstance(each, AccessDeniedException)]
    assert len(refused) == (11 if action == "refuse" else 0)
    assert len(things(registry)) == len(found) - len(refused)
    states = [status(registry, each["certificateId"]) for each in created]
    assert states.count("ACTIVE") == 1
    if action == "flag":
        assert states.count("INACTIVE") == 11
        assert len(set(registry.ended)) == 11
        assert len(reused(caplog)) == 11


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"action": "warn"}, "`action`: refuse or flag is expected, not `warn`"),
        ({"same_thing": True}, "`same_thing` has to be a text, not True"),
        ({"deactivate": 1}, "`deactivate` has to be true or false, not 1"),
        ({"deleted": "no"}, "`deleted`: count or ignore is expected, not `no`"),
        ({"file": "x"}, "`file` is not an option; there are `action`, `deactivate`, `deleted`"),
        ({"deactivate": True, "same_thing": "refuse"}, "`deactivate`: nothing is done when"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Error) as caught:
        built_in_functions({"gate": BuiltIn(KIND, options)})
    assert caught.value.message.startswith("functions `gate`: ")
    assert words in caught.value.message

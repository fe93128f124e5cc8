"""Provisioning by trusted user: an installer's rights, their claim, its five minutes.

Source: AWS IoT Core developer guide, "Provisioning by trusted user": an IAM user or role that may
call CreateProvisioningClaim for one template; the claim expires after five minutes, within which
the device has to have its permanent certificate, and appears in no list. What the claim may do is
tested action by action in tests/operations/test_trusted_user.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.integration.crt_device import Crt5, Crt311, crt_5, crt_311
from tests.integration.fleet import (
    CSR,
    KEYS,
    Fleet,
    Identity,
    arn,
    create_fleet,
    policy_document,
    register_topic,
    signing_request,
    write_identity,
)
from tests.integration.paho_device import PahoDevice, Refused
from tests.integration.refusal import everything, refusal
from tests.integration.server import Server
from tests.integration.test_awsiotsdk import FirstGeneration, SecondGeneration

Opener = Callable[[Server, Identity, str], AbstractContextManager[Crt311 | Crt5]]

DENIED = (403, "AccessDeniedException")
GONE = (404, "ResourceNotFoundException")
NOT_AUTHORIZED = 0x87


def credentials(given: dict[str, Any]) -> dict[str, Any]:
    """IAM's and STS's members as boto3's arguments."""
    names = {
        "AccessKeyId": "aws_access_key_id",
        "SecretAccessKey": "aws_secret_access_key",
        "SessionToken": "aws_session_token",
    }
    return {names[key]: value for key, value in given.items() if key in names}


@pytest.fixture(params=["user", "role"])
def installer(server: Server, fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A boto3 client with the rights of AWS's example: claims of the fleet's template alone."""
    name = f"installer-{fleet.name}"
    document = policy_document(
        {
            "Effect": "Allow",
            "Action": "iot:CreateProvisioningClaim",
            "Resource": arn(f"provisioningtemplate/{fleet.template}"),
        }
    )
    made = [iam := server.client("iam")]
    user = iam.create_user(UserName=name)["User"]
    given = iam.create_access_key(UserName=name)["AccessKey"]
    if request.param == "user":
        iam.put_user_policy(UserName=name, PolicyName="claims", PolicyDocument=document)
    else:
        trust = policy_document(
            {"Effect": "Allow", "Principal": {"AWS": user["Arn"]}, "Action": "sts:AssumeRole"}
        )
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]
        iam.put_role_policy(RoleName=name, PolicyName="claims", PolicyDocument=document)
        made.append(sts := server.client("sts", **credentials(given)))
        given = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="phone")["Credentials"]
    made.append(client := server.client(**credentials(given)))
    yield client
    for each in made:
        each.close()


def claim_of(iot: Any, template: str, directory: Path, name: str) -> Identity:
    made = iot.create_provisioning_claim(templateName=template)
    key = made["keyPair"]["PrivateKey"]
    return write_identity(directory, name, made["certificatePem"], key, made["certificateId"])


def body(token: str, serial: str) -> dict[str, Any]:
    return {"certificateOwnershipToken": token, "parameters": {"SerialNumber": serial}}


def test_an_installer_gets_claims_for_one_template_and_nothing_else(
    server: Server, fleet: Fleet, installer: Any, tmp_path: Path
) -> None:
    other = create_fleet(server, tmp_path, f"{fleet.name}-other")
    before = time.time()
    made = installer.create_provisioning_claim(templateName=fleet.template)
    assert 298 <= made["expiration"].timestamp() - before <= 302
    parsed = x509.load_pem_x509_certificate(made["certificatePem"].encode())
    assert parsed.not_valid_after_utc.timestamp() == made["expiration"].timestamp()
    for call, parameters in (
        (installer.create_provisioning_claim, {"templateName": other.template}),
        (installer.create_provisioning_claim, {"templateName": fleet.template + "x"}),
        (installer.describe_provisioning_template, {"templateName": fleet.template}),
        (
            installer.update_provisioning_template,
            {"templateName": fleet.template, "enabled": False},
        ),
        (installer.create_keys_and_certificate, {}),
        (installer.list_certificates, {}),
        (installer.create_thing, {"thingName": fleet.thing("by-hand")}),
        (installer.register_thing, {"templateBody": "{}"}),
    ):
        refused = refusal(call, **parameters)
        assert refused.kind == DENIED


@pytest.mark.parametrize("keys", [True, False], ids=["keys", "csr"])
def test_a_device_is_provisioned_by_an_installers_claim(
    server: Server, fleet: Fleet, installer: Any, tmp_path: Path, *, keys: bool
) -> None:
    claim = claim_of(installer, fleet.template, tmp_path, "temporary")
    register = register_topic(fleet.template)
    with PahoDevice(server, claim, "any client id", version=5) as device:
        device.listen(KEYS, CSR, register)
        made, key = device.create(keys=keys)
        answer = device.accepted(register, body(made["certificateOwnershipToken"], "1"))
        assert answer["thingName"] == fleet.thing("1")
    own = write_identity(tmp_path, "own", made["certificatePem"], key, made["certificateId"])
    with PahoDevice(server, own, fleet.thing("1")) as device:
        assert device.publish(f"devices/{fleet.thing('1')}/data", b"hello") == 0


@pytest.mark.parametrize(
    ("opened", "generation"),
    [
        pytest.param(crt_311, FirstGeneration, id="mqtt311"),
        pytest.param(crt_5, SecondGeneration, id="mqtt5"),
    ],
)
def test_the_same_with_awsiotsdk(
    server: Server,
    fleet: Fleet,
    installer: Any,
    tmp_path: Path,
    opened: Opener,
    generation: type[FirstGeneration | SecondGeneration],
) -> None:
    claim = claim_of(installer, fleet.template, tmp_path, "temporary")
    request = signing_request()
    with opened(server, claim, "phone") as connection:
        client = generation(connection.transport)
        made = client.create_from_csr(request.csr)
        answer = client.register(
            fleet.template, made.certificate_ownership_token, {"SerialNumber": "1"}
        )
        assert answer.thing_name == fleet.thing("1")
        # asked again, as after a lost answer
        again = client.register(
            fleet.template, made.certificate_ownership_token, {"SerialNumber": "1"}
        )
        assert again.thing_name == fleet.thing("1")
        assert again.device_configuration == answer.device_configuration
    own = write_identity(tmp_path, "own", made.certificate_pem, request.key, made.certificate_id)
    with opened(server, own, fleet.thing("1")) as connection:
        assert connection.publish(f"devices/{fleet.thing('1')}/data", b"hello")


def test_the_claim_does_nothing_else(
    server: Server, fleet: Fleet, installer: Any, tmp_path: Path
) -> None:
    other = create_fleet(server, tmp_path, f"{fleet.name}-other")
    claim = claim_of(installer, fleet.template, tmp_path, "temporary")
    foreign = register_topic(other.template)
    with PahoDevice(server, claim, "phone", version=5) as device:
        device.listen(CSR, KEYS, register_topic(fleet.template))
        filters = ("#", "devices/#", "$aws/#", f"{foreign}/json/accepted", "$aws/events/#")
        assert device.subscribe(*filters) == [NOT_AUTHORIZED] * len(filters)
    for topic in (
        "devices/any/data",
        f"{foreign}/json",
        "$aws/things/any/shadow/update",
        "$aws/provisioning-templates/absent/provision/json",
    ):
        with PahoDevice(server, claim, "phone", version=5) as device:
            assert device.publish(topic, b"{}") in (NOT_AUTHORIZED, None)
            assert device.disconnected.wait(5)
            assert device.disconnect_code == NOT_AUTHORIZED
    gone = refusal(server.iot.describe_thing, thingName=other.thing("1"))
    assert gone.kind == GONE


def test_the_claim_is_nowhere_and_nothing_can_be_done_with_it(
    server: Server, iot: Any, fleet: Fleet, installer: Any, tmp_path: Path
) -> None:
    claim = claim_of(installer, fleet.template, tmp_path, "temporary")
    pem = claim.certificate.read_text()
    iot.create_thing(thingName=fleet.thing("spare"))
    with PahoDevice(server, claim, "phone"):
        for listing in ("list_certificates", "list_ca_certificates", "list_outgoing_certificates"):
            key = "outgoingCertificates" if "outgoing" in listing else "certificates"
            assert claim.id not in json.dumps(everything(iot, listing, key), default=str)
        ca = {"caCertificateId": "a" * 64}
        listed = everything(iot, "list_certificates_by_ca", "certificates", **ca)
        assert claim.id not in json.dumps(listed, default=str)
    by_id, thing = {"certificateId": claim.id}, fleet.thing("spare")
    for call, parameters, kind in (
        (iot.describe_certificate, by_id, GONE),
        (iot.update_certificate, {**by_id, "newStatus": "INACTIVE"}, GONE),
        (iot.delete_certificate, {**by_id, "forceDelete": True}, GONE),
        (iot.attach_policy, {"policyName": fleet.device_policy, "target": claim.arn}, GONE),
        (iot.list_attached_policies, {"target": claim.arn}, GONE),
        (iot.attach_thing_principal, {"thingName": thing, "principal": claim.arn}, GONE),
        (iot.list_principal_things, {"principal": claim.arn}, GONE),
        (iot.get_effective_policies, {"principal": claim.arn}, GONE),
        (
            iot.register_certificate_without_ca,
            {"certificatePem": pem, "status": "ACTIVE"},
            (400, "CertificateValidationException"),
        ),
    ):
        assert refusal(call, **parameters).kind == kind
    with PahoDevice(server, claim, "phone"):
        pass  # none of it has harmed the claim


LIFE = 3.0


@pytest.fixture
def short_lived(tmp_path: Path) -> Iterator[Server]:
    env = {"FLEETGATE_PROVISIONING_CLAIM_SECONDS": str(LIFE)}
    with Server(tmp_path / "data", env=env) as server:
        yield server


def test_the_claim_ends_with_its_connections_and_what_it_got_does_not(
    short_lived: Server, tmp_path: Path
) -> None:
    server = short_lived
    fleet = create_fleet(server, tmp_path, "short")
    register = register_topic(fleet.template)
    claim = claim_of(server.iot, fleet.template, tmp_path, "temporary")
    parsed = x509.load_pem_x509_certificate(claim.certificate.read_bytes())
    ends = parsed.not_valid_after_utc.timestamp()
    with (
        PahoDevice(server, claim, "phone-5", version=5) as device,
        PahoDevice(server, claim, "phone-4", version=4) as older,
    ):
        device.listen(CSR, register)
        first, _ = device.create()
        second, _ = device.create()
        device.accepted(register, body(first["certificateOwnershipToken"], "1"))
        assert device.disconnected.wait(ends + 2 - time.time())
        assert older.disconnected.wait(ends + 2 - time.time())
        assert ends <= time.time() <= ends + 2
        assert device.disconnect_code == NOT_AUTHORIZED
    time.sleep(max(0.0, ends + 1 - time.time()))
    for version in (4, 5):
        with (
            pytest.raises(Refused) as caught,
            PahoDevice(server, claim, "phone", version=version),
        ):
            pass
        assert caught.value.code == NOT_AUTHORIZED  # paho says it so for 3.1.1, too
    assert f"certificate {claim.id} expired at" in server.output()

    # what the claim got is good for its hour: by another claim, by the fleet's claim certificate
    claim = claim_of(server.iot, fleet.template, tmp_path, "temporary-2")
    with PahoDevice(server, claim, "phone") as device:
        device.listen(register)
        answer = device.accepted(register, body(second["certificateOwnershipToken"], "2"))
        assert answer["thingName"] == fleet.thing("2")
    with PahoDevice(server, fleet.claim, "fleet") as device:
        device.listen(register)
        for made, serial in ((first, "1"), (second, "2")):
            answer = device.accepted(register, body(made["certificateOwnershipToken"], serial))
            assert answer["thingName"] == fleet.thing(serial)
    listed = everything(server.iot, "list_certificates", "certificates")
    ids = {first["certificateId"], second["certificateId"], fleet.claim.id}
    assert {each["certificateId"] for each in listed} == ids

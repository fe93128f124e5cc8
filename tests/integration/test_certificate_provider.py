"""A certificate provider with an authority on P-384, met by AWS's device SDK as it is.

The function is uploaded as AWS's guide has it (`aws lambda create-function`), and runs in processes
of its own. Source: AWS IoT Developer Guide, "Self-managed certificate signing using AWS IoT Core
certificate provider".
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import awsiot
import pytest
from cryptography import x509

from tests.integration.crt_device import crt_5, crt_311
from tests.integration.fleet import (
    ALLOW_ALL,
    Fleet,
    create_fleet,
    create_role,
    key_pem,
    signing_request,
    write_identity,
)
from tests.integration.refusal import everything
from tests.integration.server import ACCOUNT, REGION, Server
from tests.integration.test_awsiotsdk import FirstGeneration, Opener, SecondGeneration
from tests.provider_authority import ProviderAuthority, provider_authority

FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:sign"
PROVIDER = f"arn:aws:iot:{REGION}:{ACCOUNT}:certificateprovider:mine"
YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def root() -> ProviderAuthority:
    """The authority behind the provider; no CA certificate of it is registered."""
    return provider_authority(datetime.now(UTC).replace(microsecond=0), "Lamps")


def zipped(root: ProviderAuthority) -> bytes:
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.write(Path(__file__).with_name("provider_function.py"), "provider_function.py")
        archive.writestr("ca.pem", root.pem)
        archive.writestr("ca.key", key_pem(root.key))
    return code.getvalue()


@pytest.fixture(scope="module")
def signing(root: ProviderAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose account has a certificate provider."""
    with Server(tmp_path_factory.mktemp("provider") / "data") as server:
        functions = server.client("lambda")
        functions.create_function(
            FunctionName="sign",
            Runtime="python3.12",
            Handler="provider_function.handler",
            Role=create_role(server, "functions", ALLOW_ALL, trust="lambda.amazonaws.com"),
            Code={"ZipFile": zipped(root)},
            Timeout=5,
            MemorySize=256,
        )
        functions.add_permission(
            FunctionName="sign",
            StatementId="iot",
            Action="lambda:InvokeFunction",
            Principal="iot.amazonaws.com",
            SourceArn=PROVIDER,
            SourceAccount=ACCOUNT,
        )
        functions.close()
        made = server.iot.create_certificate_provider(
            certificateProviderName="mine",
            lambdaFunctionArn=FUNCTION,
            accountDefaultForOperations=["CreateCertificateFromCsr"],
            tags=[{"Key": "team", "Value": "light"}],
        )
        assert made["certificateProviderArn"] == PROVIDER
        yield server


@pytest.fixture(scope="module")
def lamps(signing: Server, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return create_fleet(signing, tmp_path_factory.mktemp("fleet"), "lamps")


def picture(server: Server) -> Any:
    """What is in the registry."""
    return (
        everything(server.iot, "list_certificates", "certificates"),
        everything(server.iot, "list_things", "things"),
    )


def issuer_of(pem: str) -> x509.Name:
    return x509.load_pem_x509_certificate(pem.encode()).issuer


@pytest.mark.parametrize(
    ("generation", "opened", "answer"),
    [
        pytest.param(FirstGeneration, crt_311, "leaf", id="IotIdentityClient-mqtt311-leaf"),
        pytest.param(FirstGeneration, crt_5, "chain", id="IotIdentityClient-mqtt5-chain"),
        pytest.param(SecondGeneration, crt_5, "leaf", id="IotIdentityClientV2-mqtt5-leaf"),
        pytest.param(SecondGeneration, crt_311, "chain", id="IotIdentityClientV2-mqtt311-chain"),
    ],
)
def test_a_device_gets_its_identity_from_the_provider_and_uses_it(
    signing: Server,
    lamps: Fleet,
    root: ProviderAuthority,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    *,
    generation: type[FirstGeneration | SecondGeneration],
    opened: Opener,
    answer: str,
) -> None:
    serial = request.node.callspec.id
    thing = lamps.thing(serial)
    wanted = signing_request(f"{answer}.{serial}")
    with opened(signing, lamps.claim, f"claim-{serial}") as claim:
        client = generation(claim.transport)
        made = client.create_from_csr(wanted.csr)
        registered = client.register(
            lamps.template, made.certificate_ownership_token, {"SerialNumber": serial}
        )
        assert registered.thing_name == thing
        del client

    found = signing.iot.describe_certificate(certificateId=made.certificate_id)
    described = found["certificateDescription"]
    leaf = x509.load_pem_x509_certificate(made.certificate_pem.encode())
    assert leaf.issuer == root.name
    assert described["status"] == "ACTIVE"
    assert described["certificateMode"] == "DEFAULT"
    assert "caCertificateId" not in described
    validity = described["validity"]
    assert validity["notAfter"] - validity["notBefore"] == YEAR
    assert made.certificate_pem == described["certificatePem"] + (
        root.pem if answer == "chain" else ""
    )

    # what the provider answered, the certificate alone, and with its chain
    alone = described["certificatePem"]
    for number, pem in enumerate({made.certificate_pem: 0, alone: 0, alone + root.pem: 0}):
        own = write_identity(tmp_path, f"own-{number}", pem, wanted.key, made.certificate_id)
        with opened(signing, own, thing) as device:
            assert device.publish(f"devices/{thing}/data", b"hello")


@pytest.mark.parametrize("opened", [crt_311], ids=["mqtt311"])
def test_what_cannot_be_used_is_refused_and_leaves_nothing_behind(
    signing: Server, lamps: Fleet, opened: Opener
) -> None:
    same = signing_request("same.lamp").csr
    reasons = {
        "wrong-key": "its public key is not the one of the signing request",
        "wrong-subject": "its subject is `CN=somebody else`, that of the signing request is",
        "expired": "it expired at",
        "not-yet": "it is not valid before",
        "garbage": "there is no `-----BEGIN CERTIFICATE-----` line",
        "authority": "basicConstraints has CA:TRUE",
        "same": "is registered already",
    }
    with opened(signing, lamps.claim, "claim-refused") as claim:
        client = SecondGeneration(claim.transport)
        first = client.create_from_csr(same).certificate_id
        before = picture(signing)
        for what, reason in reasons.items():
            csr = same if what == "same" else signing_request(f"{what}.lamp").csr
            told = len(signing.output())
            with pytest.raises(awsiot.V2ServiceException) as caught:
                client.create_from_csr(csr)
            error = caught.value.modeled_error
            assert (error.status_code, error.error_code, error.error_message) == (
                500,
                "InternalError",
                "the certificate provider has not issued a certificate",
            )
            log = signing.output()[told:]
            (line,) = [each for each in log.splitlines() if "event=provider-failed" in each]
            assert f"function={FUNCTION} target='uploaded " in line
            assert "kind=refused-certificate" in line
            assert reason in line
        assert picture(signing) == before
        del client
    assert f"{first} is registered already" in signing.output()
    assert "PRIVATE KEY" not in signing.output()
    assert "event=defect" not in signing.output()


def test_other_ways_to_a_certificate_are_as_before(
    signing: Server, root: ProviderAuthority
) -> None:
    iot, csr = signing.iot, signing_request("leaf.http").csr
    own = issuer_of(signing.ca_file.read_text())
    assert own != root.name
    by_csr = iot.create_certificate_from_csr(certificateSigningRequest=csr)
    by_keys = iot.create_keys_and_certificate()
    for made in (by_csr, by_keys):
        assert issuer_of(made["certificatePem"]) == own


def test_it_is_there_after_a_restart_until_it_is_deleted(
    signing: Server, lamps: Fleet, root: ProviderAuthority
) -> None:
    signing.terminate()
    signing.start()
    iot = signing.iot
    listed = iot.list_certificate_providers()["certificateProviders"]
    assert listed == [{"certificateProviderName": "mine", "certificateProviderArn": PROVIDER}]
    tags = iot.list_tags_for_resource(resourceArn=PROVIDER)["tags"]
    assert tags == [{"Key": "team", "Value": "light"}]
    with crt_5(signing, lamps.claim, "claim-restart") as claim:
        client = SecondGeneration(claim.transport)
        made = client.create_from_csr(signing_request("leaf.lamp").csr)
        assert issuer_of(made.certificate_pem) == root.name
        iot.delete_certificate_provider(certificateProviderName="mine")
        made = client.create_from_csr(signing_request("leaf.lamp").csr)
        assert issuer_of(made.certificate_pem) == issuer_of(signing.ca_file.read_text())
        del client

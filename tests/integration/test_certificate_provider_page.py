"""docs/certificate-providers.md is typed as it stands, with the fleet of docs/provisioning.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509

from fleetgate.functions.target import Failure
from fleetgate.operations.provider_signing import MESSAGE, NOT_ISSUED, REFUSED
from tests.integration.fleet import create_identity, create_role
from tests.integration.server import Server, run
from tests.integration.typed import blocks_of, write_files
from tests.test_docs import ROOT


def create_lamps(server: Server, directory: Path) -> None:
    """The fleet of docs/provisioning.md, from its files; with the CLI it takes seconds."""
    write_files(blocks_of("provisioning.md"), directory)
    iot = server.iot
    for name, file in (("lamp", "device-policy"), ("lamp-claim", "claim-policy")):
        document = (directory / f"{file}.json").read_text()
        iot.create_policy(policyName=name, policyDocument=document)
    iot.create_provisioning_template(
        templateName="lamps",
        enabled=True,
        provisioningRoleArn=create_role(server),
        templateBody=(directory / "template.json").read_text(),
    )
    create_identity(server, directory, "claim", "lamp-claim")


@pytest.mark.needs("openssl")
def test_everything_the_page_shows_runs(tmp_path: Path) -> None:
    page = blocks_of("certificate-providers.md")
    (function,) = (block for block in page if block.language == "python")
    assert "In `sign.py`." in function.before
    (tmp_path / "sign.py").write_text(function.code)
    env, authority, upload, permission, provider, device, changed, deleted = (
        block.code for block in page if block.language == "sh"
    )

    with Server(tmp_path / "fleetgate-data") as server:
        create_lamps(server, tmp_path)
        typed = [env, authority, upload, permission, provider, device, changed, deleted]
        done = run(
            *("bash", "-c", "\n".join(["set -e -o pipefail", *typed])),
            cwd=tmp_path,
            env={"FLEETGATE_DATA": str(server.data)},
        )
        assert done.returncode == 0, done.stdout + done.stderr + server.output()
        assert "identity/certificate.pem: OK" in done.stdout
        assert '"certificateProviderArn": "arn:aws:iot:us-east-1:' in done.stdout
        assert "event=provider-not-ready" not in server.output()
        assert "event=provider-signed provider=lamps" in server.output()
        assert server.iot.list_certificate_providers()["certificateProviders"] == []
    issued = x509.load_pem_x509_certificate((tmp_path / "identity/certificate.pem").read_bytes())
    assert issued.issuer.rfc4514_string() == "CN=Lamp CA,O=Lamps"


def test_what_a_device_hears_is_what_the_page_says() -> None:
    page = blocks_of("certificate-providers.md")
    (heard,) = (json.loads(block.code) for block in page if block.language == "json")
    assert heard == {
        "statusCode": NOT_ISSUED.status,
        "errorCode": NOT_ISSUED.code().removesuffix("Exception"),
        "errorMessage": MESSAGE,
    }
    (line,) = (block.code for block in page if block.language == "text")
    assert line.startswith("event=provider-failed ")
    assert f" kind={REFUSED} " in line
    told = (ROOT / "docs/certificate-providers.md").read_text()
    assert all(f"`{kind}`" in told for kind in (*Failure, REFUSED))

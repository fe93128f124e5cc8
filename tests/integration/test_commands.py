"""The `fleetgate` command as a user types it."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.integration.fleet import Fleet
from tests.integration.paho_device import PahoDevice
from tests.integration.refusal import everything
from tests.integration.server import ACCOUNT, REGION, Server, run

COMMANDS = ["serve", "env", "operations", "demo", "provision", "renew", "status", "abandon"]
SERVED = """
CreateProvisioningTemplate DescribeProvisioningTemplate UpdateProvisioningTemplate
DeleteProvisioningTemplate ListProvisioningTemplates CreateProvisioningTemplateVersion
DescribeProvisioningTemplateVersion DeleteProvisioningTemplateVersion
ListProvisioningTemplateVersions CreateProvisioningClaim CreateKeysAndCertificate
CreateCertificateFromCsr RegisterCertificateWithoutCA DescribeCertificate UpdateCertificate
DeleteCertificate ListCertificates CreatePolicy GetPolicy DeletePolicy ListPolicies
CreatePolicyVersion GetPolicyVersion DeletePolicyVersion ListPolicyVersions
SetDefaultPolicyVersion AttachPolicy DetachPolicy ListAttachedPolicies ListTargetsForPolicy
CreateThing UpdateThing DescribeThing DeleteThing ListThings AttachThingPrincipal
DetachThingPrincipal ListThingPrincipals ListPrincipalThings CreateThingGroup UpdateThingGroup
DescribeThingGroup DeleteThingGroup ListThingGroups AddThingToThingGroup
RemoveThingFromThingGroup ListThingGroupsForThing ListThingsInThingGroup CreateThingType
DescribeThingType ListThingTypes DeprecateThingType DeleteThingType DescribeEndpoint
RegisterThing
"""


def test_help_names_every_command(tmp_path: Path) -> None:
    top = run("fleetgate", "--help", cwd=tmp_path)
    assert top.returncode == 0, top.stderr
    for command in COMMANDS:
        assert command in top.stdout
        own = run("fleetgate", command, "--help", cwd=tmp_path)
        assert own.returncode == 0, own.stderr
        assert command in own.stdout
    assert "--allow-reset" in run("fleetgate", "serve", "--help", cwd=tmp_path).stdout
    assert list(tmp_path.iterdir()) == []  # asking for help makes nothing


def test_an_unknown_command_or_option_is_an_error(tmp_path: Path) -> None:
    for command in (["rocket"], ["serve", "--rocket"], ["serve", "--http", "nonsense"]):
        ended = run("fleetgate", *command, cwd=tmp_path)
        assert ended.returncode != 0
        assert "Traceback" not in ended.stderr


def test_operations_lists_what_is_served(tmp_path: Path) -> None:
    listed = run("fleetgate", "operations", cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    words = set(re.findall(r"\w+", listed.stdout))
    assert set(SERVED.split()) <= words
    assert "CreateTopicRule" not in words


def test_env_lets_any_client_in(server: Server, tmp_path: Path) -> None:
    shown = run("fleetgate", "env", "--data", str(server.data), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    variables = dict(
        re.findall(r"""^export (\w+)=['"]?(.*?)['"]?;?$""", shown.stdout, re.MULTILINE)
    )
    assert variables["FLEETGATE_MQTT_HOST"] in {"localhost", "127.0.0.1"}
    assert variables["FLEETGATE_MQTT_PORT"] == str(server.mqtt_port)
    assert Path(variables["FLEETGATE_MQTT_CA"]).read_bytes() == server.ca_file.read_bytes()
    assert variables["AWS_ACCESS_KEY_ID"]
    assert variables["AWS_SECRET_ACCESS_KEY"]
    assert REGION in {variables.get("AWS_REGION"), variables.get("AWS_DEFAULT_REGION")}

    script = (
        'eval "$(fleetgate env --data "$1")" && python - <<"END"\n'
        "import boto3\n"
        'client = boto3.client("iot")\n'
        'print(client.describe_endpoint()["endpointAddress"], client.meta.endpoint_url)\n'
        "END\n"
    )
    used = run("bash", "-c", script, "script", str(server.data), cwd=tmp_path)
    assert used.returncode == 0, used.stderr
    assert server.http_url in used.stdout


def test_env_without_a_server_says_so(tmp_path: Path) -> None:
    ended = run("fleetgate", "env", "--data", str(tmp_path / "nothing"), cwd=tmp_path)
    assert ended.returncode != 0
    assert "nothing" in ended.stderr
    assert "Traceback" not in ended.stderr


def provision(
    server: Server, fleet: Fleet, out: Path, *options: str, parameters: Any
) -> tuple[int, str, str]:
    ended = run(
        *("fleetgate", "provision", "--endpoint", f"localhost:{server.mqtt_port}"),
        *("--ca", str(server.ca_file), "--template", fleet.template),
        *("--cert", str(fleet.claim.certificate), "--key", str(fleet.claim.key)),
        *("--parameters", json.dumps(parameters), "--out", str(out), *options),
        cwd=out.parent,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("options", [[], ["--keys"]], ids=["csr", "keys"])
def test_provision_makes_a_device(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path, *, options: list[str]
) -> None:
    out, thing = tmp_path / "device", shared_fleet.thing(name)
    code, stdout, stderr = provision(
        server, shared_fleet, out, *options, parameters={"SerialNumber": name}
    )
    assert code == 0, stderr
    assert thing in stdout + stderr
    files = sorted(path for path in out.iterdir() if path.is_file())
    keys, certificates, configurations = [], [], []
    for path in files:
        text = path.read_text()
        if "PRIVATE KEY" in text:
            keys.append(path)
        elif "BEGIN CERTIFICATE" in text and path.read_bytes() != server.ca_file.read_bytes():
            certificates.append(path)
        elif path.suffix == ".json":
            configurations.append(path)
    assert (len(keys), len(certificates), len(configurations)) == (1, 1, 1), files
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600
    key = serialization.load_pem_private_key(keys[0].read_bytes(), None)
    certificate = x509.load_pem_x509_certificate(certificates[0].read_bytes())
    assert certificate.public_key() == key.public_key()
    configuration = configurations[0].read_text()
    assert "greeting" in configuration
    assert server.iot.describe_thing(thingName=thing)["attributes"] == {"serial": name}
    assert not list(out.glob("*.tmp"))


def test_provision_says_which_step_failed(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path
) -> None:
    out = tmp_path / "device"
    code, stdout, stderr = provision(server, shared_fleet, out, parameters={})
    assert code != 0
    assert "Cannot resolve reference value: SerialNumber" in stdout + stderr
    assert "Traceback" not in stderr


def test_provision_without_a_server_is_an_error(
    server: Server, shared_fleet: Fleet, name: str, tmp_path: Path
) -> None:
    ended = run(
        *("fleetgate", "provision", "--endpoint", "localhost:1", "--ca", str(server.ca_file)),
        *("--cert", str(shared_fleet.claim.certificate), "--key", str(shared_fleet.claim.key)),
        *("--template", shared_fleet.template, "--out", str(tmp_path / "device")),
        cwd=tmp_path,
    )
    assert ended.returncode != 0
    assert "localhost" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_demo_shows_a_fleet(tmp_path: Path) -> None:
    environment = {"COLUMNS": "200", "TMPDIR": str(tmp_path)}
    shown = run("fleetgate", "demo", "--devices", "4", cwd=tmp_path, env=environment)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    ids = set(re.findall(r"\b[0-9a-f]{8,64}\b", shown.stdout))
    assert len(ids) >= 4, shown.stdout
    rows = [line for line in shown.stdout.splitlines() if any(id_ in line for id_ in ids)]
    assert len(rows) >= 4, shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr


def test_everything_of_the_contract_is_written(server: Server) -> None:
    endpoints = json.loads((server.data / "endpoints.json").read_text())
    assert set(endpoints) >= {"http_url", "mqtt_host", "mqtt_port", "ca_file"}
    assert isinstance(endpoints["mqtt_port"], int)
    assert Path(endpoints["ca_file"]).samefile(server.data / "ca.pem")
    credentials = server.data / "credentials"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    assert "aws_access_key_id" in credentials.read_text()
    for path in server.data.rglob("*"):
        if path.is_file() and b"PRIVATE KEY" in path.read_bytes():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_secrets_do_not_reach_the_log(server: Server, shared_fleet: Fleet, name: str) -> None:
    secret = server.iot._request_signer._credentials.get_frozen_credentials().secret_key
    with PahoDevice(server, shared_fleet.claim, name) as device:
        device.listen("$aws/certificates/create")
        made, key = device.create(keys=True)
    everything(server.iot, "list_things", "things")
    log = server.output()
    for text in (secret, "PRIVATE KEY", made["certificateOwnershipToken"], key.splitlines()[1]):
        assert text not in log
    assert "\nTraceback" not in log  # one of the server; what functions say is in a line


def test_the_account_is_the_one_asked_for(server: Server, name: str) -> None:
    created = server.iot.create_thing(thingName=name)
    assert created["thingArn"] == f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/{name}"

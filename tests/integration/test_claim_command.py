"""`fleetgate claim` with an installer's rights: files, QR codes, and what is refused.

Source: AWS IoT Core developer guide, "Provisioning by trusted user".
"""

from __future__ import annotations

import os
import pty
import select
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from fleetgate.device import claim as claims
from fleetgate.device import claim_command
from fleetgate.device.claim_command import Iot
from tests.device.connect_proxy import connect_proxy
from tests.device.test_claim import scanned
from tests.integration.fleet import Fleet, arn, create_fleet, policy_document
from tests.integration.server import EXECUTABLES, REGION, Server, environment, run

FLEETGATE = str(EXECUTABLES / "fleetgate")
FILES = ["ca.pem", "claim.json", "claim.key", "claim.pem"]


@dataclass(frozen=True)
class Site:
    server: Server
    fleet: Fleet
    directory: Path
    installer: dict[str, str]

    @property
    def env(self) -> dict[str, str]:
        """What an installer's shell has: `fleetgate env`, but their own credentials."""
        return {
            **self.api,
            "FLEETGATE_MQTT_HOST": "localhost",
            "FLEETGATE_MQTT_PORT": str(self.server.mqtt_port),
            "FLEETGATE_MQTT_CA": str(self.server.ca_file),
        }

    @property
    def api(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.server.http_url,
            "AWS_DEFAULT_REGION": REGION,
            **self.installer,
        }

    def claim(
        self, *options: str, env: Mapping[str, str] | None = None, template: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [FLEETGATE, "claim", "--template", template or self.fleet.template, *options]
        return run(*command, cwd=self.directory, env=self.env if env is None else env)

    def provision(self, claim: Path, serial: str) -> subprocess.CompletedProcess[str]:
        options = ["--parameters", f'{{"SerialNumber": "{serial}"}}', "--out", f"device-{serial}"]
        command = [FLEETGATE, "provision", "--claim", str(claim), *options]
        return run(*command, cwd=self.directory)

    def claims_made(self) -> int:
        return self.server.output().count("event=claim-created")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("claim")
    with Server(directory / "data") as server:
        fleet = create_fleet(server, directory / "fleet", "lamp")
        iam = server.client("iam")
        iam.create_user(UserName="installer")
        key = iam.create_access_key(UserName="installer")["AccessKey"]
        allowed = {
            "Effect": "Allow",
            "Action": "iot:CreateProvisioningClaim",
            "Resource": arn(f"provisioningtemplate/{fleet.template}"),
        }
        document = policy_document(allowed)
        iam.put_user_policy(UserName="installer", PolicyName="claims", PolicyDocument=document)
        iam.close()
        credentials = {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
        yield Site(server, fleet, directory, credentials)


def test_an_installer_hands_a_claim_to_a_device(site: Site) -> None:
    done = site.claim("--out", "made/claim")
    assert (done.returncode, done.stderr) == (0, "")
    place = site.directory / "made/claim"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert sorted(each.name for each in place.iterdir()) == FILES
    assert {stat.S_IMODE(each.stat().st_mode) for each in place.iterdir()} == {0o600}
    claim = claims.load(place / "claim.json")
    assert (claim.endpoint, claim.port) == ("localhost", site.server.mqtt_port)
    assert 290 < claim.expiration.timestamp() - time.time() <= 300
    assert f"expires   {claims.shown(claim.expiration)}, in 4 min 5" in done.stdout
    assert (place / "claim.pem").read_text() == claim.certificate_pem
    assert (place / "claim.key").read_text() == claim.private_key_pem
    assert (place / "ca.pem").read_text() == site.server.ca_file.read_text()
    verified = run("openssl", "verify", "-CAfile", "ca.pem", "claim.pem", cwd=place)
    assert verified.returncode == 0, verified.stderr
    provisioned = site.provision(place / "claim.json", "1")
    assert provisioned.returncode == 0, provisioned.stderr
    assert site.fleet.thing("1") in provisioned.stdout

    before = site.claims_made()
    again = site.claim("--out", "made/claim")
    assert again.returncode == 1
    assert "`made/claim/claim.pem` is there already, and is not overwritten" in again.stderr
    assert site.claims_made() == before
    simulated = run(
        *(FLEETGATE, "simulate", "--claim", str(place / "claim.json"), "--devices=2"),
        cwd=site.directory,
    )
    assert simulated.returncode == 0, simulated.stderr
    assert "2 devices, 2 succeeded" in simulated.stdout


@pytest.mark.needs("mosquitto_pub")
def test_the_files_are_good_for_mosquitto(site: Site) -> None:
    assert site.claim("--out", "mosquitto").returncode == 0
    done = run(
        *("mosquitto_pub", "-h", "localhost", "-p", str(site.server.mqtt_port), "-V", "5"),
        *("--cafile", "ca.pem", "--cert", "claim.pem", "--key", "claim.key"),
        *("-t", "$aws/certificates/create/json", "-m", "{}", "-q", "1", "-d"),
        cwd=site.directory / "mosquitto",
    )
    assert done.returncode == 0, done.stderr
    assert "received PUBACK" in done.stdout


def test_a_device_is_handed_a_claim_by_camera(site: Site) -> None:
    screens = on_terminal(site).partition("\x1b[?1049l")[0].split("\x1b[H\x1b[2J")[1:]
    assert len(screens) == 2
    assert screens[1].startswith(f"code 2 of 2, template `{site.fleet.template}`, expires ")
    texts = [scanned(each.splitlines()[1:-1])[0] for each in screens]
    file = site.directory / "scanned.txt"
    file.touch(mode=0o600)
    file.write_text("\n".join(reversed(texts)))
    provisioned = site.provision(file, "2")
    assert provisioned.returncode == 0, provisioned.stderr
    assert site.fleet.thing("2") in provisioned.stdout


def on_terminal(site: Site) -> str:
    """What a terminal shows of both codes and afterwards."""
    master, slave = pty.openpty()
    command = [FLEETGATE, "claim", "--template", site.fleet.template, "--qr"]
    env = environment(**site.env, COLUMNS="120", LINES="62")
    with subprocess.Popen(command, stdin=slave, stdout=slave, env=env) as process:
        os.close(slave)
        shown = _until(master, "done ")
        os.write(master, b"\n")
        shown += _until(master, "done ")
        os.write(master, b"q\n")
        shown += _until(master, None)
        assert process.wait(10) == 0
    os.close(master)
    return shown


def test_on_a_terminal_codes_come_one_by_one_and_leave_nothing(site: Site) -> None:
    shown, _, left = on_terminal(site).partition("\x1b[?1049l")
    assert shown.startswith("\x1b[?1049h")
    assert "code 1 of 2" in shown
    assert "code 2 of 2" in shown
    assert "make the letters smaller" not in shown
    assert "▀" not in left
    assert f"the claim for the template `{site.fleet.template}` expires 20" in left


def _until(master: int, mark: str | None) -> str:
    """What the terminal shows until `mark`, or until nobody writes to it any more."""
    found = b""
    while mark is None or mark.encode() not in found:
        assert select.select([master], [], [], 10)[0], found[-200:]
        try:
            found += os.read(master, 65536)
        except OSError:  # EIO: closed on the other side
            break
    return found.decode(errors="replace")


def test_what_is_not_allowed_writes_nothing(site: Site) -> None:
    other = create_fleet(site.server, site.directory / "other", "other")
    cases = (
        (other.template, "AccessDeniedException: ", 1),
        ("a b", "`a b` cannot be the name of a provisioning template", 2),
    )
    for template, said, code in cases:
        done = site.claim("--out", "refused", template=template)
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
        assert list((site.directory / "refused").glob("*")) == []


def test_no_claim_is_made_that_could_not_be_written(site: Site) -> None:
    before = site.claims_made()
    (site.directory / "link").symlink_to(site.directory)
    (site.directory / "open").mkdir(mode=0o777)
    (site.directory / "open").chmod(0o777)
    (site.directory / "file").touch()
    for out, said in (
        ("link", "`link` is a symbolic link"),
        ("open", "others may write to `open`"),
        ("file", "cannot use the directory `file`"),
    ):
        done = site.claim("--out", out)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
    for options, said in (
        (["--ca", "missing.pem"], "--ca: cannot read `missing.pem`: No such file"),
        (["--ca", "file"], "it holds no certificate"),
        (["--endpoint", "https://x"], "without a scheme"),
    ):
        assert said in site.claim("--out", "never/ever", *options).stderr
        assert not (site.directory / "never").exists()
    done = site.claim("--qr")
    assert done.returncode == 2
    assert "--qr shows codes on a terminal" in done.stderr
    assert site.claims_made() == before


def test_by_command_through_a_proxy_on_port_443(site: Site) -> None:
    """As against AWS where nothing else is open; the proxy leads to the server's real port."""
    password = site.directory / "password"
    password.touch(mode=0o600)
    password.write_text("secret\n")
    claim = site.fleet.claim
    with connect_proxy(site.server.mqtt_port, user="lamp", password="secret") as proxy:
        command = [
            *(FLEETGATE, "provision", "--out", "behind", "--attempts", "1"),
            *("--cert", str(claim.certificate), "--key", str(claim.key)),
            *("--template", site.fleet.template, "--parameters", '{"SerialNumber": "443"}'),
            *("--proxy", f"localhost:{proxy.port}", "--proxy-user", "lamp"),
        ]
        env = {**site.env, "FLEETGATE_MQTT_PORT": "443"}
        refused = run(*command, cwd=site.directory, env=env)
        assert refused.returncode == 1
        assert "does not take the user `lamp` without a password" in refused.stderr
        command += ["--proxy-password-file", str(password)]
        done = run(*command, cwd=site.directory, env=env)
        assert (done.returncode, done.stderr) == (0, "")
    assert set(proxy.asked) == {"CONNECT localhost:443 HTTP/1.1"}
    assert site.fleet.thing("443") in done.stdout


def test_where_the_device_connects_is_asked_of_the_server(site: Site) -> None:
    refused = site.claim("--out", "asked", env=site.api)
    assert refused.returncode == 1
    assert "DescribeEndpoint at `" in refused.stderr
    assert "or say where devices connect with --endpoint" in refused.stderr
    root = dict(
        line.split(" = ", 1)
        for line in (site.server.data / "credentials").read_text().splitlines()
        if " = " in line
    )
    env = {**site.api, **{name.upper(): value for name, value in root.items()}}
    assert site.claim("--out", "asked", env=env).returncode == 0
    claim = claims.load(site.directory / "asked/claim.json")
    assert (claim.endpoint, claim.port, claim.ca_pem) == ("localhost", 8883, None)
    options = ["--endpoint", "lamps.example:443", "--ca", str(site.server.ca_file)]
    assert site.claim("--out", "told", *options, env=site.api).returncode == 0
    told = claims.load(site.directory / "told/claim.json")
    assert (told.endpoint, told.port) == ("lamps.example", 443)
    assert told.ca_pem == site.server.ca_file.read_text()


def test_aws_is_not_reached_by_way_of_a_local_server() -> None:
    """What `fleetgate env` has left in a shell is for Fleetgate alone."""
    local = {"FLEETGATE_MQTT_HOST": "localhost", "FLEETGATE_MQTT_CA": "/none"}
    answer = {"endpointAddress": "x-ats.iot.eu-west-1.amazonaws.com"}
    for url, of_aws in (
        ("https://iot.eu-west-1.amazonaws.com", True),
        ("https://iot.cn-north-1.amazonaws.com.cn", True),
        ("https://amazonaws.com.example", False),
    ):
        client = SimpleNamespace(
            meta=SimpleNamespace(endpoint_url=url), describe_endpoint=lambda **_: answer
        )
        iot = Iot(client, ())
        assert iot.of_aws is of_aws
        if of_aws:
            where = claim_command._where(None, None, iot, local)
            assert (where.host, where.port, where.ca_pem) == (answer["endpointAddress"], 8883, None)


@pytest.mark.parametrize(
    ("missing", "options", "said"),
    [
        ("boto3", ["--out", "absent"], 'pip install "fleetgate[claim]"'),
        ("segno", ["--qr"], 'pip install "fleetgate[qr]"'),
    ],
)
def test_a_library_that_is_missing_is_named(
    site: Site, missing: str, options: list[str], said: str
) -> None:
    program = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from fleetgate.device.command_line import run\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    arguments = ["claim", "--template", site.fleet.template, *options]
    done = run(sys.executable, "-c", program, *arguments, cwd=site.directory, env=site.env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"fleetgate: {missing} is not installed; it comes with: {said}\n"


def test_credentials_that_are_missing_are_named(site: Site) -> None:
    env = {name: value for name, value in site.env.items() if not name.startswith("AWS_")}
    env |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": site.server.http_url}
    env |= {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }
    done = site.claim("--out", "unsigned", env=env)
    assert done.returncode == 1
    assert "there are no credentials to sign with" in done.stderr

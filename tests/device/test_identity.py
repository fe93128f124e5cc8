"""An identity as an application loads it, and what it refuses to load."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleetgate.device.endpoint import Credentials, Endpoint, Proxy, TokenKey
from fleetgate.device.errors import NoIdentity, StorageRefused
from fleetgate.device.identity import KeyOnToken, load
from tests.device.conftest import Files

CONFIGURATION: dict[str, Any] = {
    "thingName": "lamp-1",
    "certificateId": "ab" * 32,
    "clientId": "lamp-1",
    "endpoint": "iot.example",
    "port": 443,
    "alpn": None,
    "mqttVersion": 4,
    "template": "lamps",
    "deviceConfiguration": {"mode": "bright"},
    "answerLost": False,
    "key": "P-256",
    "token": None,
    "goal": "0",
}
TOKEN = {"module": "/lib/p11.so", "label": "card", "key": "device", "pinFile": "/etc/pin"}


@pytest.fixture
def out(tmp_path: Path, claim: Files) -> Path:
    """A complete identity, its third."""
    path = tmp_path / "out"
    home = path / "identity-3"
    home.mkdir(0o700, parents=True)
    path.chmod(0o700)
    for name, source in (
        ("private.key", claim.key),
        ("certificate.pem", claim.certificate),
        ("ca.pem", claim.ca),
    ):
        (home / name).touch(0o600)
        (home / name).write_bytes(source.read_bytes())
    (home / "config.json").touch(0o600)
    configure(path)
    (path / "current").symlink_to("identity-3")
    return path


def configure(out: Path, **changes: Any) -> None:
    (out / "identity-3" / "config.json").write_text(json.dumps({**CONFIGURATION, **changes}))


def refusal(out: Path) -> str:
    with pytest.raises(StorageRefused) as caught:
        load(out)
    assert not isinstance(caught.value, NoIdentity)
    return caught.value.message


def test_everything_that_an_application_needs_is_there(out: Path) -> None:
    found = load(str(out))
    home = out / "identity-3"
    assert (found.directory, found.number) == (out, 3)
    assert found.certificate == home / "certificate.pem"
    assert found.credentials == Credentials(home / "certificate.pem", home / "private.key")
    assert found.endpoint() == Endpoint("iot.example", 443, home / "ca.pem", mqtt_version=4)
    proxy = Proxy("proxy.example", 3128)
    assert found.endpoint(proxy).proxy is proxy
    assert (found.thing_name, found.client_id) == ("lamp-1", "lamp-1")
    assert (found.certificate_id, found.template) == ("ab" * 32, "lamps")
    assert found.device_configuration == {"mode": "bright"}
    assert found.ends_at() > datetime.now(UTC)


def test_without_a_thing_and_with_the_system_s_authorities(out: Path) -> None:
    (out / "identity-3" / "ca.pem").unlink()
    configure(out, thingName=None, alpn="mqtt", mqttVersion=5)
    found = load(out)
    assert found.thing_name is None
    assert found.endpoint() == Endpoint("iot.example", 443, None, "mqtt", 5)


def test_a_key_on_a_token(out: Path) -> None:
    (out / "identity-3" / "private.key").unlink()
    configure(out, token=TOKEN)
    found = load(out)
    assert found.key is None
    assert found.token == KeyOnToken(Path("/lib/p11.so"), "card", "device", Path("/etc/pin"))
    assert found.credentials == TokenKey(
        Path("/lib/p11.so"), "card", "device", Path("/etc/pin"), found.certificate
    )


def test_no_identity_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(NoIdentity, match="is not there: the device has no identity yet"):
        load(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir(0o700)
    with pytest.raises(NoIdentity, match=r"holds no identity yet$"):
        load(empty)
    (empty / "journal.json").write_text("{}")
    with pytest.raises(NoIdentity, match=r"\(a provisioning is not finished\)"):
        load(empty)


@pytest.mark.parametrize("name", ["private.key", "certificate.pem", "config.json"])
def test_a_missing_file_is_named(name: str, out: Path) -> None:
    (out / "identity-3" / name).unlink()
    assert f"identity-3/{name}` is missing" in refusal(out)


@pytest.mark.parametrize(
    ("change", "member"),
    [
        ({"endpoint": None}, "endpoint"),
        ({"port": "443"}, "port"),
        ({"clientId": ""}, "clientId"),
        ({"thingName": 7}, "thingName"),
        ({"deviceConfiguration": {"a": 1}}, "deviceConfiguration"),
        ({"token": {"module": "x"}}, "token"),
        ({"mqttVersion": "5"}, "mqttVersion"),
    ],
)
def test_a_damaged_member_is_named(change: dict[str, Any], member: str, out: Path) -> None:
    configure(out, **change)
    assert f"`{member}` in `{out / 'identity-3' / 'config.json'}` is damaged" in refusal(out)


@pytest.mark.parametrize("text", ["gibberish", "[]", "[" * 100_000])
def test_a_damaged_configuration_is_named(text: str, out: Path) -> None:
    (out / "identity-3" / "config.json").write_text(text)
    assert "config.json` is damaged" in refusal(out)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("private.key", 0o640),
        ("private.key", 0o604),
        ("config.json", 0o644),
        ("certificate.pem", 0o664),
        ("ca.pem", 0o666),
        (".", 0o770),
        ("..", 0o702),
    ],
)
def test_what_others_may_read_or_write_is_refused(name: str, mode: int, out: Path) -> None:
    path = (out / "identity-3" / name).resolve()
    path.chmod(mode)
    assert f"`{path}` (mode {mode:04o})" in (message := refusal(out))
    assert "`chmod " in message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["private.key", "config.json", ".", ".."])
def test_what_belongs_to_another_user_is_refused(name: str, out: Path) -> None:
    os.chown(out / "identity-3" / name, 12345, -1)
    assert "belongs to user 12345, not to 0" in refusal(out)


@pytest.mark.parametrize("name", ["private.key", "config.json", "certificate.pem", "ca.pem"])
def test_symbolic_links_are_refused(name: str, out: Path, tmp_path: Path) -> None:
    path = out / "identity-3" / name
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert f"{name}` is not a regular file" in refusal(out)


def test_directories_that_are_links_are_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(out)
    assert "link` is a symbolic link" in refusal(tmp_path / "link")
    (out / "identity-3").rename(tmp_path / "elsewhere")
    (out / "identity-3").symlink_to(tmp_path / "elsewhere")
    assert "which cannot be used" in refusal(out)
    (out / "current").unlink()
    (out / "current").symlink_to(tmp_path / "elsewhere")
    assert "which is no identity here" in refusal(out)

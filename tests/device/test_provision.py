"""The whole provisioning: what it asks, what it leaves on disk, and how each step fails."""

from __future__ import annotations

import errno
import json
import os
import ssl
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typer.testing import CliRunner

from fleetgate.cli import app
from fleetgate.device import provision as module
from fleetgate.device.errors import (
    BadAnswer,
    BadRequest,
    ConnectionFailed,
    ConnectionLost,
    NoAnswer,
    NotAuthorized,
    ProvisioningError,
    Rejected,
    Step,
    StorageRefused,
)
from fleetgate.device.protocol import PayloadFormat
from fleetgate.device.provision import Provisioned, provision
from fleetgate.mqtt.packets import Version
from fleetgate.pki import csr, trust
from tests.device.conftest import Files, Issuer, Scripted
from tests.device.service import Service

STEPS = ["prepare", "connect", "subscribe", "create", "store", "register", "reconnect", "finish"]


@pytest.fixture
def service(issuer: Issuer) -> Service:
    return Service(issuer)


@pytest.fixture
def run(
    service: Service, scripted: Scripted, claim: Files, tmp_path: Path
) -> Callable[..., Provisioned]:
    """Provision into ``tmp_path / "out"`` at the service."""

    def provision_here(template: str = "lamps", **options: Any) -> Provisioned:
        with scripted(service) as port:
            return provision(
                "localhost",
                port,
                claim.ca,
                claim.certificate,
                claim.key,
                template,
                {"SerialNumber": "1"},
                tmp_path / "out",
                **{"timeout": 2.0, **options},
            )

    return provision_here


Run = Callable[..., Provisioned]


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("payload_format", ["json", "cbor"])
def test_a_device_gets_an_identity_for_its_own_key(
    payload_format: PayloadFormat, version: Version, run: Run, service: Service, tmp_path: Path
) -> None:
    told: list[Step] = []
    done = run(
        payload_format=payload_format,
        mqtt_version=version,
        client_id="claim-7",
        progress=lambda step, _sentence: told.append(step),
    )
    out = tmp_path / "out"
    assert told == STEPS
    assert list(done.seconds) == STEPS
    assert done.thing_name == done.client_id == "lamp-1"
    assert done.device_configuration == {"mode": "bright"}
    assert done.files == {name: out / name for name in names(out)}

    # on the wire
    (create, request), (register, parameters) = service.requests
    assert create == f"$aws/certificates/create-from-csr/{payload_format}"
    assert csr.parse(request["certificateSigningRequest"]).subject.rfc4514_string() == "CN=claim-7"
    assert register == f"$aws/provisioning-templates/lamps/provision/{payload_format}"
    assert parameters == {
        "certificateOwnershipToken": "the token",
        "parameters": {"SerialNumber": "1"},
    }
    assert [(each.client_id, each.version) for each in service.connects] == [
        ("claim-7", version),
        ("lamp-1", version),
    ]

    # on disk
    assert names(out) == ["ca.pem", "certificate.pem", "config.json", "private.key"]
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert stat.S_IMODE((out / "private.key").stat().st_mode) == 0o600
    assert json.loads((out / "config.json").read_text()) == {
        "thingName": "lamp-1",
        "certificateId": done.certificate_id,
        "clientId": "lamp-1",
        "endpoint": "localhost",
        "port": json.loads((out / "config.json").read_text())["port"],
        "template": "lamps",
        "deviceConfiguration": {"mode": "bright"},
    }
    certificate = (out / "certificate.pem").read_text()
    assert trust.inspect(certificate).certificate_id == done.certificate_id
    assert isinstance(trust.inspect(certificate).public_key, ec.EllipticCurvePublicKey)
    ssl.create_default_context(cafile=out / "ca.pem").load_cert_chain(
        out / "certificate.pem", out / "private.key"
    )


@pytest.mark.needs("openssl")
def test_openssl_reads_what_was_written(run: Run, tmp_path: Path) -> None:
    run()
    for command in (
        ["verify", "-CAfile", "ca.pem", "certificate.pem"],
        ["pkey", "-in", "private.key", "-noout", "-check"],
    ):
        subprocess.run(["openssl", *command], cwd=tmp_path / "out", check=True, capture_output=True)


def test_the_server_can_make_the_key(run: Run, service: Service, tmp_path: Path) -> None:
    service.rsa_key = rsa.generate_private_key(65537, 2048)
    run(keys=True)
    assert service.requests[0] == ("$aws/certificates/create/json", {})
    key = (tmp_path / "out" / "private.key").read_text()
    assert key.startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    assert stat.S_IMODE((tmp_path / "out" / "private.key").stat().st_mode) == 0o600


def test_without_a_thing_the_client_id_stays(run: Run, service: Service, tmp_path: Path) -> None:
    service.thing_name = None
    done = run(client_id="claim-7")
    assert (done.thing_name, done.client_id) == (None, "claim-7")
    assert [each.client_id for each in service.connects] == ["claim-7", "claim-7"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["thingName"] is None


def test_key_and_certificate_are_on_disk_before_the_device_is_registered(
    run: Run, service: Service, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}

    def look(values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        out = tmp_path / "out"
        seen["names"] = names(out)
        seen["pending"] = json.loads((out / "pending.json").read_text())
        return "accepted", values

    service.register = look
    done = run()
    assert seen["names"] == ["certificate.pem", "pending.json", "private.key"]
    assert seen["pending"]["certificateOwnershipToken"] == "the token"
    assert seen["pending"]["certificateId"] == done.certificate_id


def test_a_new_identity_that_the_server_does_not_know_yet_is_tried_again(
    run: Run, service: Service
) -> None:
    service.codes = [0, 0x87, 0x87]
    assert run().thing_name == "lamp-1"
    assert len(service.connects) == 4


# --- the command ---


def test_the_command_says_that_it_reconnected(
    service: Service, scripted: Scripted, claim: Files, tmp_path: Path
) -> None:
    with scripted(service) as port:
        ended = CliRunner().invoke(
            app,
            [
                *("provision", "--endpoint", f"localhost:{port}", "--ca", str(claim.ca)),
                *("--cert", str(claim.certificate), "--key", str(claim.key)),
                *("--template", "lamps", "--out", str(tmp_path / "out")),
            ],
        )
    assert ended.exit_code == 0, ended.output
    assert "reconnected   as `lamp-1` with the new certificate\n" in ended.output


# --- how it fails ---


def failure(run: Run, **options: Any) -> ProvisioningError:
    with pytest.raises(ProvisioningError) as caught:
        run(**options)
    return caught.value


def test_a_rejection_says_what_the_server_said(run: Run, service: Service, tmp_path: Path) -> None:
    service.register = lambda _: (
        "rejected",
        {"statusCode": 403, "errorCode": "AccessDenied", "errorMessage": "not this one"},
    )
    error = failure(run)
    assert isinstance(error, Rejected)
    assert (error.step, error.status_code, error.error_code, error.error_message) == (
        "register",
        403,
        "AccessDenied",
        "not this one",
    )
    topic = "$aws/provisioning-templates/lamps/provision/json"
    assert error.topic == f"{topic}/rejected"
    assert str(error) == (
        f"register: the server rejected `{topic}` with 403 AccessDenied: not this one"
    )
    assert names(tmp_path / "out") == ["certificate.pem", "pending.json", "private.key"]


def test_a_half_finished_identity_is_replaced(run: Run, service: Service, tmp_path: Path) -> None:
    service.register = lambda _: None
    failure(run, timeout=0.2)
    first = (tmp_path / "out" / "private.key").read_text()
    service.register = lambda values: ("accepted", values)
    run()
    assert (tmp_path / "out" / "private.key").read_text() != first
    assert "pending.json" not in names(tmp_path / "out")


def test_a_complete_identity_is_never_replaced(run: Run, service: Service, tmp_path: Path) -> None:
    done = run()
    before = {each: each.read_bytes() for each in (tmp_path / "out").iterdir()}
    error = failure(run)
    assert isinstance(error, StorageRefused)
    assert error.step == "prepare"
    holder = f"a complete identity (thing `lamp-1`, certificate {done.certificate_id})"
    assert holder in error.message
    assert {each: each.read_bytes() for each in (tmp_path / "out").iterdir()} == before
    assert len(service.connects) == 2


def test_silence_ends_in_time_and_names_the_topics(run: Run, service: Service) -> None:
    service.create = lambda _: None
    error = failure(run, timeout=0.2)
    assert isinstance(error, NoAnswer)
    assert (error.step, error.waited) == ("create", 0.2)
    assert "`$aws/certificates/create-from-csr/json/accepted` or `" in error.message
    assert "iot:Receive" in error.message


def test_a_refused_subscription_is_named(run: Run, service: Service) -> None:
    topic = "$aws/certificates/create-from-csr/json/rejected"
    service.refused_filters = {topic}
    error = failure(run)
    assert isinstance(error, NotAuthorized)
    assert (error.step, error.topic, error.action) == ("subscribe", topic, "iot:Subscribe")
    assert not service.requests


def test_a_refused_claim_is_named(run: Run, service: Service) -> None:
    service.codes = [0x87]
    error = failure(run, client_id="claim-7")
    assert isinstance(error, ConnectionFailed)
    assert error.step == "connect"
    assert "not authorized, 0x87" in error.message
    assert "iot:Connect on `client/claim-7`" in error.message


def test_an_identity_that_never_connects_is_reported_as_registered(
    run: Run, service: Service, tmp_path: Path
) -> None:
    service.codes = [0, *[0x87] * 20]
    error = failure(run, timeout=1.0)
    assert isinstance(error, ConnectionFailed)
    assert error.step == "reconnect"
    assert "the device is registered (thing `lamp-1`, certificate " in error.message
    assert len(service.connects) > 2
    assert f"remove the directory `{tmp_path / 'out'}` to start again" in error.message
    assert names(tmp_path / "out") == ["certificate.pem", "pending.json", "private.key"]


def test_a_registration_that_cannot_be_remembered_is_reported(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rename = os.rename
    renamed: list[str] = []

    def full(source: str, target: str, **descriptors: int) -> None:
        if renamed.count(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        renamed.append(target)
        rename(source, target, **descriptors)

    monkeypatch.setattr(os, "rename", full)
    error = failure(run)
    assert isinstance(error, StorageRefused)
    assert error.step == "register"
    assert "the device is registered (thing `lamp-1`, certificate " in error.message
    assert "pending.json`: No space left on device" in error.message


def test_a_server_that_hangs_up_is_no_mystery(run: Run, service: Service) -> None:
    def hang_up(_: dict[str, Any]) -> None:
        raise OSError

    service.create = hang_up
    error = failure(run)
    assert isinstance(error, ConnectionLost)
    assert error.step == "create"
    assert "the server closed the connection" in error.message


def test_a_certificate_for_another_key_is_refused(
    run: Run, service: Service, claim: Files, tmp_path: Path
) -> None:
    other = claim.certificate.read_text()
    service.create = lambda values: ("accepted", values | {"certificatePem": other})
    error = failure(run)
    assert isinstance(error, BadAnswer)
    assert error.step == "create"
    assert "is for another key" in error.message
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"certificateId": "ab" * 32}, "`certificateId` in the answer is `abab"),
        ({"certificateId": None}, "`certificateId` in the answer is missing"),
        ({"certificateOwnershipToken": 7}, "is not a text with characters in it"),
        ({"certificatePem": "gibberish"}, "cannot be read"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(
    change: dict[str, Any], message: str, run: Run, service: Service
) -> None:
    service.create = lambda values: ("accepted", values | change)
    error = failure(run)
    assert isinstance(error, BadAnswer)
    assert message in error.message


def test_arguments_are_checked_before_anything_is_sent(
    service: Service, claim: Files, tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {
        "endpoint": "localhost",
        "port": 1,  # nobody is there
        "ca": claim.ca,
        "claim_cert": claim.certificate,
        "claim_key": claim.key,
        "template": "lamps",
        "parameters": {},
        "out": tmp_path / "out",
    }
    for change, kind, message in (
        ({"template": "a/b"}, BadRequest, "`a/b` cannot be the name"),
        ({"parameters": {"n": 1}}, BadRequest, "the parameter `n` is not a text: `1`"),
        (
            {"ca": tmp_path / "none"},
            ConnectionFailed,
            f"^prepare: cannot read the authorities in `{tmp_path}/none`: No such file",
        ),
        (
            {"claim_cert": tmp_path / "none"},
            ConnectionFailed,
            f"^prepare: cannot read the certificate `{tmp_path}/none`: No such file",
        ),
        (
            {"claim_key": claim.certificate},
            ConnectionFailed,
            "are certificate and key exchanged",
        ),
    ):
        with pytest.raises(kind, match=message) as caught:
            provision(**{**arguments, **change})
        assert caught.value.step == "prepare"
    assert not (tmp_path / "out").exists()
    with pytest.raises(
        ConnectionFailed, match="no TCP connection to `localhost` port 1: "
    ) as failed:
        provision(**arguments)
    assert failed.value.step == "connect"


def test_the_files_of_the_claim_are_not_overwritten(
    run: Run, service: Service, claim: Files, tmp_path: Path
) -> None:
    """Even when they lie where an interrupted provisioning would leave its own."""
    out = tmp_path / "out"
    out.mkdir(0o700)
    (out / "private.key").write_bytes(claim.key.read_bytes())
    (out / "pending.json").write_text("{}")
    with pytest.raises(StorageRefused, match="would be overwritten"):
        provision(
            "localhost", 1, claim.ca, claim.certificate, out / "private.key", "lamps", {}, out
        )
    assert (out / "private.key").read_bytes() == claim.key.read_bytes()


def test_a_long_client_id_still_makes_a_name() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = csr.parse(module._csr(key, "ü" * 100))
    (name,) = request.subject
    assert isinstance(name, x509.NameAttribute)
    assert name.value == "ü" * 32

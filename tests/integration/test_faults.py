"""Fault scripts of a server: from its start, over HTTP, for those who may, and what spoilt replies
come to with real clients."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from fleetgate.server import _check_faults, _faults, load_provisioning_model
from fleetgate.settings import SettingError, Settings
from tests.integration.fault_scripts import Script, ask, faults
from tests.integration.fleet import CSR, KEYS, Fleet, create_fleet, register_topic, signing_request
from tests.integration.paho_device import PahoDevice, Refused
from tests.integration.server import Server, http, run

FROM_THE_START = """
client = "from-the-start"

[[fault]]
on = "connect"
do = "refuse"
code = 0x88
"""


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("failing")
    file = directory / "faults.toml"
    file.write_text(FROM_THE_START)
    options = ("--auth", "off", "--allow-faults")
    with Server(directory / "data", *options, env={"FLEETGATE_FAULTS": str(file)}) as server:
        yield server


@pytest.fixture(scope="module")
def fleet(failing: Server, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return create_fleet(failing, tmp_path_factory.mktemp("fleet"), "lamp")


def scripted(*tables: dict[str, Any]) -> str:
    """TOML of a few faults, whose values are written alike in JSON."""
    lines = []
    for table in tables:
        lines.append("[[fault]]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines)


# --- replies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "cbor"])
def test_every_kind_of_garbage_arrives(failing: Server, fleet: Fleet, form: str, name: str) -> None:
    kinds = {
        "undecodable": b"\xff{no reply}",
        "truncated": None,
        "empty": b"",
        "no-map": None,
        "wrong-types": None,
        "missing-members": b"{}" if form == "json" else b"\xa0",
        "huge": None,
    }
    script = scripted(
        *(
            {
                "on": "CreateCertificateFromCsr",
                "do": "garbage",
                "kind": kind,
                "times": 1,
                "nth": nth,
            }
            for nth, kind in enumerate(kinds, 1)
        )
    )
    with faults(failing, script, name), PahoDevice(failing, fleet.claim, name) as device:
        device.listen(CSR, form=form)
        body = {"certificateSigningRequest": signing_request().csr}
        sent = json.dumps(body).encode() if form == "json" else cbor2.dumps(body)
        found = {}
        for kind in kinds:
            device.send(f"{CSR}/{form}", sent)
            message = device.message()
            assert message.topic == f"{CSR}/{form}/accepted"
            found[kind] = message.payload
    decode = json.loads if form == "json" else cbor2.loads
    for kind, expected in kinds.items():
        assert expected in (None, found[kind])
    with pytest.raises((ValueError, cbor2.CBORError)):
        decode(found["truncated"])
    members = ["certificateId", "certificateOwnershipToken", "certificatePem"]
    assert sorted(decode(found["no-map"])) == members
    assert set(decode(found["wrong-types"]).values()) == {7}
    assert len(found["huge"]) == 131_072
    assert sorted(decode(found["huge"])) == [*members, "padding"]


def test_a_private_key_is_another_one(failing: Server, fleet: Fleet, name: str) -> None:
    script = scripted({"on": "CreateKeysAndCertificate", "do": "another-key", "times": 1})
    with faults(failing, script, name), PahoDevice(failing, fleet.claim, name) as device:
        device.listen(KEYS)
        for same in (False, True):
            made, key = device.create(keys=True)
            certificate = load_pem_x509_certificate(made["certificatePem"].encode())
            own = load_pem_private_key(key.encode(), None).public_key()
            assert (certificate.public_key() == own) is same


def test_a_fault_for_another_template_or_certificate_is_none_of_ours(
    failing: Server, fleet: Fleet, name: str
) -> None:
    script = scripted(
        {"on": "RegisterThing", "do": "throttle", "template": "other*"},
        {"on": "RegisterThing", "do": "drop", "certificate": "0" * 64},
        {
            "on": "RegisterThing",
            "do": "reject",
            "error": "AccessDenied",
            "certificate": fleet.claim.id,
            "times": 1,
        },
    )
    register = register_topic(fleet.template)
    with (
        faults(failing, script, name) as put,
        PahoDevice(failing, fleet.claim, name, version=5) as device,
    ):
        device.listen(register)
        refused = device.rejected(register, {})
        assert (refused["statusCode"], refused["errorCode"]) == (403, "AccessDenied")
        assert refused["errorMessage"] == "AccessDenied, by a fault script"
        assert device.rejected(register, {})["errorCode"] == "InvalidCertificateOwnershipToken"
        assert [each["matched"] for each in put.state()["faults"]] == [0, 0, 2]


# --- scripts over HTTP -----------------------------------------------------------------------


def test_the_script_of_the_start_is_in_force(failing: Server, fleet: Fleet) -> None:
    before = len(Script(failing, "default").state()["injections"])
    for _ in range(2):
        with pytest.raises(Refused), PahoDevice(failing, fleet.claim, "from-the-start"):
            pass
    with PahoDevice(failing, fleet.claim, "from-elsewhere"):
        pass
    state = Script(failing, "default").state()
    assert len(state["injections"]) == before + 2
    noted = state["injections"][-1]
    assert noted.pop("time")[:2] == "20"
    assert noted == {
        "fault": 1,
        "do": "refuse",
        "on": "connect",
        "moment": "request",
        "client": "from-the-start",
        "certificate": fleet.claim.id,
        "count": before + 2,
    }


def test_it_is_said_loudly(failing: Server) -> None:
    said = failing.output()
    assert "FAULTS ON" in said
    assert "event=faults-on listening=127.0.0.1,127.0.0.1 script=" in said
    assert "event=fault-script script='default' seed=0 faults=1" in said


def test_scripts_come_and_go(failing: Server) -> None:
    one = scripted({"on": "connect", "do": "drop"})
    put = ask(failing, "PUT", "/test_x%5B1%5D", one)
    assert put.json() == {
        "name": "test_x[1]",
        "seed": 0,
        "faults": [
            {
                "fault": 1,
                "on": "connect",
                "do": "drop",
                "moment": "reply",
                "matched": 0,
                "injected": 0,
            }
        ],
        "injections": [],
        "forgotten": 0,
    }
    as_json = {"seed": 3, "client": "x", "fault": [{"on": "connect", "do": "delay", "seconds": 1}]}
    again = ask(failing, "PUT", "/test_x%5B1%5D", json.dumps(as_json)).json()
    assert (again["seed"], again["faults"][0]["client"]) == (3, "x")
    names = [each["name"] for each in ask(failing, "GET").json()["scripts"]]
    assert names == ["default", "test_x[1]"]
    assert ask(failing, "DELETE", "/test_x%5B1%5D").json() == {"removed": ["test_x[1]"]}
    for method in ("GET", "DELETE"):
        gone = ask(failing, method, "/test_x%5B1%5D")
        assert gone.status == 404
        assert gone.json()["message"] == "there is no fault script `test_x[1]`"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("PUT", "/t", "seed = x", 400, "the fault script `t`: it cannot be read: Invalid value"),
        ("PUT", "/t", '[[fault]]\non="x"', 400, "the fault script `t`: fault 1: `do`: is missing"),
        ("PUT", "", "seed = 1", 404, "nothing is at PUT /_fleetgate/faults"),
        ("PUT", "/a/b", "seed = 1", 404, "nothing is at PUT"),
        ("PUT", "/" + "n" * 129, "seed = 1", 404, "nothing is at PUT"),
        ("POST", "/t", "seed = 1", 404, "nothing is at POST"),
    ],
)
def test_what_is_wrong_is_told(
    failing: Server, method: str, path: str, body: str, status: int, said: str
) -> None:
    answer = ask(failing, method, path, body)
    assert answer.status == status
    assert said in answer.json()["message"]


def test_what_is_no_text_is_no_script(failing: Server) -> None:
    answer = http(f"{failing.http_url}/_fleetgate/faults/t", method="PUT", body=b"\xff")
    assert (answer.status, answer.headers["x-amzn-errortype"]) == (400, "SerializationException")


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_web_pages_put_nothing(failing: Server, headers: dict[str, str]) -> None:
    """With --auth off, which is the case here; otherwise no page can sign."""
    for method in ("PUT", "GET", "DELETE"):
        body = b"" if method == "PUT" else None
        url = f"{failing.http_url}/_fleetgate/faults/default"
        assert http(url, method=method, headers=headers, body=body).status == 403
    assert Script(failing, "default").state()["faults"]


def test_without_the_option_nothing_is_taken(server: Server) -> None:
    answer = ask(server, "PUT", "/t", "seed = 1")
    assert answer.status == 403
    assert "started with --allow-faults or --faults" in answer.json()["message"]
    assert http(f"{server.http_url}/_fleetgate/faults").status == 403


# --- the start -------------------------------------------------------------------------------


def test_a_mistake_stops_the_start(tmp_path: Path) -> None:
    model = load_provisioning_model()
    file = tmp_path / "faults.toml"
    file.write_text('[[fault]]\non = "connect"\ndo = "explode"')
    with pytest.raises(SettingError, match=r"--faults `.*faults.toml`: fault 1: `do`: one of"):
        _faults(Settings(faults=file), model)
    with pytest.raises(SettingError, match=r"it cannot be read: .*No such file"):
        _faults(Settings(faults=tmp_path / "none"), model)
    assert _faults(Settings(), model) is None
    assert _faults(Settings(allow_faults=True), model) is not None


def test_faults_stay_on_this_machine_unless_allowed(tmp_path: Path) -> None:
    file = tmp_path / "faults.toml"
    file.write_text(FROM_THE_START)
    settings = Settings(faults=file)
    everywhere = ("0.0.0.0", 0)  # noqa: S104
    with socket.create_server(("127.0.0.1", 0)) as own, socket.create_server(everywhere) as all_:
        _check_faults(settings, [own])
        with pytest.raises(SettingError, match=r"listens on 0.0.0.0, .* --allow-faults permits"):
            _check_faults(settings, [own, all_])
        _check_faults(replace(settings, allow_faults=True), [own, all_])
    done = run(
        *("fleetgate", "serve", "--data", str(tmp_path / "data"), "--faults", str(file)),
        *("--http", "127.0.0.1:0", "--mqtt", "0.0.0.0:0"),
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert "--allow-faults permits that" in done.stderr

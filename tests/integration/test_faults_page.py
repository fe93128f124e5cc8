"""docs/faults.md: each of its examples happens to a device as the page says."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fleetgate.device import endpoint as device
from fleetgate.device.endpoint import Endpoint
from fleetgate.device.provision import provision
from tests.integration.fault_scripts import Script, ask, faults
from tests.integration.fleet import (
    CSR,
    KEYS,
    Fleet,
    Identity,
    create_fleet,
    policy_document,
    register_topic,
    signing_request,
    write_identity,
)
from tests.integration.paho_device import PahoDevice, Refused, onboard
from tests.integration.server import REGION, Server, http, run
from tests.integration.typed import blocks_of
from tests.test_docs import ROOT

SOON = 0.3
"""Seconds in which a reply would have come."""


@dataclass(frozen=True, slots=True)
class Desk:
    """A server for faults, a fleet on it, and a device that has been provisioned."""

    server: Server
    fleet: Fleet
    own: Identity
    directory: Path

    @property
    def register(self) -> str:
        return register_topic(self.fleet.template)

    def device(self, client_id: str, version: int = 4) -> PahoDevice:
        return PahoDevice(self.server, self.fleet.claim, client_id, version=version)

    def things(self) -> set[str]:
        found = self.server.iot.list_things(maxResults=250)["things"]
        return {each["thingName"] for each in found}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    directory = tmp_path_factory.mktemp("faults")
    with Server(directory / "data", "--allow-faults") as server:
        fleet = create_fleet(server, directory / "fleet", "lamp")
        own = onboard(server, fleet, "own", directory)
        yield Desk(server, fleet, own, directory)


class Provisioning:
    """One device: a certificate, then a thing of that serial number."""

    def __init__(self, desk: Desk, name: str) -> None:
        self.desk = desk
        self.thing = desk.fleet.thing(name)
        self.request = signing_request(name)
        self.made: dict[str, Any] = {}
        self.body: dict[str, Any] = {"parameters": {"SerialNumber": name}}

    def create(self, device: PahoDevice) -> None:
        device.listen(CSR, self.desk.register)
        self.take(device.create(request=self.request)[0])

    def take(self, made: dict[str, Any]) -> None:
        self.made = made
        self.body["certificateOwnershipToken"] = made["certificateOwnershipToken"]

    def register(self, device: PahoDevice) -> None:
        """Registers, and proves that it may connect."""
        answer = device.accepted(self.desk.register, self.body)
        assert answer["thingName"] == self.thing
        with PahoDevice(self.desk.server, self.identity(), self.thing):
            pass

    def ask(self, device: PahoDevice) -> None:
        device.send(f"{self.desk.register}/json", encoded(self.body))

    def identity(self) -> Identity:
        made = self.made
        return write_identity(
            self.desk.directory,
            self.thing,
            made["certificatePem"],
            self.request.key,
            made["certificateId"],
        )


def encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


def silent(device: PahoDevice) -> bool:
    try:
        device.message(SOON)
    except TimeoutError:
        return not device.disconnected.is_set()
    return False


def ended(device: PahoDevice) -> bool:
    """The server has ended the connection, and no reply came."""
    return device.disconnected.wait(5) and device.messages.empty()


# --- the examples ----------------------------------------------------------------------------


def a_slow_answer(desk: Desk, name: str, script: Script) -> None:
    with desk.device(name) as device:
        device.listen(CSR)
        request = {"certificateSigningRequest": signing_request().csr}
        first, second = (device.request(CSR, request) for _ in range(2))
    for reply in (first, second):
        assert reply.accepted
        assert 0.19 <= reply.seconds < 5
    assert first.body["certificateId"] != second.body["certificateId"]
    drawn = [each["seconds"] for each in script.state()["injections"]]
    assert drawn[0] != drawn[1]
    assert all(0.2 <= each < 0.4 for each in drawn)


def a_lost_answer(desk: Desk, name: str, script: Script) -> None:
    wanted = Provisioning(desk, name)
    with desk.device(name) as device:
        wanted.create(device)
        wanted.ask(device)
        assert silent(device)
        assert wanted.thing in desk.things()
        wanted.register(device)
    assert script.done() == [("drop", "RegisterThing", "reply")]


def a_lost_request(desk: Desk, name: str, script: Script) -> None:
    wanted = Provisioning(desk, name)
    with desk.device(name) as device:
        wanted.create(device)
        wanted.ask(device)
        assert silent(device)
        assert wanted.thing not in desk.things()
        wanted.register(device)
    assert script.done() == [("drop", "RegisterThing", "request")]


def disconnected(*, registered: bool) -> Callable[[Desk, str, Script], None]:
    def example(desk: Desk, name: str, script: Script) -> None:
        wanted = Provisioning(desk, name)
        with desk.device(name) as device:
            wanted.create(device)
            wanted.ask(device)
            assert ended(device)
        assert (wanted.thing in desk.things()) is registered
        with desk.device(name) as device:
            device.listen(desk.register)
            wanted.register(device)
        assert len(script.done()) == 1

    return example


def disconnected_after_the_reply(desk: Desk, name: str, script: Script) -> None:
    wanted = Provisioning(desk, name)
    with desk.device(name) as device:
        wanted.create(device)
        assert device.disconnected.wait(5)
    with desk.device(name) as device:
        device.listen(desk.register)
        wanted.register(device)
    assert script.done() == [("disconnect", CSR_NAME, "after")]


def reset(desk: Desk, name: str, script: Script) -> None:
    wanted = Provisioning(desk, name)
    with desk.device(name) as device:
        device.listen(CSR)
        request = {"certificateSigningRequest": wanted.request.csr}
        device.send(f"{CSR}/json", encoded(request))
        assert ended(device)
    with desk.device(name) as device:
        wanted.create(device)
        wanted.register(device)
    assert script.done() == [("reset", CSR_NAME, "reply")]


def too_many_requests(desk: Desk, name: str, script: Script) -> None:
    wanted = Provisioning(desk, name)
    with desk.device(name) as device:
        wanted.create(device)
        for _ in range(2):
            refused = device.rejected(desk.register, wanted.body)
            assert (refused["statusCode"], refused["errorCode"]) == (429, "TooManyRequests")
        assert wanted.thing not in desk.things()
        wanted.register(device)
    assert script.state()["faults"][0]["matched"] == 3
    assert script.state()["faults"][0]["injected"] == 2


def an_error(desk: Desk, name: str, script: Script) -> None:
    with desk.device(name) as device:
        device.listen(KEYS, form="cbor")
        assert device.rejected(KEYS, {}, form="cbor") == {
            "statusCode": 500,
            "errorCode": "InternalError",
            "errorMessage": "internal error",
        }
        assert device.accepted(KEYS, {}, form="cbor")["privateKey"]
    assert script.done() == [("reject", "CreateKeysAndCertificate", "request")]


def twice(desk: Desk, name: str, script: Script) -> None:
    wanted = Provisioning(desk, name)
    with desk.device(name) as device:
        device.listen(CSR)
        request = {"certificateSigningRequest": wanted.request.csr}
        reply = device.request(CSR, request)
        assert device.message() == reply.message
        assert silent(device)
    assert script.done() == [("duplicate", CSR_NAME, "reply")]


def an_expired_token(desk: Desk, name: str, script: Script) -> None:
    wanted = Provisioning(desk, name)
    with desk.device(name) as device:
        wanted.create(device)
        refused = device.rejected(desk.register, wanted.body)
        assert (refused["statusCode"], refused["errorCode"]) == (
            400,
            "InvalidCertificateOwnershipToken",
        )
        assert "the certificate ownership token expired at" in refused["errorMessage"]
        wanted.create(device)
        wanted.register(device)
    assert script.done() == [("expire-token", "RegisterThing", "request")]


def a_refused_subscription(desk: Desk, name: str, script: Script) -> None:
    filters = [f"{desk.register}/json/{end}" for end in ("rejected", "accepted")]
    for version, code in ((4, 0x80), (5, 0x87)):
        with desk.device(name, version) as device:
            assert device.subscribe(*filters) == [1, code]
            assert device.subscribe(f"{CSR}/json/accepted") == [1]
    assert [each["topic"] for each in script.state()["injections"]] == [filters[1]] * 2


def a_refused_connection(desk: Desk, name: str, script: Script) -> None:
    with pytest.raises(Refused) as caught, desk.device(name, 5):
        pass
    assert caught.value.code == 0x88
    with desk.device(name):
        pass
    assert script.done() == [("refuse", "connect", "request")]


def garbage(desk: Desk, name: str, script: Script) -> None:
    wanted = Provisioning(desk, name)
    with desk.device(name) as device:
        wanted.create(device)
        answer = device.accepted(desk.register, wanted.body)
    assert answer == {"deviceConfiguration": {"greeting": "hello", "serial": name}}
    assert script.done() == [("garbage", "RegisterThing", "reply")]


def another_key(desk: Desk, name: str, script: Script) -> None:
    wanted = Provisioning(desk, name)
    with desk.device(name) as device:
        wanted.create(device)
        assert not belong_together(wanted.made["certificatePem"], wanted.request.key)
        wanted.create(device)
        assert belong_together(wanted.made["certificatePem"], wanted.request.key)
        wanted.register(device)
    assert script.done() == [("another-key", CSR_NAME, "request")]


def a_slow_suback(desk: Desk, name: str, _script: Script) -> None:
    with desk.device(name) as device:
        begun = time.monotonic()
        device.listen(CSR)
        assert 0.29 <= time.monotonic() - begun < 5


def a_lost_puback(desk: Desk, name: str, script: Script) -> None:
    thing = desk.fleet.thing("own")
    topic = f"devices/{thing}/said"
    with PahoDevice(desk.server, desk.own, thing) as device:
        assert device.subscribe(topic) == [1]
        device.send(topic, b"once")
        assert device.message().payload == b"once"
        assert device._pubacks.empty()
        assert device.publish(topic, b"twice") == 0
        assert device.message().payload == b"twice"
    assert script.done() == [("drop", "publish", "reply")]


def no_connack(desk: Desk, name: str, script: Script) -> None:
    device = desk.device(name)
    try:
        device._client.connect("localhost", desk.server.mqtt_port)
        device._client.loop_start()
        with pytest.raises(queue.Empty):
            device._connack.get(timeout=SOON)
    finally:
        device.close()
    with desk.device(name):
        pass
    assert script.done() == [("drop", "connect", "reply")]


def a_late_clock(desk: Desk, name: str, script: Script) -> None:
    wanted = Provisioning(desk, name)
    with desk.device(name) as device:
        wanted.create(device)
        for _ in range(2):
            refused = device.rejected(desk.register, wanted.body)
            assert refused["errorCode"] == "InvalidCertificateOwnershipToken"
        wanted.create(device)
        wanted.register(device)
    assert script.done() == [("clock-skew", CSR_NAME, "request")]


def a_clock_ahead(desk: Desk, name: str, script: Script) -> None:
    wanted = Provisioning(desk, name)
    with desk.device(name, 5) as device:
        wanted.create(device)
        assert device.accepted(desk.register, wanted.body)["thingName"] == wanted.thing
    with (
        pytest.raises(Refused) as caught,
        PahoDevice(desk.server, wanted.identity(), wanted.thing, version=5),
    ):
        pass
    assert caught.value.code == 0x87
    assert "is not valid before" in desk.server.output()
    assert script.done() == [("clock-skew", CSR_NAME, "request")]


CSR_NAME = "CreateCertificateFromCsr"
EXAMPLES: dict[str, Callable[[Desk, str, Script], None]] = {
    "A slow answer": a_slow_answer,
    "A lost answer": a_lost_answer,
    "A lost request": a_lost_request,
    "Disconnected before the request is carried out": disconnected(registered=False),
    "Disconnected before the reply": disconnected(registered=True),
    "Disconnected after the reply": disconnected_after_the_reply,
    "A connection that breaks in the middle of a packet": reset,
    "Too many requests": too_many_requests,
    "The server has an error": an_error,
    "A reply that comes twice": twice,
    "An expired token": an_expired_token,
    "A subscription that is refused": a_refused_subscription,
    "A connection that is refused": a_refused_connection,
    "Garbage": garbage,
    "A certificate for another key": another_key,
    "A slow SUBACK": a_slow_suback,
    "A lost PUBACK": a_lost_puback,
    "A CONNACK that never comes": no_connack,
    "A server whose clock is late": a_late_clock,
    "A server whose clock is ahead": a_clock_ahead,
}


def belong_together(certificate: str, key: str) -> bool:
    own = load_pem_private_key(key.encode(), None).public_key()
    return x509.load_pem_x509_certificate(certificate.encode()).public_key() == own


def examples() -> dict[str, str]:
    """The scripts of the page by the headings they are under."""
    found, heading = {}, ""
    for block in blocks_of("faults.md"):
        for line in block.before.splitlines():
            if line.startswith("#"):
                heading = line.lstrip("# ")
        if block.language == "toml":
            assert heading not in found or heading == "Scripts", heading
            found[heading] = block.code  # of those about scripts the last: a sequence
    return found


PAGE = examples()


def test_every_example_is_tried() -> None:
    assert set(PAGE) == {*EXAMPLES, "Scripts", "A bad day"}


@pytest.mark.parametrize("heading", EXAMPLES)
def test_the_example_happens(desk: Desk, heading: str, name: str) -> None:
    client = desk.fleet.thing("own") if heading == "A lost PUBACK" else name
    with faults(desk.server, PAGE[heading], client) as script:
        EXAMPLES[heading](desk, name, script)
        said = [line for line in desk.server.output().splitlines() if f"script={client!r}" in line]
        assert len([line for line in said if "event=fault " in line]) == len(script.done())


@pytest.mark.parametrize("heading", ["An expired token", "A server whose clock is late"])
def test_the_device_library_begins_again_in_the_same_run(
    desk: Desk, heading: str, name: str, tmp_path: Path
) -> None:
    claim = desk.fleet.claim
    with faults(desk.server, PAGE[heading], name) as script:
        done = provision(
            Endpoint("localhost", desk.server.mqtt_port, desk.server.ca_file),
            device.Credentials(claim.certificate, claim.key),
            desk.fleet.template,
            {"SerialNumber": name},
            tmp_path / "out",
            client_id=name,
        )
        assert len(script.done()) == 1
    assert done.thing_name == desk.fleet.thing(name)
    assert not done.identity.answer_lost
    owners = desk.server.iot.list_thing_principals(thingName=done.thing_name)["principals"]
    assert [each.rpartition("/")[2] for each in owners] == [done.certificate_id]


def test_a_list_is_a_sequence(desk: Desk, name: str) -> None:
    wanted = Provisioning(desk, name)
    with faults(desk.server, PAGE["Scripts"], name) as script, desk.device(name) as device:
        wanted.create(device)
        for _ in range(2):
            assert device.rejected(desk.register, wanted.body)["statusCode"] == 429
        wanted.ask(device)
        assert silent(device)
        wanted.register(device)
    assert script.name == name


def test_a_bad_day_ends_well_and_can_be_had_again(desk: Desk, name: str) -> None:
    """The client id is the same on every day: what happens follows from it."""
    days = []
    for serial in (f"{name}a", f"{name}b"):
        with faults(desk.server, PAGE["A bad day"], "lamp-13") as script:
            live_through(desk, script, Provisioning(desk, serial))
            keys = ("do", "on", "moment", "count", "seconds")
            injections = script.state()["injections"]
            days.append([tuple(each.get(key) for key in keys) for each in injections])
        assert desk.fleet.thing(serial) in desk.things()
    assert days[0] == days[1]
    assert {do for do, *_ in days[0]} == {"refuse", "throttle", "drop", "delay"}


def live_through(desk: Desk, script: Script, wanted: Provisioning) -> None:
    """A device that goes on trying until it was accepted five times; a lost answer is the end of
    its connection. That it is lost the server says: no time-out makes one day another."""
    accepted = 0
    while accepted < 5:
        with contextlib.suppress(Refused), desk.device(script.name) as device:
            if wanted.made:
                device.listen(desk.register)
            else:
                wanted.create(device)
            lost = False
            while accepted < 5 and not lost:
                before = script.done()
                wanted.ask(device)
                while not lost:
                    try:
                        accepted += device.message(0.05).topic.endswith("/accepted")
                        break
                    except TimeoutError:
                        lost = "drop" in [do for do, *_ in script.done()[len(before) :]]


DEVICE_UNDER_TEST = """
import json, os
from pathlib import Path

import pytest

from tests.integration.fleet import Fleet, Identity
from tests.integration.paho_device import PahoDevice
from tests.integration.server import Server
from tests.integration.test_faults_page import Desk, Provisioning, silent

DATA, CERTIFICATE, KEY, CERTIFICATE_ID, SERIAL = json.loads(os.environ["DESK"])


@pytest.fixture
def provision(tmp_path):
    server = Server(Path(DATA))
    assert server._healthy()
    claim = Identity(Path(CERTIFICATE), Path(KEY), CERTIFICATE_ID)
    fleet = Fleet("lamp", "lamp-template", "lamp-device", "lamp-claim", claim)
    desk = Desk(server, fleet, claim, tmp_path)

    def run(client_id):
        wanted = Provisioning(desk, SERIAL)
        with desk.device(client_id) as device:
            wanted.create(device)
            wanted.ask(device)
            assert silent(device)
            wanted.register(device)
        return "registered"

    return run
"""


def test_the_test_of_the_page_passes(desk: Desk, name: str, tmp_path: Path) -> None:
    [code] = [block.code for block in blocks_of("faults.md") if block.language == "python"]
    (tmp_path / "test_lamp.py").write_text(code)
    (tmp_path / "conftest.py").write_text(DEVICE_UNDER_TEST)
    claim = desk.fleet.claim
    told = [desk.server.data, claim.certificate, claim.key, claim.id, name]
    [keys] = re.findall(r"= (.+)\n.*= (.+)", (desk.server.data / "credentials").read_text())
    done = run(
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
        *("-p", "no:hypothesispytest", f"--rootdir={tmp_path}", str(tmp_path)),
        cwd=tmp_path,
        env={
            "AWS_ENDPOINT_URL": desk.server.http_url,
            "AWS_REGION": REGION,
            **dict(zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), keys, strict=True)),
            "DESK": json.dumps([str(each) for each in told]),
            "PYTHONPATH": str(ROOT),
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert ask(desk.server, "GET").json() == {"scripts": []}


def test_the_paths_are_for_the_root_user_alone(desk: Desk, name: str) -> None:
    iam = desk.server.client("iam")
    try:
        iam.create_user(UserName=name)
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        iam.put_user_policy(
            UserName=name, PolicyName="all", PolicyDocument=policy_document(everything)
        )
        key = iam.create_access_key(UserName=name)["AccessKey"]
    finally:
        iam.close()
    user = Credentials(key["AccessKeyId"], key["SecretAccessKey"])
    for method in ("PUT", "GET", "DELETE"):
        answer = ask(desk.server, method, "/t", credentials=user)
        assert answer.status == 403
        assert "for the root user of the account alone" in answer.json()["message"]
        assert http(f"{desk.server.http_url}/_fleetgate/faults/t", method=method).status == 403


def test_a_script_is_put_by_the_command_of_the_page(desk: Desk, tmp_path: Path) -> None:
    [command] = [block.code for block in blocks_of("faults.md") if "curl" in block.code]
    (tmp_path / "faults.toml").write_text(PAGE["A lost answer"])
    done = run(
        *("bash", "-c", f"set -e -o pipefail\n{command}"),
        cwd=tmp_path,
        env={"FLEETGATE_DATA": str(desk.server.data)},
    )
    assert done.returncode == 0, done.stderr
    assert Script(desk.server, "my-test").state()["faults"][0]["do"] == "drop"
    assert ask(desk.server, "DELETE").json() == {"removed": ["my-test"]}

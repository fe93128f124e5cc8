"""docs/device-faults.md: what the device library makes of each fault, with every MQTT client.

The rows of the page's table are the test's: the fault is put into a real server as it is written
there, then single operations and a whole `provision()` have to end as the row says, in the time
that it says, with nothing left behind.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleetgate.device import operations
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import NotAuthorized, ProvisioningError, Rejected
from fleetgate.device.exchange import Terms
from fleetgate.device.identity import JOURNAL, load
from fleetgate.device.mqtt_client import MqttClient
from fleetgate.device.provision import Retries, provision
from fleetgate.mqtt.packets import Version
from tests.device.clients import ADAPTERS, Remains
from tests.integration.fault_scripts import faults
from tests.integration.fleet import (
    ALLOW_ALL,
    Fleet,
    create_fleet,
    create_identity,
    policy_document,
    signing_request,
)
from tests.integration.paho_device import PahoDevice
from tests.integration.server import Server
from tests.test_docs import ROOT

TIMES = {"timeout": 0.9, "mqtt_timeout": 1.0, "connect_timeout": 1.5, "at once": 0.0}
"""Seconds; the times of the rows that wait."""
SLACK = 4.0
"""Seconds that anything may take on a busy machine, which is less than PATIENT waits."""
SHORT = Terms(timeout=TIMES["timeout"], mqtt_timeout=TIMES["mqtt_timeout"])
PATIENT = Terms(timeout=10, mqtt_timeout=10)
RETRIES = Retries(attempts=3, seconds=20, first_pause=0.01, longest_pause=0.02)
WITHIN = 5.0
WHOLE_SLACK = 5.0
"""Seconds that a whole may take for all that is no waiting, on a busy machine."""


@dataclass(frozen=True)
class Row:
    """A row of the page's table, for one version of MQTT."""

    fault: str
    operation: str
    within: str
    whole: str
    version: Version

    @property
    def script(self) -> str:
        lines = self.fault.replace(", ", "\n")
        return f"[[fault]]\n{lines}\ntimes = 1\n"

    @property
    def on(self) -> str:
        """What the fault is on."""
        return self.fault.split('"')[1]

    def terms(self, *operations: str) -> Terms:
        """Short for these operations only if they are those that wait."""
        waits = self.within in ("`timeout`", "`mqtt_timeout`")
        return SHORT if waits and self.on in operations else PATIENT

    @property
    def connect_timeout(self) -> float:
        return TIMES["connect_timeout"] if self.within == "`connect_timeout`" else 10.0

    @property
    def seconds(self) -> float:
        within = self.within.strip("`")
        return TIMES[within] if within in TIMES else float(within.removesuffix(" s"))


def rows() -> Iterator[Row]:
    """Both versions in turn where the page makes no difference."""
    text = (ROOT / "docs" / "device-faults.md").read_text()
    turn: Version = 4
    for line in text.splitlines():
        if not line.startswith("| `on"):
            continue
        fault, operation, within, whole = (cell.strip() for cell in line.strip("|").split("|"))
        script, _, only = fault.strip().partition("` on MQTT ")
        turn = 5 if turn == 4 else 4
        version: Version = turn if not only else 4 if only == "3.1.1" else 5
        yield Row(script.strip("` "), operation, within, whole, version)


ROWS = list(rows())
each_row = pytest.mark.parametrize("row", ROWS, ids=[f"{row.fault} {row.version}" for row in ROWS])
each_adapter = pytest.mark.parametrize("adapter", list(ADAPTERS))


class Subscriptions:
    """What the server says that each client is subscribed to (AWS IoT's lifecycle events)."""

    def __init__(self, device: PahoDevice) -> None:
        self._device = device
        self._open: dict[str, Counter[str]] = {}
        device.subscribe("$aws/events/subscriptions/#")

    def of(self, client_id: str) -> Counter[str]:
        """After everything that has happened so far."""
        while not self._device.messages.empty():
            event = json.loads(self._device.message().payload)
            found = self._open.setdefault(event["clientId"], Counter())
            (found.update if event["eventType"] == "subscribed" else found.subtract)(
                event["topics"]
            )
        return +self._open.get(client_id, Counter())

    def none_left(self, client_id: str) -> bool:
        end = time.monotonic() + WITHIN
        while self.of(client_id):
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True


@dataclass(frozen=True)
class Site:
    server: Server
    fleet: Fleet
    subscriptions: Subscriptions
    directory: Path

    def endpoint(self, version: Version, connect_timeout: float = 10.0) -> Endpoint:
        return Endpoint(
            "localhost",
            self.server.mqtt_port,
            self.server.ca_file,
            mqtt_version=version,
            connect_timeout=connect_timeout,
        )

    @property
    def claim(self) -> Credentials:
        return Credentials(self.fleet.claim.certificate, self.fleet.claim.key)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("device-faults")
    with Server(directory / "data", "--allow-faults") as server:
        fleet = create_fleet(server, directory / "fleet", "lamp")
        document = policy_document(ALLOW_ALL)
        server.iot.create_policy(policyName="operator", policyDocument=document)
        operator = create_identity(server, directory, "operator", "operator")
        with PahoDevice(server, operator, "watcher") as watcher:
            site = Site(server, fleet, Subscriptions(watcher), directory)
            # what a server does for the first time takes it longer than the times of this file
            provision(
                *(site.endpoint(5), site.claim, fleet.template, {"SerialNumber": "first"}),
                directory / "first",
                terms=Terms(timeout=30, mqtt_timeout=30),
            )
            yield site


def test_the_page_has_rows() -> None:
    assert len(ROWS) > 30
    assert {row.version for row in ROWS} == {4, 5}


# --- operations ------------------------------------------------------------------------------


@each_adapter
@each_row
def test_operations(row: Row, adapter: str, site: Site, name: str) -> None:
    remains = Remains()
    with faults(site.server, row.script, name) as script:
        told, seconds = told_by(row, adapter, site, name)
        assert len(script.done()) == 1
    assert told == row.operation.replace("`", "")
    assert row.seconds - 0.01 <= seconds <= row.seconds + SLACK
    assert slow(row, adapter) or remains.none(), remains


@each_adapter
def test_an_unsubscribe_does_not_overtake_its_subscribe(
    adapter: str, site: Site, name: str
) -> None:
    """The first SUBACK is a refusal, which a callback hears while the second one is on its way."""
    script = '[[fault]]\non = "subscribe"\ndo = "refuse"\ntopic = "*/accepted"\n'
    client = ADAPTERS[adapter](site.endpoint(5), site.claim, name)
    with faults(site.server, script, name):
        for _ in range(10):
            with pytest.raises(NotAuthorized):
                operations.create_keys_and_certificate(client, PATIENT)
            assert site.subscriptions.none_left(name)
    client.disconnect().result(WITHIN)


def slow(row: Row, adapter: str) -> bool:
    """awscrt waits for an unanswered CONNECT of 3.1.1, whatever it is told (docs/device.md)."""
    return (adapter, row.version, row.within) == ("awscrt", 4, "`connect_timeout`")


def lost(row: Row) -> bool:
    return "ConnectionLost" in row.operation or "PacketTooLarge" in row.operation


def check(row: Row, error: ProvisioningError) -> None:
    """Where it was, and how long it was waited."""
    assert error.step in ("subscribe", "create", "register", None)
    assert error.waited == (row.seconds or None)


def told_by(row: Row, adapter: str, site: Site, name: str) -> tuple[str, float]:
    """Create, register, and what came of it: the words of the page, and how long the operation
    took that ended otherwise, or that the fault was for."""
    endpoint = site.endpoint(row.version, row.connect_timeout)
    request = signing_request(name)
    times: dict[str, float] = {}
    answered = False
    client: MqttClient | None = None
    begin = time.monotonic()
    try:
        client = ADAPTERS[adapter](endpoint, site.claim, name)
        begin = time.monotonic()
        issued = operations.create_certificate_from_csr(
            client, request.csr, row.terms("CreateCertificateFromCsr", "subscribe", "publish")
        )
        times["CreateCertificateFromCsr"] = times["subscribe"] = time.monotonic() - begin
        times["publish"] = times["subscribe"]
        answered = True
        begin = time.monotonic()
        parameters = {"SerialNumber": name}
        operations.register_thing(
            *(client, site.fleet.template, issued.ownership_token, parameters),
            row.terms("RegisterThing"),
        )
        times["RegisterThing"] = time.monotonic() - begin
    except ProvisioningError as error:
        seconds = time.monotonic() - begin
        check(row, error)
        told = type(error).__name__
        if isinstance(error, Rejected):
            told += f" {error.status_code}"
        first = answered and row.on != "RegisterThing"
        return ("answered, then " if first else "") + told, seconds
    else:
        assert site.fleet.thing(name) in json.dumps(site.server.iot.list_things(maxResults=250))
        return "answered", times[row.on]
    finally:
        if client is not None:
            assert lost(row) or site.subscriptions.none_left(name)
            client.disconnect().result(WITHIN)


# --- the whole -------------------------------------------------------------------------------


@each_row
def test_provision(row: Row, site: Site, name: str) -> None:
    adapter = list(ADAPTERS)[ROWS.index(row) % len(ADAPTERS)]
    out = site.directory / name

    def run(connect: Callable[..., MqttClient]) -> str:
        try:
            done = provision(
                site.endpoint(row.version, row.connect_timeout),
                site.claim,
                site.fleet.template,
                {"SerialNumber": name},
                out,
                client_id=name,
                terms=row.terms(row.on),
                retries=RETRIES,
                connect=connect,
            )
        except ProvisioningError as error:
            return type(error).__name__
        assert done.thing_name == site.fleet.thing(name)
        return "done"

    remains = Remains()
    with faults(site.server, row.script, name) as script:
        begin = time.monotonic()
        told = run(ADAPTERS[adapter])
        seconds = time.monotonic() - begin
        assert len(script.done()) == 1
    if not slow(row, adapter):
        assert row.seconds - 0.01 <= seconds <= row.seconds + WHOLE_SLACK
    assert remains.none(), remains
    expected = re.findall(r"`(\w+)`", row.operation)
    match row.whole.split("`"):
        case ["goes on"] | ["tries again"] | ["begins anew"]:
            assert told == "done"
        case ["raises it"]:
            assert told == expected[-1]
        case ["raises ", other, ""]:
            assert told == other
        case _:
            pytest.fail(row.whole)
    if told == "done":
        assert load(out).thing_name == site.fleet.thing(name)
        return
    # nothing is lost: without the fault, the same goes on
    assert (out / JOURNAL).exists() or not (out / "current").exists()
    if row.whole == "raises it":
        assert run(ADAPTERS[adapter]) == "done"

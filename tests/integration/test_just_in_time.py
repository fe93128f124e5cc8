"""Devices whose certificates are signed by an authority of one's own, and register themselves.

Sources: AWS IoT Developer Guide, "Register a client certificate when the client connects to AWS IoT
just-in-time registration (JITR)" and "Just-in-time provisioning".
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from awscrt.exceptions import AwsCrtError

from fleetgate.store.libpq import connect as connect_to_database
from fleetgate.store.target import target
from tests.integration.crt_device import crt_5, crt_311
from tests.integration.fleet import (
    ALLOW_ALL,
    ROLE,
    Identity,
    arn,
    create_role,
    policy_document,
)
from tests.integration.own_authority import Own, authority, device, register, subject, template_body
from tests.integration.paho_device import PahoDevice, Refused, tls_context
from tests.integration.refusal import everything, refusal
from tests.integration.server import ACCOUNT, Server, run
from tests.integration.test_shell_clients import mosquitto
from tests.postgresql import Cluster

WITHIN = 15.0


@pytest.fixture
def own(name: str) -> Own:
    return authority(f"CA {name}")


@pytest.fixture
def policy(iot: Any, name: str) -> str:
    iot.create_policy(policyName=name, policyDocument=policy_document(ALLOW_ALL))
    return name


@pytest.fixture
def provisioning(policy: str) -> dict[str, str]:
    """A registration configuration with an inline body."""
    return {"templateBody": template_body(policy), "roleArn": ROLE}


# --- clients -------------------------------------------------------------------------------------

Attempt = Callable[[Server, Identity, str], bool]
"""One connect; was the client let in?"""


def with_paho(version: int) -> Attempt:
    def attempt(server: Server, own: Identity, client_id: str) -> bool:
        try:
            with PahoDevice(server, own, client_id, version=version) as connected:
                return connected.publish(f"{client_id}/x", b"x") == 0
        except Refused as refused:
            if refused.code not in (5, 135):  # NOT_AUTHORIZED of the two versions
                raise
            return False

    return attempt


def with_awsiotsdk(opener: Any) -> Attempt:
    def attempt(server: Server, own: Identity, client_id: str) -> bool:
        try:
            with opener(server, own, client_id) as connected:
                assert connected.publish(f"{client_id}/x", b"x")
                return True
        except (AwsCrtError, AssertionError):
            return False

    return attempt


def with_mosquitto(server: Server, own: Identity, client_id: str) -> bool:
    command = mosquitto("pub", server, own, client_id)
    sent = run(*command, "-t", f"{client_id}/x", "-m", "x", cwd=own.key.parent)
    return sent.returncode == 0 and "refused" not in (sent.stdout + sent.stderr).lower()


CLIENTS = [
    pytest.param(with_paho(4), id="paho-3.1.1"),
    pytest.param(with_paho(5), id="paho-5"),
    pytest.param(with_awsiotsdk(crt_311), id="awsiotsdk-3.1.1"),
    pytest.param(with_awsiotsdk(crt_5), id="awsiotsdk-5"),
    pytest.param(with_mosquitto, id="mosquitto", marks=pytest.mark.needs("mosquitto_pub")),
]
CHAINS = pytest.mark.parametrize("chained", [False, True], ids=["leaf", "leaf-and-ca"])


def knock(server: Server, own: Identity, server_name: str | None = "localhost") -> int:
    """CONNECT over a bare TLS socket; the return code of CONNACK."""
    context = tls_context(server, own)
    context.check_hostname = server_name is not None
    with (
        socket.create_connection((server.mqtt_host, server.mqtt_port), WITHIN) as plain,
        context.wrap_socket(plain, server_hostname=server_name) as tls,
    ):
        tls.sendall(bytes.fromhex("10 0d 0004 4d515454 04 02 003c 0001 61"))
        return tls.recv(4)[3]


def lets_in(server: Server, own: Identity) -> bool:
    return knock(server, own) == 0


def in_the_end(attempt: Callable[[], bool]) -> None:
    """What a device does: it connects again until it is let in."""
    end = time.monotonic() + WITHIN
    while not attempt():
        assert time.monotonic() < end
        time.sleep(0.02)


def about(server: Server, identity: Identity, event: str) -> list[str]:
    """The lines of the log with an event of a certificate."""
    lines = server.output().splitlines()
    return [line for line in lines if f"event={event} certificate={identity.id}" in line]


def status(iot: Any, identity: Identity) -> str:
    described = iot.describe_certificate(certificateId=identity.id)["certificateDescription"]
    return str(described["status"])


def unknown(iot: Any, identity: Identity) -> bool:
    try:
        iot.describe_certificate(certificateId=identity.id)
    except iot.exceptions.ResourceNotFoundException:
        return True
    return False


# --- registration --------------------------------------------------------------------------------


class Activator:
    """A subscriber that does what people do in a rule: it activates what registers itself."""

    def __init__(self, server: Server, operator: Identity, ca_id: str, policy: str) -> None:
        self.topic = f"$aws/events/certificates/registered/{ca_id}"
        self.events: list[dict[str, Any]] = []
        self._iot = server.client()
        self._policy = policy
        self._device = PahoDevice(server, operator, f"activator-{ca_id[:8]}")

    def __enter__(self) -> Activator:
        self._device.__enter__()
        assert self._device.subscribe(self.topic) == [1]
        return self

    def __exit__(self, *details: object) -> None:
        self._device.close()
        self._iot.close()

    def activate(self) -> dict[str, Any]:
        """Waits for an event and activates its certificate; the event."""
        message = self._device.message()
        assert (message.topic, message.qos, message.retain) == (self.topic, 1, False)
        event: dict[str, Any] = json.loads(message.payload)
        id_ = event["certificateId"]
        self._iot.attach_policy(policyName=self._policy, target=arn(f"cert/{id_}"))
        self._iot.update_certificate(certificateId=id_, newStatus="ACTIVE")
        return event


@CHAINS
@pytest.mark.parametrize("attempt", CLIENTS)
def test_a_subscriber_activates_what_registers_itself(
    server: Server,
    iot: Any,
    operator: Identity,
    own: Own,
    policy: str,
    name: str,
    tmp_path: Path,
    *,
    attempt: Attempt,
    chained: bool,
) -> None:
    ca_id = register(iot, own)
    mine = device(tmp_path, own, subject(name), *([own] if chained else []))
    before = int(time.time() * 1000)
    with Activator(server, operator, ca_id, policy) as activator:
        assert not attempt(server, mine, name)
        event = activator.activate()
    after = int(time.time() * 1000)
    moment, registered = event.pop("timestamp"), event.pop("certificateRegistrationTimestamp")
    assert isinstance(moment, int)
    assert isinstance(registered, str)
    assert before <= int(registered) <= moment <= after
    assert event == {
        "certificateId": mine.id,
        "caCertificateId": ca_id,
        "certificateStatus": "PENDING_ACTIVATION",
        "awsAccountId": ACCOUNT,
    }
    assert attempt(server, mine, name)
    listed = everything(iot, "list_certificates_by_ca", "certificates", caCertificateId=ca_id)
    [entry] = listed
    assert (entry["certificateId"], entry["certificateMode"]) == (mine.id, "DEFAULT")


def test_the_event_comes_again_until_somebody_activates(
    server: Server, iot: Any, operator: Identity, own: Own, name: str, tmp_path: Path
) -> None:
    ca_id = register(iot, own)
    mine = device(tmp_path, own, subject(name))
    with PahoDevice(server, operator, name) as listener:
        listener.subscribe(f"$aws/events/certificates/registered/{ca_id}")
        events = []
        for _ in range(3):
            assert not with_paho(4)(server, mine, f"{name}-device")
            events.append(json.loads(listener.message().payload))
    assert {event["certificateId"] for event in events} == {mine.id}
    assert len({event["certificateRegistrationTimestamp"] for event in events}) == 1
    moments = [event["timestamp"] for event in events]
    assert moments == sorted(moments)
    assert len(about(server, mine, "registered")) == 1
    assert status(iot, mine) == "PENDING_ACTIVATION"


# --- provisioning --------------------------------------------------------------------------------


@CHAINS
@pytest.mark.parametrize("attempt", CLIENTS)
@pytest.mark.parametrize("named", [True, False], ids=["named", "inline"])
def test_a_template_makes_a_device_of_it(
    server: Server,
    iot: Any,
    own: Own,
    policy: str,
    provisioning: dict[str, str],
    name: str,
    tmp_path: Path,
    *,
    attempt: Attempt,
    chained: bool,
    named: bool,
) -> None:
    if named:
        iot.create_provisioning_template(
            templateName=f"{name}-jitp",
            templateBody=provisioning["templateBody"],
            provisioningRoleArn=ROLE,
            type="JITP",
            enabled=True,
        )
        provisioning = {"templateName": f"{name}-jitp"}
    ca_id = register(iot, own, registrationConfig=provisioning)
    assert iot.describe_ca_certificate(certificateId=ca_id)["registrationConfig"] == provisioning
    who = subject(f"lamp-{name}", SERIAL_NUMBER=f"S-{name}")
    mine = device(tmp_path, own, who, *([own] if chained else []))
    assert not attempt(server, mine, name)
    in_the_end(lambda: attempt(server, mine, name))
    thing = iot.describe_thing(thingName=f"lamp-{name}")
    assert thing["attributes"] == {"serial": f"S-{name}"}
    assert iot.list_thing_principals(thingName=f"lamp-{name}")["principals"] == [mine.arn]
    attached = iot.list_attached_policies(target=mine.arn)["policies"]
    assert [each["policyName"] for each in attached] == [policy]
    described = iot.describe_certificate(certificateId=mine.id)["certificateDescription"]
    assert (described["status"], described["caCertificateId"]) == ("ACTIVE", ca_id)
    [provisioned] = about(server, mine, "provisioned")
    assert f"template={name}-jitp " if named else "template=inline " in provisioned


def test_what_failed_begins_anew_once_the_certificate_is_deleted(
    server: Server,
    iot: Any,
    own: Own,
    provisioning: dict[str, str],
    name: str,
    tmp_path: Path,
) -> None:
    """Its subject has no serial number, which the template declares."""
    ca_id = register(iot, own, registrationConfig=provisioning)
    mine = device(tmp_path, own, subject(f"lamp-{name}"))
    attempt = with_paho(5)
    assert not attempt(server, mine, name)
    in_the_end(lambda: bool(about(server, mine, "provisioning-failed")))
    [failed] = about(server, mine, "provisioning-failed")
    assert "Cannot resolve reference value: AWS::IoT::Certificate::SerialNumber" in failed
    for _ in range(2):
        assert not attempt(server, mine, name)
    lines = about(server, mine, "not-activated")
    assert len(lines) == 2
    assert "step template: Parameters.AWS::IoT::Certificate::SerialNumber" in lines[0]
    assert "DeleteCertificate lets the device try again" in lines[0]
    assert status(iot, mine) == "PENDING_ACTIVATION"
    gone = refusal(iot.describe_thing, thingName=f"lamp-{name}")
    assert gone.kind == (404, "ResourceNotFoundException")

    body = json.loads(provisioning["templateBody"])
    del body["Parameters"]["AWS::IoT::Certificate::SerialNumber"]
    del body["Resources"]["thing"]["Properties"]["AttributePayload"]
    iot.update_ca_certificate(
        certificateId=ca_id,
        registrationConfig={**provisioning, "templateBody": json.dumps(body)},
    )
    assert not attempt(server, mine, name)
    assert status(iot, mine) == "PENDING_ACTIVATION"
    iot.delete_certificate(certificateId=mine.id)
    assert not attempt(server, mine, name)
    in_the_end(lambda: attempt(server, mine, name))
    assert iot.list_thing_principals(thingName=f"lamp-{name}")["principals"] == [mine.arn]


PAGE = Path(__file__).parents[2] / "docs" / "just-in-time.md"


@pytest.mark.needs("openssl", "mosquitto_pub", "mosquitto_sub")
def test_what_the_page_shows_can_be_typed(tmp_path: Path) -> None:
    """Every `sh` block of docs/just-in-time.md, one after the other in one shell."""
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    with Server(tmp_path / "data") as server:
        directory = tmp_path / "typed"
        directory.mkdir()
        variables = {"FLEETGATE_DATA": str(server.data), "AWS_PAGER": ""}
        typed = run(
            *("bash", "-e", "-o", "pipefail", "-m", "-c", script),
            cwd=directory,
            seconds=120,
            env=variables,
        )
        assert typed.returncode == 0, typed.stdout + typed.stderr
        iot = server.iot
        assert iot.describe_thing(thingName="lamp-2")["attributes"] == {"serial": "S-0002"}
        [authority_] = iot.list_ca_certificates()["certificates"]
        assert authority_["status"] == "INACTIVE"
        listed = iot.list_certificates_by_ca(caCertificateId=authority_["certificateId"])
        assert [each["status"] for each in listed["certificates"]] == ["ACTIVE", "ACTIVE"]
        assert '"certificateStatus":"PENDING_ACTIVATION"' in typed.stdout


# --- who is refused ------------------------------------------------------------------------------


def refused(server: Server, iot: Any, identity: Identity, name: str) -> str:
    """The client hears what strangers hear; the line in the log with the reason."""
    with pytest.raises(Refused) as caught:
        PahoDevice(server, identity, name, version=5).__enter__()
    assert caught.value.code == 0x87
    assert unknown(iot, identity)
    [line] = about(server, identity, "not-registered")
    [said] = [
        line
        for line in server.output().splitlines()
        if "event=refused client=" in line and identity.id in line
    ]
    assert f"certificate {identity.id} is not registered" in said
    return line


def test_a_wrong_ca_is_refused(
    server: Server, iot: Any, own: Own, name: str, tmp_path: Path
) -> None:
    register(iot, own)
    stranger = device(tmp_path, authority(f"stranger {name}"), subject(name))
    assert "no registered CA certificate has the subject" in refused(server, iot, stranger, name)
    namesake = authority(f"CA {name}")
    for chain in ((), (own,), (namesake,)):
        forged = device(tmp_path, namesake, subject(name), *chain)
        assert "its signature does not match the key of the CA" in refused(
            server, iot, forged, name
        )


def test_an_expired_ca_is_refused(server: Server, iot: Any, name: str, tmp_path: Path) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    short = authority(f"short {name}", end)
    register(iot, short)
    early = device(tmp_path, short, subject(name))
    assert not with_paho(4)(server, early, name)
    assert status(iot, early) == "PENDING_ACTIVATION"
    time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()))
    late = device(tmp_path, short, subject(name))
    assert f"CA certificate {short.id}: it expired at" in refused(server, iot, late, name)


def test_an_expired_certificate_is_refused(
    server: Server, iot: Any, own: Own, name: str, tmp_path: Path
) -> None:
    register(iot, own)
    yesterday = datetime.now(UTC) - timedelta(hours=1)
    mine = device(tmp_path, own, subject(name), not_after=yesterday)
    line = refused(server, iot, mine, name)
    assert "step=validity" in line
    assert "it expired at" in line


def test_a_ca_that_is_switched_off_stops_new_devices_alone(
    server: Server,
    iot: Any,
    own: Own,
    provisioning: dict[str, str],
    name: str,
    tmp_path: Path,
) -> None:
    ca_id = register(iot, own, registrationConfig=provisioning)
    old = device(tmp_path, own, subject(f"old-{name}", SERIAL_NUMBER="1"))
    attempt = with_paho(4)
    in_the_end(lambda: attempt(server, old, name))
    for number, (change, reason) in enumerate(
        [
            ({"newStatus": "INACTIVE"}, "it is INACTIVE, not ACTIVE"),
            (
                {"newStatus": "ACTIVE", "newAutoRegistrationStatus": "DISABLE"},
                "its auto registration is DISABLE, not ENABLE",
            ),
        ]
    ):
        iot.update_ca_certificate(certificateId=ca_id, **change)
        new = device(tmp_path, own, subject(f"new-{name}-{number}", SERIAL_NUMBER="2"))
        assert reason in refused(server, iot, new, name)
        assert attempt(server, old, name)
    iot.update_ca_certificate(certificateId=ca_id, newAutoRegistrationStatus="ENABLE")
    in_the_end(lambda: attempt(server, new, name))
    iot.update_ca_certificate(certificateId=ca_id, newStatus="INACTIVE")
    iot.delete_ca_certificate(certificateId=ca_id)
    assert attempt(server, old, name)
    listed = everything(iot, "list_certificates_by_ca", "certificates", caCertificateId=ca_id)
    assert {each["certificateId"] for each in listed} == {old.id, new.id}


def test_of_several_cas_with_one_subject_the_signer_counts(
    server: Server, iot: Any, name: str, tmp_path: Path
) -> None:
    twins = [authority(f"twin {name}") for _ in range(3)]
    for twin in twins:
        register(iot, twin, certificateMode="SNI_ONLY")
    for twin in twins:
        mine = device(tmp_path, twin, subject(name))
        assert not with_paho(4)(server, mine, name)
        described = iot.describe_certificate(certificateId=mine.id)["certificateDescription"]
        assert described["caCertificateId"] == twin.id
        assert described["certificateMode"] == "SNI_ONLY"


@pytest.mark.parametrize("mode", ["DEFAULT", "SNI_ONLY"])
def test_clients_without_a_server_name(
    server: Server, iot: Any, own: Own, policy: str, name: str, tmp_path: Path, *, mode: str
) -> None:
    """They have to send the CA certificate; for an SNI_ONLY one not even that is enough."""
    register(iot, own, certificateMode=mode)
    stranger = authority(f"stranger {name}")
    leaf, strange, whole = (
        device(tmp_path, own, subject(f"{name}-{number}"), *chain)
        for number, chain in enumerate([(), (stranger,), (stranger, own)])
    )
    for each in (leaf, strange):
        assert knock(server, each, None) == 5
        assert unknown(iot, each)
        [line] = about(server, each, "not-registered")
        assert "step=server-name" in line
    assert knock(server, whole, None) == 5
    assert unknown(iot, whole) is (mode == "SNI_ONLY")
    # with a server name all three may come, and stay; without one only in DEFAULT mode
    for each in (leaf, strange, whole):
        assert not with_paho(4)(server, each, name)
        iot.update_certificate(certificateId=each.id, newStatus="ACTIVE")
        iot.attach_policy(policyName=policy, target=each.arn)
        assert with_paho(4)(server, each, name)
        assert knock(server, each, None) == (5 if mode == "SNI_ONLY" else 0)


# --- crashes -------------------------------------------------------------------------------------


@contextlib.contextmanager
def own_server(directory: Path, url: str) -> Iterator[Server]:
    server = Server(directory / "data", env={"FLEETGATE_DATABASE": url} if url else {})
    try:
        create_role(server.start())
        yield server
    finally:
        server.terminate()


@pytest.fixture
def url(database: str, request: pytest.FixtureRequest) -> str:
    """A database of its own; empty for SQLite."""
    if database == "sqlite":
        return ""
    cluster: Cluster = request.getfixturevalue("cluster")
    return cluster.url(cluster.create_database())


def execute(directory: Path, url: str, sql: str) -> None:
    """SQL in the database of a server that is down."""
    if url:
        with contextlib.closing(connect_to_database(target(url, 10.0))) as connection:
            connection.execute(sql)
        return
    with contextlib.closing(sqlite3.connect(directory / "data" / "registry.db")) as connection:
        connection.execute(sql)
        connection.commit()


def test_a_kill_between_registration_and_template_orphans_nothing(tmp_path: Path, url: str) -> None:
    """The row is made what it is at that moment: the template of the CA comes afterwards."""
    own = authority("CA")
    with own_server(tmp_path, url) as server:
        server.iot.create_policy(policyName="p", policyDocument=policy_document(ALLOW_ALL))
        register(server.iot, own)
        mine = device(tmp_path, own, subject("lamp", SERIAL_NUMBER="1"))
        attempt = with_paho(4)
        assert not attempt(server, mine, "lamp")
        server.iot.update_ca_certificate(
            certificateId=own.id,
            registrationConfig={"templateBody": template_body("p"), "roleArn": ROLE},
        )
        server.kill()
        execute(tmp_path, url, "UPDATE certificate SET provisioning_state = 'WAITING'")
        server.start()
        in_the_end(lambda: bool(about(server, mine, "provisioned")))
        assert "event=resumed certificates=1" in server.output()
        assert attempt(server, mine, "lamp")
        assert server.iot.list_thing_principals(thingName="lamp")["principals"] == [mine.arn]


def test_kills_in_a_storm_of_first_connects_orphan_nothing(tmp_path: Path, url: str) -> None:
    own = authority("CA")
    with own_server(tmp_path, url) as server:
        server.iot.create_policy(policyName="p", policyDocument=policy_document(ALLOW_ALL))
        config = {"templateBody": template_body("p"), "roleArn": ROLE}
        register(server.iot, own, registrationConfig=config)
        fleet = [
            device(tmp_path, own, subject(f"lamp-{number}", SERIAL_NUMBER="1"))
            for number in range(40)
        ]

        def first_connect(identity: Identity) -> None:
            with contextlib.suppress(OSError, IndexError):
                knock(server, identity)

        for first in range(0, len(fleet), 20):
            threads = [
                threading.Thread(target=first_connect, args=(each,))
                for each in fleet[first : first + 20]
            ]
            for thread in threads:
                thread.start()
            time.sleep(0.05)
            server.kill()
            for thread in threads:
                thread.join()
            server.start()
        for number, each in enumerate(fleet):
            in_the_end(partial(lets_in, server, each))
            principals = server.iot.list_thing_principals(thingName=f"lamp-{number}")["principals"]
            assert principals == [each.arn]
        listed = everything(server.iot, "list_certificates", "certificates")
        assert {each["certificateId"] for each in listed} == {each.id for each in fleet}
        assert {each["status"] for each in listed} == {"ACTIVE"}
        assert "Traceback" not in server.output()
        resumed = server.output().count("event=resumed")
        print(f"templates were left to the next run of the server {resumed} times")  # noqa: T201

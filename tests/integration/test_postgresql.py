"""A server whose registry is in PostgreSQL, and a database that does not always answer."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from fleetgate.store.libpq import connect
from fleetgate.store.schema import MIGRATIONS
from fleetgate.store.target import target
from tests.integration.fleet import (
    CSR,
    Fleet,
    create_fleet,
    create_role,
    register_topic,
    signing_request,
)
from tests.integration.paho_device import PahoDevice, Refused, onboard
from tests.integration.refusal import everything
from tests.integration.server import Server, run
from tests.integration.test_kill import Acknowledged, whole
from tests.integration.test_process import free_ports, refused_to_start
from tests.postgresql import PASSWORD, QUOTED_PASSWORD, Cluster
from tests.store.version1 import fill_postgres, fill_sqlite

DEVICES = 4
RESTARTS = (signal.SIGQUIT, signal.SIGKILL, signal.SIGINT)
BACK_WITHIN = 60.0
ROUNDS = 2
"""Devices that each thread provisions between two restarts, at least."""


@pytest.fixture(scope="module")
def durable() -> Iterator[Cluster]:
    """A cluster that waits for the disk, and that tests may stop."""
    with Cluster(durable=True) as running:
        yield running


@pytest.fixture
def own(durable: Cluster, tmp_path: Path) -> Iterator[Server]:
    """A server on an empty database of the durable cluster."""
    url = durable.url(durable.create_database())
    with Server(tmp_path / "data", env={"FLEETGATE_DATABASE": url}) as server:
        create_role(server)
        yield server
    assert not leaked(server.output())


def leaked(text: str) -> bool:
    return PASSWORD in text or QUOTED_PASSWORD in text


class Stubborn:
    """A thread that provisions one device after the other and asks again when it is put off."""

    def __init__(self, server: Server, fleet: Fleet, prefix: str) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.put_off: list[str] = []
        self.error: BaseException | None = None
        self._arguments = (server, fleet, prefix)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=prefix)
        self._thread.start()

    def finish(self) -> None:
        self._over.set()
        self._thread.join(2 * BACK_WITHIN)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        server, fleet, prefix = self._arguments
        register = register_topic(fleet.template)
        csr = {"certificateSigningRequest": signing_request(prefix).csr}
        try:
            with PahoDevice(server, fleet.claim, f"claim-{prefix}") as device:
                device.listen(CSR, register)
                for number in range(1_000_000):
                    if self._over.is_set():
                        return
                    made = self._asked(device, CSR, csr)
                    request = {
                        "certificateOwnershipToken": made["certificateOwnershipToken"],
                        "parameters": {"SerialNumber": f"{prefix}-{number}"},
                    }
                    thing = self._asked(device, register, request)["thingName"]
                    self.acknowledged.append(Acknowledged(thing, made["certificateId"]))
        except BaseException as error:
            self.error = error

    def _asked(self, device: PahoDevice, topic: str, body: dict[str, Any]) -> dict[str, Any]:
        until = time.monotonic() + BACK_WITHIN
        while True:
            # the answer to one whose policies have just changed comes when the database is back
            device.send(f"{topic}/json", json.dumps(body).encode())
            message = device.message(BACK_WITHIN)
            reply = json.loads(message.payload)
            if message.topic == f"{topic}/json/accepted":
                assert isinstance(reply, dict)
                return reply
            assert reply["errorCode"] == "TooManyRequests", reply
            assert time.monotonic() < until, reply
            self.put_off.append(reply["errorMessage"])
            time.sleep(0.05)


def _noticed(server: Server, before: int) -> bool:
    return server.output().count("event=database-away") > before


def test_restarts_of_the_database_lose_nothing_that_was_acknowledged(
    durable: Cluster, own: Server, tmp_path: Path
) -> None:
    fleet = create_fleet(own, tmp_path, "restarts")
    provisioners = [Stubborn(own, fleet, str(number)) for number in range(DEVICES)]

    def wait_for(done: Callable[[], bool]) -> None:
        until = time.monotonic() + BACK_WITHIN
        while not done():
            for each in provisioners:
                assert each.error is None, each.error
            assert time.monotonic() < until, own.output()[-2000:]
            time.sleep(0.01)

    def some_more() -> None:
        goals = [(each, len(each.acknowledged) + ROUNDS) for each in provisioners]
        wait_for(lambda: all(len(each.acknowledged) >= goal for each, goal in goals))

    try:
        some_more()
        for number in RESTARTS:
            before = own.output().count("event=database-away")
            durable.stop(number)
            wait_for(partial(_noticed, own, before))
            durable.start()
            some_more()
    finally:
        for provisioner in provisioners:
            provisioner.finish()
    acknowledged = {
        each.thing: each.certificate_id
        for provisioner in provisioners
        for each in provisioner.acknowledged
    }
    names = {entry["thingName"] for entry in everything(own.iot, "list_things", "things")}
    assert names == set(acknowledged)  # each device asked until it had its answer
    for thing in names:
        assert whole(own.iot, thing, fleet.device_policy) == acknowledged[thing]
    assert "Traceback" not in own.output()
    put_off = sum(len(each.put_off) for each in provisioners)
    print(f"{len(acknowledged)} acknowledged, {put_off} put off")  # noqa: T201


def test_while_the_database_is_away_callers_and_devices_are_told_and_then_it_goes_on(
    durable: Cluster, own: Server, tmp_path: Path
) -> None:
    fleet = create_fleet(own, tmp_path, "away")
    identity = onboard(own, fleet, "1", tmp_path / "before")
    durable.stop()
    begun = time.monotonic()
    for operation in (own.iot.list_things, own.iot.create_thing_group):
        arguments = {"thingGroupName": "x"} if operation == own.iot.create_thing_group else {}
        with pytest.raises(ClientError) as caught:
            operation(**arguments)
        assert caught.value.response["Error"]["Code"] == "ServiceUnavailableException"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    with pytest.raises(Refused) as refused, PahoDevice(own, identity, "1"):
        pass
    assert refused.value.code == 0x88  # MQTT 3.1.1: return code 3, which paho calls so
    assert time.monotonic() - begun < 5
    durable.start()
    until = time.monotonic() + BACK_WITHIN
    while True:
        with contextlib.suppress(ClientError):
            own.iot.list_things()
            break
        assert time.monotonic() < until
        time.sleep(0.05)
    onboard(own, fleet, "2", tmp_path / "after")
    assert "Traceback" not in own.output()


def test_the_store_is_named_without_its_password(own: Server, durable: Cluster) -> None:
    assert f"on 127.0.0.1:{durable.port}" in own.output()
    assert not (own.data / "registry.db").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"postgresql://u:{QUOTED_PASSWORD}@127.0.0.1:1/fleet", "`fleet` on 127.0.0.1:1 cannot be"),
        (f"mysql://u:{QUOTED_PASSWORD}@h/d", "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"),
        (f"postgresql://u:{PASSWORD}@h/d", "have to be percent-encoded"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, url: str, said: str
) -> None:
    output = refused_to_start(*free_ports(tmp_path / "data"), "--database", url, cwd=tmp_path)
    assert said in output
    assert output.count("\n") == 1
    assert not leaked(output)


def test_a_registry_belongs_to_one_account(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.url(cluster.create_database())
    with Server(tmp_path / "data", "--database", url):
        pass
    options = [*free_ports(tmp_path / "other"), "--database", url]
    output = refused_to_start(*options, "--account", "111111111111", cwd=tmp_path)
    assert "belongs to account 000000000000, not 111111111111" in output


def test_a_second_server_on_the_database_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.url(cluster.create_database())
    with Server(tmp_path / "data", "--database", url):
        output = refused_to_start(*free_ports(tmp_path / "other"), "--database", url, cwd=tmp_path)
    assert "is in use by another fleetgate process" in output


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_registry_of_version_1_is_migrated_and_served(
    kind: str, cluster: Cluster, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    env = {}
    if kind == "sqlite":
        fill_sqlite(data / "registry.db")
    else:
        env["FLEETGATE_DATABASE"] = url = cluster.url(cluster.create_database())
        with contextlib.closing(connect(target(url, 10.0))) as link:
            fill_postgres(link)
        output = refused_to_start(*free_ports(data), "--database", url, cwd=tmp_path)
        assert "run `fleetgate migrate`" in output
    newest = len(MIGRATIONS)
    for said in (
        f"from schema version 1 to {newest}",
        f"has schema version {newest}: nothing to do",
    ):
        done = run("fleetgate", "migrate", "--data", str(data), cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
        assert not leaked(done.stdout + done.stderr)
    with Server(data, env=env) as server:
        names = [thing["thingName"] for thing in everything(server.iot, "list_things", "things")]
        assert names == ["Pump_1", "pump-10", "pump-2"]
        described = server.iot.describe_thing(thingName="pump-2")
        assert described["attributes"] == {"size": "2"}
        [principal] = server.iot.list_thing_principals(thingName="pump-2")["principals"]
        attached = server.iot.list_attached_policies(target=principal)["policies"]
        assert [policy["policyName"] for policy in attached] == ["fleet"]
        document = server.iot.get_policy(policyName="fleet")["policyDocument"]
        assert json.loads(document)["Version"] == "2012-10-17"
        template = server.iot.describe_provisioning_template(templateName="fleet")
        assert template["enabled"] is True
        policy = server.iot.get_policy(policyName="fleet")["policyArn"]
        assert server.iot.list_tags_for_resource(resourceArn=policy)["tags"] == []
        server.iot.update_thing(thingName="pump-2", attributePayload={"attributes": {"size": "3"}})
        assert server.iot.describe_thing(thingName="pump-2")["version"] == 4


def test_a_sweep_that_the_database_refuses_is_told_and_the_server_goes_on(
    cluster: Cluster, tmp_path: Path
) -> None:
    name = cluster.create_database()
    env = {"FLEETGATE_DATABASE": cluster.url(name), "FLEETGATE_OWNERSHIP_TOKEN_SECONDS": "1"}

    def swept_in_vain(server: Server, times: int) -> None:
        until = time.monotonic() + 10
        while server.output().count("event=not-swept") < times:
            assert time.monotonic() < until, server.output()
            time.sleep(0.05)

    with Server(tmp_path / "data", env=env) as server, cluster.connect(name) as connection:
        for times in (1, 2):
            connection.execute("ALTER TABLE certificate RENAME TO elsewhere")
            swept_in_vain(server, times)
            time.sleep(2.2)
            assert server.output().count("event=not-swept") == times, "once for each cause"
            assert 'relation "certificate" does not exist' in server.output()
            assert server.iot.list_things()["things"] == []
            connection.execute("ALTER TABLE elsewhere RENAME TO certificate")
            time.sleep(2.2)
        assert server.iot.list_certificates()["certificates"] == []
        assert server.terminate() == 0


def test_a_role_that_may_not_use_every_table_is_told_at_the_start(
    cluster: Cluster, tmp_path: Path
) -> None:
    name = cluster.create_database()
    role = f"app_{name}"
    with cluster.connect() as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'".encode())
        connection.execute(f"ALTER DATABASE {name} OWNER TO {role}".encode())
    url = f"postgresql://{role}:x@127.0.0.1:{cluster.port}/{name}"
    with Server(tmp_path / "data", "--database", url):
        pass
    with cluster.connect(name) as connection:
        connection.execute(f"REVOKE DELETE ON thing FROM {role}".encode())
    output = refused_to_start(*free_ports(tmp_path / "data"), "--database", url, cwd=tmp_path)
    assert f"the role `{role}` lacks the right to DELETE on the table `thing`" in output
    assert output.count("\n") == 1


def test_migrate_says_on_standard_error_what_it_waits_for(cluster: Cluster, tmp_path: Path) -> None:
    name = cluster.create_database()
    with contextlib.closing(connect(target(cluster.url(name), 10.0))) as link:
        fill_postgres(link)
    env = {"FLEETGATE_DATABASE": cluster.url(name), "FLEETGATE_DATA": str(tmp_path / "data")}
    with cluster.connect(name) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM certificate")
        timer = threading.Timer(4, other.execute, ["COMMIT"])
        timer.start()
        done = run("fleetgate", "migrate", cwd=tmp_path, env=env)
        timer.join()
    assert done.returncode == 0, done.stderr
    assert "from schema version 1 to" in done.stdout
    assert done.stderr.count("\n") == 1
    assert "waiting for the table `certificate`, in use by process" in done.stderr
    assert not leaked(done.stdout + done.stderr)

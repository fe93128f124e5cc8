"""The life of a connection: admission, keep-alive, sessions, takeover, broken packets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetgate.errors import ServiceUnavailableException
from fleetgate.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Subscribe,
    Subscription,
    Version,
    Will,
)
from fleetgate.operations.identity import Identity
from tests.gateway.running import Credentials, Device, Running, make_credentials

VERSIONS = pytest.mark.parametrize("version", [4, 5])
PERSISTENT: dict[int, dict[str, Any]] = {
    4: {"clean_start": False},
    5: {"clean_start": False, "properties": {"session_expiry_interval": 3600}},
}


def still_serves(running: Running) -> None:
    with running.connect("another") as device:
        device.send(Pingreq())
        device.expect(Pingresp)


# --- before CONNECT -------------------------------------------------------------------------------

GARBAGE = {
    "noise": bytes(range(1, 200)),
    "zeros": bytes(100),
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "publish": b"\x30\x05\x00\x01aaa",
    "ping": b"\xc0\x00",
    "a huge connect": b"\x10\xff\xff\x7f",
    "a broken connect": b"\x10\x05\x00\x04MQT",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_instead_of_connect_closes_the_connection(
    running: Running, log: list[str], data: bytes
) -> None:
    with running.raw() as device:
        device.socket.sendall(data)
        if data == GARBAGE["a broken connect"]:
            device.socket.sendall(b"Tx")
        assert device.socket.recv(100) == b""
    running.eventually(lambda: len(running.gateway) == 0)
    lines = [line for line in log if running.device.certificate_id in line]
    assert len(lines) == 1
    assert lines[0].startswith("event=refused")
    still_serves(running)


def test_a_connect_of_more_than_64_kilobytes_is_refused(running: Running) -> None:
    """A budget for those who have not shown yet who they are."""
    with running.raw() as device:
        device.socket.sendall(b"\x10\x80\x80\x04" + b"\x00\x04MQTT")
        assert device.socket.recv(100) == b""


def test_connect_has_to_come_in_time(running: Running, log: list[str]) -> None:
    with running.raw() as device:
        running.eventually(lambda: len(running.gateway) == 1)
        running.advance(8)
        running.advance(3)
        assert device.socket.recv(100) == b""
    assert any("not connected in time" in line for line in log)


# --- admission ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "code"), [(4, 5), (5, 0x87)])
def test_a_certificate_that_is_not_admitted_is_refused(
    running: Running, log: list[str], version: Version, code: int
) -> None:
    running.registry.clear()
    with running.raw() as device:
        device.send(Connect("lamp", version=version))
        connack = device.expect(Connack)
        assert connack.reason_code == code
        if version == 5:
            assert "is not registered" in connack.properties["reason_string"]
        assert device.is_closed()
    (line,) = [line for line in log if line.startswith("event=refused")]
    for word in ("client='lamp'", running.device.certificate_id, "peer=127.0.0.1:", "registered"):
        assert word in line


@pytest.mark.parametrize(("version", "code"), [(4, 3), (5, 0x88)])
def test_a_registry_that_is_away_lets_nobody_in_and_says_so(
    running: Running, log: list[str], version: Version, code: int
) -> None:
    async def away() -> None:
        raise ServiceUnavailableException("the database cannot be reached")

    running.before_admission = away
    with running.raw() as device:
        device.send(Connect("lamp", version=version))
        assert device.expect(Connack).reason_code == code
        assert device.is_closed()
    assert any("cannot be reached" in line for line in log)


@pytest.mark.parametrize(("version", "code"), [(4, 3), (5, 0x80)])
def test_a_registry_that_fails_lets_nobody_in(
    running: Running, version: Version, code: int
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    running.before_admission = broken
    with running.raw() as device:
        device.send(Connect("lamp", version=version))
        assert device.expect(Connack).reason_code == code


def test_packets_that_come_with_connect_are_handled_after_it(running: Running) -> None:
    with running.raw() as device:
        device.send(
            Connect("lamp"),
            Subscribe(1, (Subscription("a", 1),)),
            Publish("a", b"1", 1, packet_id=2),
        )
        kinds = [type(device.next()).__name__ for _ in range(4)]
    assert kinds == ["Connack", "Suback", "Puback", "Publish"]


def test_a_registry_that_takes_too_long_ends_the_connection(running: Running) -> None:
    async def slow() -> None:
        await asyncio.Event().wait()

    running.before_admission = slow
    with running.raw() as device:
        device.send(Connect("lamp", version=5), Pingreq())
        running.eventually(lambda: len(running.gateway) == 1)
        time.sleep(0.05)
        running.advance(8)
        running.advance(3)
        assert device.expect(Connack).reason_code == 0x80
        assert device.is_closed()


def test_a_client_that_goes_during_admission_leaves_nothing_behind(running: Running) -> None:
    release = running.do(asyncio.Event)

    async def wait() -> None:
        await release.wait()

    running.before_admission = wait
    with running.raw() as device:
        device.send(Connect("lamp", clean_start=False))
        time.sleep(0.05)
    running.do(release.set)
    running.eventually(lambda: len(running.gateway) == 0)


def test_a_certificate_deactivated_during_admission_is_not_let_in(running: Running) -> None:
    """Found ACTIVE, then deactivated, and only then open: the gateway has to have noticed."""
    release = running.do(asyncio.Event)
    reached = running.do(asyncio.Event)

    async def wait() -> None:
        reached.set()
        await release.wait()

    running.before_policies = wait
    with running.raw() as device:
        device.send(Connect("lamp", version=5))
        running.eventually(reached.is_set)
        running.do(lambda: running.gateway.disconnect_certificate(running.device.certificate_id))
        running.do(release.set)
        assert device.expect(Connack).reason_code == 0x87
        assert device.is_closed()


# --- policies -------------------------------------------------------------------------------------


def test_a_server_whose_policies_change_all_the_time_goes_on_working(running: Running) -> None:
    async def change() -> None:
        running.epoch += 1

    running.before_policies = change
    with running.connect() as device:
        device.subscribe("a")
        for number in range(5):
            device.publish("a", bytes([number]))
            assert device.message().payload == bytes([number])
        device.send(*(Publish("a", bytes([number])) for number in range(50)))
        assert [device.message().payload[0] for _ in range(50)] == list(range(50))


def test_messages_wait_while_policies_are_loaded(running: Running) -> None:
    release = running.do(asyncio.Event)

    async def wait() -> None:
        await release.wait()

    with running.connect("lamp") as lamp, running.connect("door") as door:
        door.subscribe("a")
        lamp.publish("a", b"0")
        door.message()
        running.epoch += 1
        running.before_policies = wait
        lamp.send(Publish("a", b"1"), Publish("a", b"2", 1, packet_id=9))
        assert lamp.silent(0.05)
        assert door.silent(0.05)
        running.do(release.set)
        lamp.expect(Puback)
        assert [door.message().payload for _ in range(2)] == [b"1", b"2"]


def test_policies_that_cannot_be_loaded_end_the_connection(running: Running) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    with running.connect("lamp", 5) as device:
        running.before_policies = broken
        running.epoch += 1
        device.send(Pingreq())
        assert device.expect(Disconnect).reason_code == 0x80
        assert device.is_closed()


def test_a_registry_that_is_away_when_policies_changed_is_waited_for(running: Running) -> None:
    tries = itertools.count(1)

    async def away() -> None:
        if next(tries) < 3:
            raise ServiceUnavailableException("the database cannot be reached")

    with running.connect("lamp", 5) as device:
        running.before_policies = away
        running.epoch += 1
        device.send(Pingreq())
        device.expect(Pingresp)
    assert next(tries) == 4


@VERSIONS
def test_a_certificate_that_expires_ends_its_connections(
    running: Running, version: Version
) -> None:
    name = running.device.certificate_id
    running.registry[name] = Identity(name, None, time.time() + 300)
    with running.connect("lamp", version, keep_alive=1200) as device:
        running.advance(290)
        device.send(Pingreq())
        device.expect(Pingresp)
        running.advance(11)
        if version == 5:
            farewell = device.expect(Disconnect)
            assert farewell.reason_code == 0x87
            assert "expired" in farewell.properties["reason_string"]
        assert device.is_closed()


def test_an_expired_certificate_does_nothing_more(running: Running) -> None:
    """Even before the second hand has noticed."""
    name = running.device.certificate_id
    running.registry[name] = Identity(name, None, time.time() + 300)
    with running.connect("lamp", 5) as device, running.connect("door") as door:
        door.subscribe("a")
        running.ahead += 301
        device.send(Publish("a", b"late"))
        assert device.expect(Disconnect).reason_code == 0x87
        assert door.silent(0.05)


# --- keep-alive -----------------------------------------------------------------------------------


@VERSIONS
def test_a_silent_client_is_dropped_after_one_and_a_half_keep_alive(
    running: Running, log: list[str], version: Version
) -> None:
    """MQTT-3.1.2-24 (3.1.1), MQTT-3.1.2-22 (5.0)."""
    with running.connect("lamp", version, keep_alive=60) as device:
        running.advance(80)
        device.send(Pingreq())
        device.expect(Pingresp)
        running.advance(88)
        device.send(Pingreq())
        device.expect(Pingresp)
        running.advance(92)
        if version == 5:
            assert device.expect(Disconnect).reason_code == 0x8D
        assert device.is_closed()
    assert any("keep-alive timeout" in line for line in log)


def test_any_packet_keeps_the_connection_alive(running: Running) -> None:
    with running.connect(keep_alive=30) as device:
        for _ in range(10):
            running.advance(40)
            device.publish("a", qos=1)


# --- sessions -------------------------------------------------------------------------------------


@VERSIONS
def test_messages_missed_are_delivered_on_return(running: Running, version: Version) -> None:
    with running.connect("lamp", version, **PERSISTENT[version]) as lamp:
        assert not lamp.connack.session_present
        lamp.subscribe("a")
        lamp.send(Disconnect())
        assert lamp.is_closed()
    with running.connect("door") as door:
        door.publish("a", b"1")
        door.publish("a", b"lost", qos=0)
        door.publish("a", b"2")
    with running.connect("lamp", version, **PERSISTENT[version]) as lamp:
        assert lamp.connack.session_present
        assert [lamp.message().payload for _ in range(2)] == [b"1", b"2"]
        assert lamp.silent(0.05)


@VERSIONS
def test_what_was_not_acknowledged_is_delivered_again(running: Running, version: Version) -> None:
    with running.connect("lamp", version, **PERSISTENT[version]) as lamp:
        lamp.subscribe("a")
        for number in range(3):
            lamp.publish("a", bytes([number]))
            lamp.message(acknowledge=number == 1)
    with running.connect("lamp", version, **PERSISTENT[version]) as lamp:
        again = [lamp.message() for _ in range(2)]
        assert [message.payload for message in again] == [b"\0", b"\2"]
        assert not any(message.dup for message in again)
        assert lamp.silent(0.05)
    with running.connect("lamp", version, **PERSISTENT[version]) as lamp:
        assert lamp.silent(0.05)


def test_a_3_1_1_session_is_kept_for_an_hour(running: Running) -> None:
    """AWS IoT Core quotas, "Persistent session expiry period"."""
    for pause, present in ((3590, True), (3610, False)):
        running.connect("lamp", clean_start=False).socket.close()
        running.eventually(lambda: len(running.gateway) == 0)
        running.advance(pause)
        with running.connect("lamp", clean_start=False) as lamp:
            assert lamp.connack.session_present is present


def test_an_expired_message_is_not_delivered(running: Running) -> None:
    with running.connect("lamp", 5, **PERSISTENT[5]) as lamp:
        lamp.subscribe("a")
    with running.connect("door", 5, keep_alive=1200) as door:
        door.publish("a", b"short", message_expiry_interval=10)
        door.publish("a", b"long", message_expiry_interval=100)
        running.advance(50)
    with running.connect("lamp", 5, **PERSISTENT[5]) as lamp:
        message = lamp.message()
        assert message.payload == b"long"
        assert message.properties["message_expiry_interval"] in (49, 50)


def test_the_receive_maximum_of_the_client_is_respected(running: Running) -> None:
    with running.connect("lamp", 5, properties={"receive_maximum": 2}) as lamp:
        lamp.subscribe("a")
        with running.connect("door") as door:
            for number in range(4):
                door.publish("a", bytes([number]))
        first = [lamp.message(acknowledge=False) for _ in range(2)]
        assert lamp.silent()
        assert first[0].packet_id is not None
        lamp.send(Puback(first[0].packet_id))
        assert lamp.message(acknowledge=False).payload == b"\2"
        assert lamp.silent(0.05)


def test_at_most_100_messages_wait_for_acknowledgement(running: Running) -> None:
    """AWS IoT Core quotas, "Outbound unacknowledged QoS 1 publish requests"."""
    with running.connect("lamp") as lamp, running.connect("door") as door:
        lamp.subscribe("a")
        for _ in range(110):
            door.publish("a")
        for _ in range(100):
            lamp.message(acknowledge=False)
        assert lamp.silent()


def test_a_message_larger_than_the_client_takes_is_left_out(running: Running) -> None:
    """MQTT 5.0 section 3.1.2.11.4."""
    with running.connect("lamp", 5, properties={"maximum_packet_size": 1000}) as lamp:
        lamp.subscribe("a")
        with running.connect("door") as door:
            door.publish("a", bytes(1000))
            door.publish("a", b"small")
        assert lamp.message().payload == b"small"


def test_a_client_that_does_not_read_loses_qos_0_and_keeps_qos_1(running: Running) -> None:
    with running.connect("lamp") as lamp, running.connect("door") as door:
        lamp.subscribe("a")
        for number in range(300):
            door.publish("a", bytes([number % 256]) * 100_000, qos=0)
        door.publish("a", b"kept")
        door.send(Pingreq())
        door.expect(Pingresp)
        received = 0
        while (message := lamp.message()).payload != b"kept":
            assert message.qos == 0
            received += 1
        assert 0 < received < 300


# --- takeover -------------------------------------------------------------------------------------


@VERSIONS
def test_a_second_connection_takes_the_client_id_over(
    running: Running, log: list[str], version: Version
) -> None:
    with running.connect("lamp", version, **PERSISTENT[version]) as first:
        first.subscribe("a")
        with running.connect("lamp", version, **PERSISTENT[version]) as second:
            assert second.connack.session_present
            if version == 5:
                assert first.expect(Disconnect).reason_code == 0x8E
            assert first.is_closed()
            second.publish("a")
            second.message()
    assert any("used by another connection" in line for line in log)


def test_who_may_not_connect_cannot_take_over(running: Running) -> None:
    with running.connect("lamp") as first:
        running.allow("Allow Connect client/other", "Allow Publish topic/*")
        with running.raw() as thief:
            thief.send(Connect("lamp"))
            assert thief.expect(Connack).reason_code == 5
        first.publish("a")


def test_many_connections_with_one_client_id_leave_one(running: Running) -> None:
    devices = [running.raw() for _ in range(10)]
    for device in devices:
        device.send(Connect("lamp"))
    for device in devices:
        device.expect(Connack)
    running.eventually(lambda: _open(running) == 1)
    for device in devices:
        device.socket.close()


def _open(running: Running) -> int:
    shared = running.gateway._shared
    return sum(len(members) for members in shared.by_certificate.values())


# --- broken packets -------------------------------------------------------------------------------

BROKEN = {
    "reserved packet type": (b"\x00\x00", 0x81),
    "wrong flags": (b"\xc1\x00", 0x81),
    "second connect": (None, 0x82),
    "a server's packet": (b"\xd0\x00", 0x82),
    "publish with a wildcard": (b"\x30\x05\x00\x03a/+", 0x81),
    "packet id 0": (b"\x32\x05\x00\x01a\x00\x00", 0x81),
    "invalid utf-8": (b"\x30\x04\x00\x02\xff\xfe", 0x81),
    "subscribe without filter": (b"\x82\x02\x00\x01", 0x81),
}


@VERSIONS
@pytest.mark.parametrize(("data", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_packet_ends_the_connection(
    running: Running, version: Version, data: bytes | None, reason: int
) -> None:
    with running.connect("lamp", version) as device:
        if data is None:
            data = _bytes_of(lambda core: core.send(Connect("lamp", version=version)), device)
        device.socket.sendall(data)
        if version == 5:
            assert device.expect(Disconnect).reason_code in (0x81, 0x82, 0x90, reason)
        assert device.is_closed()
    still_serves(running)


def _bytes_of(make: Callable[..., bytes], device: Device) -> bytes:
    return make(type(device.core)(device.core.role))


def test_a_will_is_published_when_the_client_breaks_the_protocol(running: Running) -> None:
    with running.connect("door") as door:
        door.subscribe("wills/+")
        with running.connect("lamp", will=Will("wills/lamp", b"gone")) as lamp:
            lamp.socket.sendall(b"\x00\x00")
            assert door.message().payload == b"gone"


# --- temporary claims -------------------------------------------------------------------------


@pytest.fixture
def claim(running: Running, tmp_path: Path) -> Credentials:
    """A temporary provisioning claim."""
    made = make_credentials(tmp_path, "claim")
    running.register(made)
    name = made.certificate_id
    running.registry[name] = Identity(name, "template", time.time() + 300)
    return made


@VERSIONS
@pytest.mark.parametrize("clean", [False, True])
def test_a_temporary_claim_does_not_get_at_the_session_of_a_device(
    running: Running, log: list[str], claim: Credentials, version: Version, clean: bool
) -> None:
    def refused() -> None:
        with running.raw(claim) as thief:
            thief.send(Connect("lamp", clean_start=clean, version=version))
            assert thief.expect(Connack).reason_code == (5 if version == 4 else 0x87)
            assert thief.is_closed()

    with running.connect("lamp", version, **PERSISTENT[version]) as lamp:
        lamp.subscribe("a")
        refused()
        lamp.send(Pingreq())
        lamp.expect(Pingresp)
        lamp.send(Disconnect())
        assert lamp.is_closed()
    with running.connect("door") as door:
        door.publish("a", b"kept")
    refused()
    with running.connect("lamp", version, **PERSISTENT[version]) as lamp:
        assert lamp.connack.session_present
        assert lamp.message().payload == b"kept"
    refusals = [line for line in log if "temporary claim" in line]
    assert len(refusals) == 2
    assert all(f"certificate={claim.certificate_id} claim-of=template " in it for it in refusals)


def test_lines_about_a_temporary_claim_say_so(
    running: Running, log: list[str], claim: Credentials
) -> None:
    with running.connect("lamp", credentials=claim) as lamp:
        lamp.subscribe("$share/group/a")
        lamp.send(Disconnect())
        assert lamp.is_closed()
    with running.connect("door") as door:
        door.send(Disconnect())
        assert door.is_closed()
    about = [line for line in log if claim.certificate_id in line]
    assert [line.split()[0] for line in about] == [
        "event=connected",
        "event=subscribe-refused",
        "event=disconnected",
    ]
    assert all(f"certificate={claim.certificate_id} claim-of=template " in it for it in about)
    others = [line for line in log if running.device.certificate_id in line]
    assert others
    assert not any("claim-of" in line for line in others)


@VERSIONS
def test_a_temporary_claim_has_no_persistent_session(
    running: Running, claim: Credentials, version: Version
) -> None:
    options = {"credentials": claim, **PERSISTENT[version]}
    with running.connect("lamp", version, **options) as first:
        first.subscribe("a")
        if version == 5:
            assert first.connack.properties["session_expiry_interval"] == 0
            first.send(Disconnect(0, {"session_expiry_interval": 100}))
            assert first.is_closed()
    running.eventually(lambda: len(running.gateway) == 0)
    with running.connect("lamp", version, **options) as again:
        assert not again.connack.session_present
        with running.connect("lamp", version, **options):  # its own client id
            pass
    running.eventually(lambda: len(running.gateway) == 0)
    with running.connect("lamp", version):  # the device it has become
        pass


# --- fairness -------------------------------------------------------------------------------------

FLOODS = {
    "messages for nobody": b"\x30\x05\x00\x01axy" * 500_000,
    "pings": b"\xc0\x00" * 500_000,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_tiny_packets_does_not_stop_the_others(running: Running, flood: bytes) -> None:
    with running.connect("lamp") as lamp:
        lamp.socket.settimeout(30)

        def send() -> None:
            with contextlib.suppress(OSError):
                lamp.socket.sendall(flood)

        def drain() -> None:
            with contextlib.suppress(OSError):
                while lamp.socket.recv(1 << 16):
                    pass

        threads = [threading.Thread(target=each) for each in (send, drain)]
        for each in threads:
            each.start()
        worst = 0.0
        while threads[0].is_alive():
            begin = time.monotonic()
            with running.connect("door") as door:
                door.send(Pingreq())
                door.expect(Pingresp)
            worst = max(worst, time.monotonic() - begin)
        lamp.socket.shutdown(socket.SHUT_RDWR)
        for each in threads:
            each.join()
        assert worst < 0.6


def test_a_message_to_many_is_a_turn_of_its_own(running: Running) -> None:
    """The work is in the subscribers, not in the bytes of the publisher."""
    turns: list[float] = []

    def turn() -> None:
        turns.append(time.monotonic())
        if turns[0] >= 0:
            asyncio.get_running_loop().call_soon(turn)

    with contextlib.ExitStack() as stack:
        for number in range(40):
            stack.enter_context(running.connect(f"door{number}")).subscribe("a", qos=0)
        lamp = stack.enter_context(running.connect("lamp"))
        running.do(turn)
        lamp.socket.sendall(b"\x30\x04\x00\x01ax" * 600)
        lamp.send(Pingreq())
        lamp.expect(Pingresp)
        running.do(lambda: turns.__setitem__(0, -1.0))
    gaps = [after - before for before, after in itertools.pairwise(turns[1:])]
    assert max(gaps) < 0.1


@VERSIONS
def test_acknowledgements_of_nothing_end_the_connection(
    running: Running, log: list[str], version: Version
) -> None:
    puback = b"\x40\x02\x00\x01"
    with running.connect("lamp", version) as lamp:
        lamp.socket.sendall(puback * 100)  # left over from another connection, perhaps
        lamp.send(Pingreq())
        lamp.expect(Pingresp)
        lamp.socket.sendall(puback)
        if version == 5:
            assert lamp.expect(Disconnect).reason_code == 0x82
        assert lamp.is_closed()
    assert any("more than 100 acknowledgements of what was never sent" in line for line in log)

"""Faults happen to packets and connections, one packet at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetgate.errors import InvalidFaultScript
from fleetgate.gateway.fault_reading import parse_script
from fleetgate.gateway.fault_script import Event
from fleetgate.gateway.faults import MAX_INJECTIONS, MAX_SCRIPTS, Faults
from fleetgate.gateway.services import ProvisioningRequest, Reply
from fleetgate.mqtt.codec import encode
from fleetgate.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Version,
)
from fleetgate.server import load_provisioning_model
from tests.gateway.running import CREATE, Device, Running, log_lines

VERSIONS = pytest.mark.parametrize("version", [4, 5])
ACCEPTED = CREATE + "/accepted"
TOKEN_SECONDS = 3600.0
MODEL = load_provisioning_model()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    made.faults = Faults(MODEL, TOKEN_SECONDS, lambda: 1.5e9)
    with made:
        yield made


def script(running: Running, *faults: str, seed: int = 0) -> None:
    """Each of `faults` is ``on do``, then ``key=value`` with TOML values."""
    lines = [f"seed = {seed}"]
    for each in faults:
        on, do, *rest = each.split()
        lines += ["[[fault]]", f"on = '{on}'", f"do = '{do}'", *rest]
    faulty = running.faults
    assert faulty is not None
    read = parse_script("\n".join(lines))
    running.do(lambda: faulty.put("t", read))


def done(running: Running) -> list[tuple[str, str]]:
    """What has happened: (do, moment)."""
    assert running.faults is not None
    state = running.faults.describe("t")
    assert state is not None
    return [(each["do"], each["moment"]) for each in state["injections"]]


def try_to_connect(running: Running, version: Version = 4) -> Device:
    device = Device(running.address, running.device, running.server)
    device.send(Connect("lamp", version=version))
    return device


def was_reset(device: Device) -> bool:
    """The connection has ended by RST: nothing can be sent, as it can after FIN."""
    assert device.is_closed()
    try:
        os.write(device.socket.fileno(), b"x")
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


# --- connect ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "return_code"),
    [(0x84, 1), (0x85, 2), (0x80, 3), (0x88, 3), (0x97, 3), (0x86, 5), (0x87, 5), (0x9F, 5)],
)
def test_a_connection_is_refused(running: Running, code: int, return_code: int) -> None:
    script(running, f"connect refuse code={code} times=2")
    answers: list[tuple[Version, int]] = [(4, return_code), (5, code)]
    for version, said in answers:
        with try_to_connect(running, version) as device:
            assert device.expect(Connack).reason_code == said
            assert device.is_closed()
    with running.connect():
        pass


@pytest.mark.parametrize("moment", ["request", "reply", "after"])
@pytest.mark.parametrize("do", ["disconnect", "reset"])
@VERSIONS
def test_the_connection_ends_while_it_begins(
    running: Running, do: str, moment: str, version: Version
) -> None:
    script(running, f"connect {do} moment='{moment}' times=1")
    with try_to_connect(running, version) as device:
        if moment == "after":
            assert device.expect(Connack).reason_code == 0
        assert was_reset(device) if do == "reset" else device.is_closed()
    assert done(running) == [(do, moment)]
    with running.connect(version=version) as device:
        device.subscribe("a")


@pytest.mark.parametrize("moment", ["request", "reply"])
def test_connack_is_late(running: Running, moment: str) -> None:
    script(running, f"connect delay moment='{moment}' seconds=0.15")
    begun = time.monotonic()
    with running.connect():
        assert 0.14 <= time.monotonic() - begun < 5


def test_a_connack_that_is_lost_has_nothing_behind_it(running: Running) -> None:
    with running.connect("lamp", 5, clean_start=False, properties=STAYS) as device:
        device.subscribe("news")
    script(running, "connect drop client='lamp'")
    with running.connect("other") as other, try_to_connect(running, 5) as device:
        other.publish("news", b"new")
        assert device.silent()


STAYS = {"session_expiry_interval": 60}


def test_a_connect_that_is_lost_ends_by_the_time_out(running: Running) -> None:
    script(running, "connect drop moment='request'")
    with try_to_connect(running) as device:
        assert device.silent()
        running.advance(11)
        device.socket.settimeout(5)
        device.next()  # CONNACK with the time-out, or nothing
        assert device.is_closed()


# --- subscribe and publish -------------------------------------------------------------------


@pytest.mark.parametrize(("version", "code"), [(4, 0x80), (5, 0x97)])
def test_one_of_three_subscriptions_is_refused(
    running: Running, version: Version, code: int
) -> None:
    script(running, "subscribe refuse topic='b*' code=0x97")
    with running.connect(version=version) as device:
        assert device.subscribe("a", "b/1", "c", qos=0) == (0, code, 0)
        assert device.subscribe("b/1") == (code,)
        device.publish("b/1")
        assert device.silent()
        device.publish("c")
        assert device.message().topic == "c"


@pytest.mark.parametrize("kind", ["subscribe", "publish"])
@pytest.mark.parametrize("moment", ["request", "reply"])
def test_a_packet_or_its_answer_is_lost(running: Running, kind: str, moment: str) -> None:
    with running.connect() as device, running.connect("other") as other:
        script(running, f"{kind} drop moment='{moment}' times=1 client='lamp'")
        if kind == "subscribe":
            device.send(Subscribe(9, (Subscription("news", 0),)))
            other.publish("news")
            assert device.silent() is (moment == "request")
            assert device.subscribe("more") == (1,)
        else:
            other.subscribe("news")
            device.send(Publish("news", b"1", 1, packet_id=9))
            if moment == "reply":
                assert other.message().payload == b"1"
            # a client that sends it again does it like this
            again = Publish("news", b"1", 1, dup=True, packet_id=9)
            device.socket.sendall(encode(again, 4))
            assert device.expect(Puback).packet_id == 9
            assert other.message().payload == b"1"
            assert other.silent()


@pytest.mark.parametrize(("kind", "topic"), [("subscribe", "news"), ("publish", "news")])
@pytest.mark.parametrize("moment", ["request", "reply", "after"])
@pytest.mark.parametrize("do", ["disconnect", "reset"])
def test_the_connection_ends_around_a_packet(
    running: Running, kind: str, topic: str, moment: str, do: str
) -> None:
    script(running, f"{kind} {do} topic='{topic}' moment='{moment}'")
    with running.connect(version=5) as device:
        if kind == "subscribe":
            device.send(Subscribe(9, (Subscription(topic, 1),)))
        else:
            device.send(Publish(topic, b"1", 1, packet_id=9))
        if moment == "after":
            device.expect(Suback if kind == "subscribe" else Puback)
        assert was_reset(device) if do == "reset" else device.is_closed()
    assert done(running) == [(do, moment)]


def test_a_message_is_processed_although_its_puback_is_not_sent(running: Running) -> None:
    script(running, "publish disconnect client='lamp'")
    with running.connect("other") as other, running.connect() as device:
        other.subscribe("news")
        device.send(Publish("news", b"1", 1, packet_id=9))
        assert device.is_closed()
        assert other.message().payload == b"1"


def test_a_farewell_has_the_code(running: Running) -> None:
    script(running, "publish disconnect moment='after' code=0x8b")
    with running.connect(version=5) as device:
        device.publish("news")
        assert device.expect(Disconnect).reason_code == 0x8B
        assert device.is_closed()
    with running.connect() as device:
        device.publish("news")
        assert device.is_closed()


def test_a_farewell_is_said_instead_of_the_reply(running: Running) -> None:
    script(running, "subscribe disconnect code=0x89")
    with running.connect(version=5) as device:
        device.send(Subscribe(9, (Subscription("a", 1),)))
        assert device.expect(Disconnect).reason_code == 0x89
        assert device.is_closed()


def test_an_end_may_come_later(running: Running) -> None:
    script(running, "subscribe disconnect moment='after' seconds=0.2")
    with running.connect() as device:
        begun = time.monotonic()
        device.subscribe("a")
        device.publish("b")
        assert device.is_closed()
        assert 0.19 <= time.monotonic() - begun < 5


@pytest.mark.parametrize("kind", ["subscribe", "publish"])
def test_an_acknowledgement_is_late_and_nothing_overtakes_it(running: Running, kind: str) -> None:
    script(running, f"{kind} delay seconds=0.15")
    with running.connect() as device:
        begun = time.monotonic()
        if kind == "subscribe":
            device.send(Subscribe(9, (Subscription("a", 1),)), Pingreq())
            device.expect(Suback)
        else:
            device.send(Publish("a", b"1", 1, packet_id=9), Pingreq())
            device.expect(Puback)
        assert 0.14 <= time.monotonic() - begun < 5
        device.expect(Pingresp)


def test_a_line_that_is_held_keeps_no_more_than_so_much(running: Running) -> None:
    script(running, "subscribe delay seconds=60 topic='b'")
    with running.connect() as device, running.connect("other") as other:
        device.subscribe("a", qos=0)
        device.send(Subscribe(9, (Subscription("b", 1),)))
        for _ in range(9):
            other.publish("a", b"x" * 131_000)
        assert device.is_closed()


@pytest.mark.parametrize("qos", [0, 1])
@VERSIONS
def test_a_message_is_refused(running: Running, version: Version, qos: int) -> None:
    script(running, "publish refuse code=0x97 topic='a' times=1")
    with running.connect("other") as other, running.connect(version=version) as device:
        other.subscribe("a")
        device.send(Publish("a", b"1", qos, packet_id=9 if qos else None))
        if version == 5 and qos:
            refused = device.expect(Puback)
            assert (refused.packet_id, refused.reason_code) == (9, 0x97)
            assert "fault 1 of the fault script `t`" in refused.properties["reason_string"]
            device.publish("a", b"2")
            assert other.message().payload == b"2"
        else:
            assert version == 4 or device.expect(Disconnect).reason_code == 0x97
            assert device.is_closed()
            assert other.silent()


# --- requests --------------------------------------------------------------------------------


class Requests:
    """A provisioning operation that remembers what it was asked."""

    def __init__(self, running: Running) -> None:
        self.seen: list[ProvisioningRequest] = []
        running.answer = self.answer

    async def answer(self, request: ProvisioningRequest) -> Reply:
        self.seen.append(request)
        return Reply(request.topic + "/accepted", b'{"thingName":"lamp"}')


REGISTER = "$aws/provisioning-templates/t/provision/json"


@pytest.mark.parametrize("moment", ["request", "reply", "after"])
@pytest.mark.parametrize("do", ["disconnect", "reset"])
@VERSIONS
def test_the_connection_ends_between_the_steps(
    running: Running, version: Version, do: str, moment: str
) -> None:
    requests = Requests(running)
    script(running, f"RegisterThing {do} moment='{moment}' template='t'")
    with running.connect(version=version) as device:
        device.subscribe(REGISTER + "/accepted")
        device.send(Publish(REGISTER, b"{}"))
        if moment == "after":
            assert device.expect(Publish).payload == b'{"thingName":"lamp"}'
        assert was_reset(device) if do == "reset" else device.is_closed()
    assert len(requests.seen) == (moment != "request")
    assert done(running) == [(do, moment)]


def test_a_clock_is_ahead_for_one_request(running: Running) -> None:
    requests = Requests(running)
    script(
        running,
        "RegisterThing clock-skew seconds=-90 times=2",
        "RegisterThing expire-token nth=2 times=1",
    )
    with running.connect() as device:
        device.subscribe(REGISTER + "/accepted")
        for _ in range(3):
            device.publish(REGISTER, b"{}")
            device.message()
    skews = [each.clock_skew for each in requests.seen]
    assert skews == [-90, -90 + TOKEN_SECONDS + 1, 0]


def test_throttled_after_the_work_is_done(running: Running) -> None:
    requests = Requests(running)
    script(running, "RegisterThing throttle moment='reply' message='slower'")
    with running.connect() as device:
        device.subscribe(REGISTER + "/accepted", REGISTER + "/rejected")
        device.publish(REGISTER, b"{}")
        reply = device.message()
        assert reply.topic == REGISTER + "/rejected"
        assert reply.payload == (
            b'{"statusCode":429,"errorCode":"TooManyRequests","errorMessage":"slower"}'
        )
    assert len(requests.seen) == 1


def test_many_copies_with_a_pause(running: Running) -> None:
    requests = Requests(running)
    script(running, "RegisterThing duplicate copies=3 seconds=0.1")
    with running.connect() as device:
        device.subscribe(REGISTER + "/accepted")
        device.publish(REGISTER, b"{}")
        begun = time.monotonic()
        copies = [device.message() for _ in range(3)]
        assert 0.19 <= time.monotonic() - begun < 5
        assert device.silent()
        assert {each.payload for each in copies} == {b'{"thingName":"lamp"}'}
        assert len({each.packet_id for each in copies}) == 3
    assert len(requests.seen) == 1


def test_who_goes_is_not_waited_for(running: Running) -> None:
    requests = Requests(running)
    script(running, "RegisterThing delay moment='request' seconds=60")
    with running.connect() as device:
        device.publish(REGISTER, b"{}")
        running.eventually(lambda: len(done(running)) == 1)
    running.eventually(lambda: len(requests.seen) == 1)


def test_slow_requests_keep_nobody_elses_turn(running: Running) -> None:
    """At most 64 requests of a certificate are carried out at a time."""
    requests = Requests(running)
    script(running, "RegisterThing delay moment='request' seconds=60 client='slow*'")
    slow = [running.connect(f"slow{number}") for number in range(66)]
    try:
        for each in slow:
            each.publish(REGISTER, b"{}")
        running.eventually(lambda: len(done(running)) == 66)
        with running.connect() as device:
            device.publish(REGISTER, b"{}")
            running.eventually(lambda: len(requests.seen) == 1)
    finally:
        for each in slow:
            each.socket.close()


# --- the scripts of a server -----------------------------------------------------------------


def test_scripts_of_others_and_no_script_change_nothing(running: Running) -> None:
    requests = Requests(running)
    script(running, "connect refuse client='other'", "RegisterThing drop client='other'")
    with running.connect() as device:
        device.subscribe(REGISTER + "/accepted")
        device.publish(REGISTER, b"{}")
        assert device.message().topic == REGISTER + "/accepted"
    assert done(running) == []
    assert len(requests.seen) == 1


def test_each_fault_is_logged_with_its_script(running: Running) -> None:
    script(running, "subscribe delay seconds=[0.0,0.01] topic='a?b'")
    with log_lines("fleetgate.faults") as log, running.connect() as device:
        device.subscribe("a b")
    [line] = [line for line in log if "event=fault " in line]
    certificate = running.device.certificate_id
    assert line.startswith(
        "event=fault script='t' fault=1 do=delay on=subscribe moment=reply client='lamp' "
        f"certificate={certificate} count=1 topic=`a b` seconds=0.00"
    )
    assert running.faults is not None
    state = running.faults.describe("t")
    assert state is not None
    [noted] = state["injections"]
    assert noted.pop("seconds") < 0.01
    assert noted == {
        "fault": 1,
        "do": "delay",
        "on": "subscribe",
        "moment": "reply",
        "client": "lamp",
        "certificate": certificate,
        "count": 1,
        "topic": "a b",
        "time": "2017-07-14T02:40:00.000+00:00",
    }


def test_what_is_kept_has_a_bound() -> None:
    faults = Faults(MODEL, TOKEN_SECONDS, time.time)
    for number in range(MAX_SCRIPTS):
        faults.put(f"s{number}", parse_script(""))
    with pytest.raises(InvalidFaultScript, match="1000 scripts already"):
        faults.put("another", parse_script(""))
    faults.put("s0", parse_script("[[fault]]\non = 'connect'\ndo = 'drop'"))
    event = Event("connect", "reply", "lamp", "ab")
    for _ in range(MAX_INJECTIONS + 7):
        assert [each.script for each in faults.at(event)] == ["s0"]
    state = faults.describe("s0")
    assert state is not None
    assert len(state["injections"]) == MAX_INJECTIONS
    assert state["forgotten"] == 7
    assert state["faults"][0]["injected"] == MAX_INJECTIONS + 7

"""Provisioning requests and their replies: one connection, its order, its subscriptions."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from fleetgate.gateway.services import ProvisioningRequest, Reply
from fleetgate.mqtt.packets import (
    Disconnect,
    Puback,
    Publish,
    Unsuback,
    Unsubscribe,
    Version,
)
from tests.gateway.running import ALLOW_ALL, CREATE, Running, make_credentials

VERSIONS = pytest.mark.parametrize("version", [4, 5])
ACCEPTED = CREATE + "/accepted"
REJECTED = CREATE + "/rejected"
REGISTER = "$aws/provisioning-templates/t/provision/json"
CSR = "$aws/certificates/create-from-csr/cbor"


class Gate:
    """A provisioning operation that waits until it is let go."""

    def __init__(self, running: Running) -> None:
        self.begun: list[ProvisioningRequest] = []
        self._events: list[asyncio.Event] = []
        self._running = running
        running.answer = self.answer

    async def answer(self, request: ProvisioningRequest) -> Reply:
        self.begun.append(request)
        self._events.append(event := asyncio.Event())
        await event.wait()
        return Reply(request.topic + "/accepted", b"secret " + request.payload)

    def wait_for(self, number: int) -> None:
        self._running.eventually(lambda: len(self.begun) >= number)

    def release(self) -> None:
        self._events[0].set()

    def let_go(self, number: int = 0) -> None:
        self._running.do(self._events[number].set)


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1])
def test_a_request_is_acknowledged_and_answered(
    running: Running, version: Version, qos: int
) -> None:
    gate = Gate(running)
    with running.connect("lamp", version) as device:
        device.subscribe(ACCEPTED, REJECTED)
        device.publish(CREATE, b"{}", qos)  # PUBACK comes before the work is done
        gate.wait_for(1)
        assert gate.begun[0] == ProvisioningRequest(
            CREATE, b"{}", "lamp", running.registry[running.device.certificate_id]
        )
        gate.let_go()
        reply = device.message()
        assert (reply.topic, reply.payload) == (ACCEPTED, b"secret {}")
        assert (reply.qos, reply.retain, reply.dup) == (1, False, False)


@VERSIONS
def test_only_the_connection_that_asked_gets_the_reply(running: Running, version: Version) -> None:
    """Devices share the claim certificate and so the policy: same rights, same topics."""
    with (
        running.connect("asks", version) as asks,
        running.connect("listens", version) as listens,
    ):
        for each in (asks, listens):
            each.subscribe(ACCEPTED, REJECTED, "$aws/certificates/#", "#")
        asks.publish(CREATE)
        assert asks.message().payload == b"for asks"
        assert listens.silent()
        listens.publish(CREATE)
        assert listens.message().payload == b"for listens"
        assert asks.silent()


@pytest.mark.parametrize(("granted", "qos"), [((0,), 0), ((1,), 1), ((0, 1), 1)])
def test_the_reply_has_the_granted_qos(
    running: Running, granted: tuple[int, ...], qos: int
) -> None:
    with running.connect() as device:
        for number, each in enumerate(granted):
            device.subscribe(("$aws/certificates/create/+/accepted", ACCEPTED)[number], qos=each)
        device.publish(CREATE)
        assert device.message().qos == qos
        assert device.silent(0.05)


@pytest.mark.parametrize("subscribed", ["", REGISTER + "/rejected", "#", ACCEPTED])
def test_a_reply_nobody_subscribed_to_is_dropped_and_the_log_says_so(
    running: Running, log: list[str], subscribed: str
) -> None:
    with running.connect() as device:
        if subscribed:
            device.subscribe(subscribed)
        device.publish(REGISTER)
        assert device.silent()
    line = next(line for line in log if "event=answer-dropped" in line)
    for word in ("client='lamp'", running.device.certificate_id, f"not subscribed to `{REGISTER}/"):
        assert word in line


@pytest.mark.parametrize("subscribed", ["", REJECTED, "#", CSR + "/accepted"])
def test_a_certificate_that_nobody_could_receive_is_not_made(
    running: Running, log: list[str], subscribed: str
) -> None:
    gate = Gate(running)
    with running.connect() as device:
        if subscribed:
            device.subscribe(subscribed)
        device.publish(CREATE)
        assert device.silent()
        device.subscribe(ACCEPTED)  # too late for the first one
        device.publish(CREATE, b"again")
        gate.wait_for(1)
        gate.let_go()
        assert device.message().payload == b"secret again"
    assert [request.payload for request in gate.begun] == [b"again"]
    (line,) = [line for line in log if "event=request-refused" in line]
    for word in ("client='lamp'", running.device.certificate_id, f"not subscribed to `{ACCEPTED}`"):
        assert word in line


def test_a_certificate_that_the_policy_keeps_from_the_client_is_not_made(
    running: Running, log: list[str]
) -> None:
    gate = Gate(running)
    running.allow(
        "Allow Connect *", "Allow Publish *", "Allow Subscribe *", "Deny Receive topic/$aws/*"
    )
    with running.connect() as device:
        device.subscribe(ACCEPTED)
        device.publish(CREATE)
        assert device.silent()
    assert gate.begun == []
    assert any("event=request-refused" in line and "iot:Receive" in line for line in log)


def test_a_reply_the_policy_does_not_let_through_is_dropped(
    running: Running, log: list[str]
) -> None:
    running.allow(
        "Allow Connect *",
        "Allow Publish topic/$aws/*",
        "Allow Subscribe topicfilter/$aws/*",
        "Allow Receive topic/$aws/certificates/create-from-csr/*",
    )
    with running.connect() as device:
        device.subscribe(REGISTER + "/accepted", CSR + "/accepted")
        device.publish(REGISTER)
        device.publish(CSR)
        assert device.message().topic == CSR + "/accepted"
    assert any("event=answer-dropped" in line and "iot:Receive" in line for line in log)


def test_the_policies_are_those_of_the_moment_of_the_reply(running: Running) -> None:
    gate = Gate(running)
    with running.connect() as device:
        device.subscribe(ACCEPTED)
        device.publish(CREATE)
        gate.wait_for(1)
        running.allow("Allow Publish topic/*")
        gate.let_go()
        assert device.silent()


def test_replies_come_in_the_order_of_the_requests(running: Running) -> None:
    gate = Gate(running)
    with running.connect() as device:
        device.subscribe(ACCEPTED)
        for number in range(3):
            device.publish(CREATE, bytes([number]))
        gate.wait_for(1)
        assert running.do(lambda: len(gate.begun)) == 1
        for number in range(3):
            gate.wait_for(number + 1)
            gate.let_go(number)
        assert [device.message().payload[-1] for _ in range(3)] == [0, 1, 2]


def test_other_packets_are_handled_meanwhile(running: Running) -> None:
    gate = Gate(running)
    with running.connect() as device:
        device.subscribe(ACCEPTED, "a")
        device.publish(CREATE)
        device.publish("a", b"meanwhile")
        assert device.message().payload == b"meanwhile"
        gate.let_go()
        assert device.message().topic == ACCEPTED


def test_a_reply_waits_for_the_receive_maximum_of_the_client(running: Running) -> None:
    with running.connect("lamp", 5, properties={"receive_maximum": 1}) as device:
        device.subscribe(ACCEPTED, "a")
        device.publish("a")
        first = device.message(acknowledge=False)
        device.publish(CREATE)
        assert device.silent()
        assert first.packet_id is not None
        device.send(Puback(first.packet_id))
        assert device.message().topic == ACCEPTED


def test_a_reply_that_waited_is_not_sent_to_who_has_unsubscribed(
    running: Running, log: list[str]
) -> None:
    with running.connect("lamp", 5, properties={"receive_maximum": 1}) as device:
        device.subscribe(ACCEPTED, "a")
        device.publish("a")
        first = device.message(acknowledge=False)
        device.publish(CREATE)
        assert device.silent()
        device.send(Unsubscribe(device.core.next_packet_id(), (ACCEPTED,)))
        device.expect(Unsuback)
        device.publish("a", b"next")
        assert first.packet_id is not None
        device.send(Puback(first.packet_id))
        assert device.message().payload == b"next"
        assert device.silent()
    assert any("event=answer-dropped" in line and "not subscribed" in line for line in log)


def test_a_reply_that_waited_is_not_sent_to_who_may_not_have_it_any_more(
    running: Running, log: list[str]
) -> None:
    with running.connect("lamp", 5, properties={"receive_maximum": 1}) as device:
        device.subscribe(ACCEPTED, "a")
        device.publish("a")
        first = device.message(acknowledge=False)
        device.publish(CREATE)
        assert device.silent()
        running.allow("Allow Connect *", "Allow Publish topic/*", "Allow Receive topic/a")
        assert first.packet_id is not None
        device.send(Puback(first.packet_id))
        assert device.silent()
        device.publish("a", b"next")
        assert device.message().payload == b"next"
    assert any("event=answer-dropped" in line and "iot:Receive" in line for line in log)


def test_a_reply_larger_than_the_client_takes_is_dropped_and_the_log_tells_the_sizes(
    running: Running, log: list[str]
) -> None:
    async def large(request: ProvisioningRequest) -> Reply:
        return Reply(request.topic + "/accepted", bytes(600))

    running.answer = large
    with running.connect("lamp", 5, properties={"maximum_packet_size": 512}) as device:
        device.subscribe(ACCEPTED)
        device.publish(CREATE)
        assert device.silent()
    line = next(line for line in log if "event=answer-dropped" in line)
    size = 1 + 2 + 2 + len(ACCEPTED) + 2 + 1 + 600
    assert f"PUBLISH of {size} bytes is larger than the 512 bytes" in line


def test_64_requests_of_one_certificate_are_carried_out_at_a_time(
    running: Running, tmp_path: Path
) -> None:
    other = make_credentials(tmp_path, "other")
    running.register(other)
    gate = Gate(running)
    with contextlib.ExitStack() as stack:
        devices = [
            stack.enter_context(running.connect(f"lamp{number}", keep_alive=600))
            for number in range(66)
        ]
        for number, device in enumerate(devices):
            device.subscribe(ACCEPTED)
            device.publish(CREATE, str(number).encode())
        gate.wait_for(64)
        stranger = stack.enter_context(running.connect("door", credentials=other))
        stranger.subscribe(ACCEPTED)
        stranger.publish(CREATE, b"other")
        gate.wait_for(65)
        assert [each.client_id for each in gate.begun[:64]] == [f"lamp{n}" for n in range(64)]
        assert gate.begun[64].payload == b"other"
        assert devices[64].silent()
        assert len(gate.begun) == 65
        gate.let_go(7)
        gate.wait_for(66)
        assert gate.begun[65].client_id == "lamp64"
        devices[65].socket.close()
        gate.let_go(8)
        assert devices[8].message().payload == b"secret 8"
        assert devices[64].silent()
        assert len(gate.begun) == 66
    running.eventually(lambda: len(running.gateway) == 0)
    for number in range(len(gate.begun)):
        gate.let_go(number)


def test_a_waiting_reply_goes_before_the_messages_of_the_session(running: Running) -> None:
    with running.connect("lamp", 5, properties={"receive_maximum": 1}) as device:
        device.subscribe(ACCEPTED, "a")
        with running.connect("door") as door:
            for _ in range(3):
                door.publish("a")
        first = device.message(acknowledge=False)
        device.publish(CREATE)
        assert device.silent()  # the answer waits
        assert first.packet_id is not None
        device.send(Puback(first.packet_id))
        topics = [first.topic, *(device.message().topic for _ in range(3))]
        assert topics == ["a", ACCEPTED, "a", "a"]


def test_a_reply_is_never_kept_for_later(running: Running, log: list[str]) -> None:
    """Not even by a persistent session: it may hold a private key."""
    gate = Gate(running)
    with running.connect("lamp", clean_start=False) as device:
        device.subscribe(ACCEPTED)
        device.publish(CREATE)
        gate.wait_for(1)
    running.eventually(lambda: len(running.gateway) == 0)
    gate.let_go()
    running.eventually(lambda: any("event=answer-dropped" in line for line in log))
    with running.connect("lamp", clean_start=False) as device:
        assert device.connack.session_present
        assert device.silent()


def test_a_reply_that_was_not_acknowledged_is_not_sent_again(running: Running) -> None:
    with running.connect("lamp", clean_start=False) as device:
        device.subscribe(ACCEPTED)
        device.publish(CREATE)
        device.message(acknowledge=False)
    with running.connect("lamp", clean_start=False) as device:
        assert device.connack.session_present
        assert device.silent()


def test_the_requests_of_a_client_that_has_gone_are_not_begun(running: Running) -> None:
    gate = Gate(running)
    with running.connect() as device:
        device.subscribe(ACCEPTED)
        for _ in range(3):
            device.publish(CREATE)
        gate.wait_for(1)
    running.eventually(lambda: len(running.gateway) == 0)
    gate.let_go()
    running.stop()
    assert len(gate.begun) == 1


@VERSIONS
def test_too_many_requests_at_once_end_the_connection(running: Running, version: Version) -> None:
    Gate(running)
    with running.connect("lamp", version) as device:
        device.subscribe(ACCEPTED)
        device.send(*(Publish(CREATE, b"{}") for _ in range(16)))
        assert device.silent()
        device.send(*(Publish(CREATE, b"{}") for _ in range(2)))  # one is being carried out
        if version == 5:
            assert device.expect(Disconnect).reason_code == 0x97
        assert device.is_closed()


def test_too_many_bytes_of_requests_end_the_connection(running: Running) -> None:
    Gate(running)
    with running.connect("lamp", 5) as device:
        device.subscribe(ACCEPTED)
        for _ in range(4):
            device.send(Publish(CREATE, bytes(100_000)))
        assert device.expect(Disconnect).reason_code == 0x97


def test_an_operation_that_fails_leaves_the_connection_alone(
    running: Running, log: list[str]
) -> None:
    working = running.answer

    async def broken(request: ProvisioningRequest) -> Reply:
        raise ZeroDivisionError(request.topic)

    with running.connect() as device:
        device.subscribe(ACCEPTED)
        running.answer = broken
        device.publish(CREATE)
        running.eventually(lambda: any("event=no-answer" in line for line in log))
        running.answer = working
        device.publish(CREATE)
        assert device.message().payload == b"for lamp"


def test_an_answer_in_flight_leaves_before_the_server_stops(running: Running) -> None:
    gate = Gate(running)
    with running.connect("lamp", 5) as device:
        device.subscribe(ACCEPTED)
        device.publish(CREATE)
        gate.wait_for(1)
        running.do(lambda: asyncio.get_running_loop().call_later(0.1, gate.release))
        running.stop()
        assert device.message(acknowledge=False).topic == ACCEPTED
        assert device.expect(Disconnect).reason_code == 0x8B
        assert device.is_closed()


def test_payloads_are_not_logged(running: Running, log: list[str]) -> None:
    gate = Gate(running)
    with running.connect() as device:
        device.publish(REGISTER, b"in the request")
        gate.wait_for(1)
        gate.let_go()
        assert device.silent()
    assert "answer-dropped" in "".join(log)
    assert "secret" not in "".join(log)
    assert "in the request" not in "".join(log)
    assert "secret" not in repr(Reply(ACCEPTED, b"secret"))


def test_a_persistent_subscription_counts_as_one(running: Running) -> None:
    running.documents[running.device.certificate_id] = ALLOW_ALL
    with running.connect("lamp", clean_start=False) as device:
        device.subscribe(ACCEPTED)
    with running.connect("lamp", clean_start=False) as device:
        device.publish(CREATE)
        assert device.message().topic == ACCEPTED

"""Faults happen: what `Faults` has chosen is done to a connection, its packets and its replies.

The gateway calls in here at five places, only where there are faults: when CONNECT has arrived
(`connecting`), for every later packet (`handle`), for a provisioning request (`carry_out`) and its
reply (`send`), and for all packets that leave (`FaultyOutgoing`). Everything else goes its usual
way: a reply that is dropped had its registration, a request that is answered twice was carried out
once. The MQTT core believes that what was dropped has been sent.

A delay of a provisioning request or of its reply is one of the request alone. A delay of CONNACK,
SUBACK or PUBACK holds the whole line to the client, so that nothing overtakes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from fleetgate.errors import ProtocolError
from fleetgate.gateway.fault_replies import spoil, with_another_key, with_another_request
from fleetgate.gateway.fault_script import (
    AFTER,
    CONNECT,
    PUBLISH,
    REPLY,
    REQUEST,
    SUBSCRIBE,
    Event,
    error_of,
)
from fleetgate.gateway.faults import Chosen, Faults
from fleetgate.gateway.outgoing import Outgoing
from fleetgate.gateway.reserved import encode_rejected
from fleetgate.gateway.services import ProvisioningRequest, Reply
from fleetgate.gateway.tls import State
from fleetgate.mqtt.connection import Connection
from fleetgate.mqtt.packets import Connack, Packet, Puback, Publish, Suback, Subscribe
from fleetgate.mqtt.reasons import Reason

if TYPE_CHECKING:
    from fleetgate.gateway.connection import MqttConnection

_LEAVES: Final = 0.05
"""Seconds for what was written to leave before the connection is reset."""
_LOOK: Final = 0.25
"""Seconds between two looks whether a client still waits."""
_HELD: Final = 1 << 20
"""Bytes that a held line keeps; then the connection ends, as one whose client does not read."""

Handler = Callable[["MqttConnection", Packet], None]


async def connecting(faults: Faults, connection: MqttConnection) -> bool:
    """CONNECT has arrived; does it go on? Raises ProtocolError with the reason for CONNACK."""
    for each in faults.at(_event(connection, CONNECT, REQUEST)):
        match each.do:
            case "delay":
                await _wait(connection, each.seconds)
            case "refuse":
                raise ProtocolError(each.fault.code, each.cause)
            case "drop":
                return False
            case _:
                end(connection, each)
                return False
    return True


def handle(faults: Faults, connection: MqttConnection, packet: Packet, handler: Handler) -> None:
    """A packet has arrived, and `handler` is what does it."""
    outgoing = connection.outgoing
    if not isinstance(packet, Subscribe | Publish) or not isinstance(outgoing, FaultyOutgoing):
        handler(connection, packet)
        return
    refused: dict[str, Chosen] = {}
    for event in _events(connection, packet, REQUEST):
        for each in faults.at(event):
            match each.do:
                case "refuse":
                    refused[event.topic] = each
                case "drop":
                    outgoing.forget(packet)
                    return
                case _:
                    end(connection, each)
                    return
    if isinstance(packet, Publish):
        if refused:
            outgoing.refuse(packet, refused[packet.topic])
            return
        outgoing.answered = packet
    else:
        kept = [each for each in packet.subscriptions if each.topic_filter not in refused]
        outgoing.answered, outgoing.refused = packet, refused
        packet = replace(packet, subscriptions=tuple(kept))
    try:
        handler(connection, packet)
    finally:
        outgoing.answered, outgoing.refused = None, {}


async def carry_out(
    faults: Faults,
    connection: MqttConnection,
    request: ProvisioningRequest,
    provision: Callable[[ProvisioningRequest], Awaitable[Reply]],
) -> Reply | None:
    """A provisioning request is carried out, or not; None when nobody is answered."""
    operation, template, form = faults.operation_of(request.topic)
    other_key = False
    for each in faults.at(_event(connection, operation, REQUEST, template)):
        match each.do:
            case "delay":
                async with request.aside():
                    await _wait(connection, each.seconds)
            case "throttle" | "reject":
                return _rejected(request, form, each)
            case "clock-skew":
                request = replace(request, clock_skew=request.clock_skew + each.seconds)
            case "expire-token":
                skew = request.clock_skew + faults.token_seconds + 1
                request = replace(request, clock_skew=skew)
            case "another-key":
                other_key = True
                payload = with_another_request(form, request.payload)
                request = replace(request, payload=payload)
            case "drop":
                return None
            case _:
                end(connection, each)
                return None
    reply = await provision(request)
    if other_key:
        payload = await asyncio.to_thread(with_another_key, form, reply.payload)
        reply = replace(reply, payload=payload)
    return reply


async def send(
    faults: Faults,
    connection: MqttConnection,
    request: ProvisioningRequest,
    reply: Reply,
    deliver: Callable[[ProvisioningRequest, Reply], Awaitable[None]],
) -> None:
    """A request has been carried out, and `deliver` sends a reply to it."""
    operation, template, form = faults.operation_of(request.topic)
    copies, pause = 1, 0.0
    for each in faults.at(_event(connection, operation, REPLY, template)):
        match each.do:
            case "delay":
                await _wait(connection, each.seconds)
            case "throttle" | "reject":
                reply = _rejected(request, form, each)
            case "garbage":
                fault = each.fault
                spoilt = spoil(fault.kind, form, reply.payload, fault.members, fault.bytes)
                reply = replace(reply, payload=spoilt)
            case "duplicate":
                copies, pause = each.fault.copies, each.seconds
            case "drop":
                return
            case "reset" if isinstance(outgoing := connection.outgoing, FaultyOutgoing):
                outgoing.cuts = reply.topic
                await deliver(request, reply)
                await asyncio.sleep(_LEAVES)
                end(connection, each)
                return
            case _:
                end(connection, each)
                return
    await deliver(request, reply)
    for _ in range(copies - 1):
        await _wait(connection, pause)
        await deliver(request, reply)
    for each in faults.at(_event(connection, operation, AFTER, template)):
        end_after(connection, each)


def end(connection: MqttConnection, each: Chosen) -> None:
    """End a connection now, in the way of ``disconnect`` or ``reset``."""
    outgoing = connection.outgoing
    if each.do == "reset":
        connection.tls.abort(reset=True)
    elif each.fault.code and connection.open:
        if isinstance(outgoing, FaultyOutgoing):
            outgoing.let_go()
        connection.fail(each.fault.code, each.cause)
        return
    else:
        outgoing.flush()
        connection.tls.close()
    connection.lost(each.cause)  # TLS has ended, and does not say so when it was asked to


def end_after(connection: MqttConnection, each: Chosen) -> None:
    """End a connection when what was sent has left, or after the seconds of the fault."""
    connection.outgoing.flush()
    least = _LEAVES if each.do == "reset" else 0.0
    asyncio.get_running_loop().call_later(max(least, each.seconds), end, connection, each)


class FaultyOutgoing(Outgoing):
    """The sending half of a connection of a server with faults.

    `answered` is the packet that is being worked off, `refused` the topic filters of it that are
    refused. `cuts` is the topic of a message that is to leave in part.
    """

    __slots__ = ("_connection", "_faults", "_holds", "answered", "cuts", "refused")

    def __init__(self, faults: Faults, connection: MqttConnection, core: Connection) -> None:
        super().__init__(core, connection.tls)
        self._faults = faults
        self._connection = connection
        self._holds = 0
        self.answered: Subscribe | Publish | None = None
        self.refused: dict[str, Chosen] = {}
        self.cuts = ""

    def send(self, packet: Packet) -> None:
        """See `Outgoing`."""
        answers = self._answers(packet)
        if isinstance(packet, Suback) and self.refused:
            packet = self._with_refusals(packet)
        if self.cuts and isinstance(packet, Publish) and packet.topic == self.cuts:
            self.cuts = ""
            self._cut(packet)
            return
        for event in answers:
            for each in self._faults.at(event):
                match each.do:
                    case "delay":
                        self._hold(each.seconds)
                    case "drop":
                        self._core.send(packet)
                        if isinstance(packet, Connack):
                            self._hold(None)  # nothing may come before CONNACK
                        return
                    case "reset":
                        self._cut(packet)
                        end_after(self._connection, each)
                        return
                    case _:
                        # not now: the caller is in the middle of something
                        self._hold(None)
                        end_after(self._connection, each)
                        return
        super().send(packet)
        for event in answers:
            for each in self._faults.at(replace(event, moment=AFTER)):
                end_after(self._connection, each)

    def flush(self) -> None:
        """See `Outgoing`."""
        if not self._holds:
            super().flush()
        elif self._bytes > _HELD:
            self._packets.clear()
            self._bytes = 0
            asyncio.get_running_loop().call_soon(
                self._connection.fail, Reason.QUOTA_EXCEEDED, "too much is held by a fault script"
            )

    def let_go(self) -> None:
        """Throw away what is held, and hold no more."""
        if self._holds:
            self._packets.clear()
            self._bytes = 0
            self._holds = 0

    def forget(self, packet: Subscribe | Publish) -> None:
        """A packet is lost: it has its answer as far as the MQTT core knows."""
        if isinstance(packet, Subscribe):
            codes = (int(Reason.UNSPECIFIED_ERROR),) * len(packet.subscriptions)
            self._core.send(Suback(packet.packet_id, codes))
        elif packet.packet_id is not None:
            self._core.send(Puback(packet.packet_id))

    def refuse(self, packet: Publish, each: Chosen) -> None:
        """Refuse a message: by PUBACK, or by the end where there is none (MQTT 3.1.1, QoS 0)."""
        if packet.packet_id is None or self._connection.version != 5:
            self._connection.fail(each.fault.code, each.cause)
            return
        properties = {"reason_string": each.cause}
        super().send(Puback(packet.packet_id, each.fault.code, properties))

    def _answers(self, packet: Packet) -> Sequence[Event]:
        """The events that a packet is the reply of."""
        if isinstance(packet, Connack) and not packet.reason_code:
            return [_event(self._connection, CONNECT, REPLY)]
        if isinstance(packet, Suback | Puback) and self.answered is not None:
            return _events(self._connection, self.answered, REPLY)
        return ()

    def _with_refusals(self, packet: Suback) -> Suback:
        answered = self.answered
        assert isinstance(answered, Subscribe)  # noqa: S101 - SUBACK is for nothing else
        granted = iter(packet.reason_codes)
        five = self._connection.version == 5
        codes = []
        for each in answered.subscriptions:
            refused = self.refused.get(each.topic_filter)
            if refused is None:
                codes.append(next(granted))
            else:
                codes.append(refused.fault.code if five else int(Reason.UNSPECIFIED_ERROR))
        causes = dict.fromkeys(each.cause for each in self.refused.values())
        properties = {"reason_string": "; ".join(causes)[:500], **packet.properties}
        return Suback(packet.packet_id, tuple(codes), properties)

    def _cut(self, packet: Packet) -> None:
        """Send the first half of a packet, and nothing behind it."""
        data = self._core.send(packet)
        if not self._holds:
            self.flush()
            self._tls.write(data[: max(1, len(data) // 2)])
        self._hold(None)

    def _hold(self, seconds: float | None) -> None:
        """Keep what is to be sent for `seconds`, or for good."""
        if not self._holds:
            super().flush()
        self._holds += 1
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, self._release)

    def _release(self) -> None:
        if self._holds:
            self._holds -= 1
            self.flush()


async def _wait(connection: MqttConnection, seconds: float) -> None:
    """Wait so long, but not much longer than the client is there."""
    clock = connection.services.clock
    until = clock() + seconds
    while connection.tls.state is State.OPEN:
        left = until - clock()
        if left <= 0:
            return
        await asyncio.sleep(min(left, _LOOK))


def _event(connection: MqttConnection, on: str, moment: str, template: str = "") -> Event:
    return Event(on, moment, connection.client_id, connection.certificate_id, template)


def _events(connection: MqttConnection, packet: Subscribe | Publish, moment: str) -> list[Event]:
    """The events of a packet: one for each topic filter."""
    if isinstance(packet, Publish):
        on, topics = PUBLISH, [packet.topic]
    else:
        on, topics = SUBSCRIBE, [each.topic_filter for each in packet.subscriptions]
    client_id, certificate_id = connection.client_id, connection.certificate_id
    return [Event(on, moment, client_id, certificate_id, topic=topic) for topic in topics]


def _rejected(request: ProvisioningRequest, form: str, each: Chosen) -> Reply:
    return Reply(f"{request.topic}/rejected", encode_rejected(form, error_of(each.fault)))

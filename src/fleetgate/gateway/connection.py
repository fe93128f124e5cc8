"""One MQTT connection of a device, from CONNECT to its end.

Bytes come from a `TlsConnection`, go through the MQTT core and become packets in `_inbox`.
Packets are worked off one after the other while the connection is READY, for one turn at a time
(see `fleetgate.gateway.tls`): a message to many subscribers is more work than its bytes show. Two
things take time and stop that: admission (OPENING, a look into the registry) and loading policies
again after some have changed (REFRESHING). Meanwhile nothing more is read from the client;
acknowledgements are an exception and always count at once.

Policies are loaded at CONNECT. Whenever the epoch has moved on since, they are loaded again
before the next packet is worked off or message delivered. What was waiting then needs no
further load, so a server whose policies change all the time goes on working.

A session belongs to the client id, whatever the certificate, as with AWS IoT: a device that has a
new certificate finds its messages. A temporary claim is no device, and its policy allows any
client id: it never has a persistent session, and is refused under the client id of a session,
connected or not, of another certificate.

A session is opened in `fleetgate.gateway.entry`, answers to provisioning requests are made in
`fleetgate.gateway.answers`, the rules of the single packets are in `fleetgate.gateway.requests`,
what others hear of all this in `fleetgate.gateway.lifecycle`. Whatever ends the connection goes
through `_end`, once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from enum import IntEnum

from fleetgate.broker.router import Router
from fleetgate.broker.session import DONE, Message, Session
from fleetgate.domain.policy import RECEIVE
from fleetgate.errors import ProtocolError
from fleetgate.gateway import fault_injection, lifecycle, opening, requests
from fleetgate.gateway.answers import Answers
from fleetgate.gateway.entry import enter
from fleetgate.gateway.lifecycle import Cause
from fleetgate.gateway.lifetime import Lifetime
from fleetgate.gateway.outgoing import Outgoing
from fleetgate.gateway.rights import Denied, Rights, admit
from fleetgate.gateway.services import MAX_CONNECT, MAX_PACKET, WINDOW, Services
from fleetgate.gateway.shared import Shared
from fleetgate.gateway.tls import TURN, TlsConnection
from fleetgate.mqtt import packets
from fleetgate.mqtt.connection import Connection, Role
from fleetgate.mqtt.packets import Connack, Connect, Packet, Puback
from fleetgate.mqtt.reasons import Reason
from fleetgate.names import certificate_id
from fleetgate.operations.identity import Peer

logger = logging.getLogger("fleetgate.gateway")


class Phase(IntEnum):
    """Where an `MqttConnection` is in its life. READY and REFRESHING take turns."""

    NEW = 0
    OPENING = 1
    READY = 2
    REFRESHING = 3
    ENDED = 4


class MqttConnection:
    """See the module. The application of a `TlsConnection`, the link of a session.

    `requests` and `answers` use what is public; `certificate_id` and `client_id` are for logs too.
    """

    __slots__ = (
        "_answers",
        "_core",
        "_expiry_interval",
        "_inbox",
        "_lifetime",
        "_phase",
        "_refreshing",
        "_rights",
        "_session_identifier",
        "_shared",
        "_stopped",
        "_worked_off",
        "certificate_id",
        "client_id",
        "outgoing",
        "session",
        "tls",
    )

    def __init__(self, tls: TlsConnection, shared: Shared) -> None:
        self.tls = tls
        self._shared = shared
        self._core = Connection(
            Role.SERVER, max_packet_size=MAX_PACKET, max_connect_size=MAX_CONNECT
        )
        self._answers: Answers | None = None
        self._expiry_interval: float | None = None
        self._lifetime = Lifetime(shared.services.clock(), shared.connect_timeout)
        self._inbox: list[Packet] = []  # an empty deque takes ten times as much memory
        self._worked_off = 0
        self._phase = Phase.NEW
        self._refreshing: asyncio.Task[None] | None = None
        self._rights: Rights | None = None
        self._session_identifier: str | None = None
        self._stopped = False
        self.certificate_id = certificate_id(tls.certificate)
        self.client_id = ""
        self.outgoing = Outgoing(self._core, tls)
        if (faults := shared.services.faults) is not None:
            self.outgoing = fault_injection.FaultyOutgoing(faults, self, self._core)
        self.session: Session | None = None
        # Known by its certificate before the registry is asked, so that a certificate which is
        # deactivated at that very moment is not missed.
        shared.by_certificate.setdefault(self.certificate_id, set()).add(self)
        tls.wake_at(self._lifetime.ends_at)

    @property
    def services(self) -> Services:
        """The functions behind the gateway."""
        return self._shared.services

    @property
    def router(self) -> Router:
        """The broker."""
        return self._shared.router

    @property
    def version(self) -> packets.Version | None:
        """4 or 5, None before CONNECT."""
        return self._core.version

    @property
    def session_identifier(self) -> str:
        """What events call this connection. Made when the first of them is."""
        if self._session_identifier is None:
            self._session_identifier = str(uuid.uuid4())
        return self._session_identifier

    @property
    def open(self) -> bool:
        """CONNECT has been accepted and nothing has ended the connection."""
        return self._phase in (Phase.READY, Phase.REFRESHING)

    # --- called by TLS -----------------------------------------------------------------------

    def received(self, data: bytes) -> bool:
        """See `fleetgate.gateway.tls.Application`."""
        received: list[Packet] = []
        self._lifetime.heard = self.services.clock()
        self.outgoing.corked = True
        try:
            received = self._core.receive(data)
            for packet in received:
                if type(packet) is Puback:
                    self._acknowledged(packet.packet_id)
                else:
                    self._inbox.append(packet)
            if self._core.ignored > WINDOW:
                # What an earlier connection of the session left can be acknowledged late.
                raise ProtocolError(
                    Reason.PROTOCOL_ERROR,
                    f"more than {WINDOW} acknowledgements of what was never sent",
                )
            self._work()
        except ProtocolError as error:
            self._broken(error)
        finally:
            self.outgoing.corked = False
            self.outgoing.flush()
        return not received

    def writable(self) -> None:
        """See `fleetgate.gateway.tls.Application`."""
        if self.session is not None:
            self.session.pump(self.services.clock())

    def due(self, now: float) -> float | None:
        """See `fleetgate.gateway.tls.Application`."""
        if self._phase is Phase.ENDED:
            return None
        if (verdict := self._lifetime.verdict(now)) is None:
            return self._lifetime.ends_at
        self.fail(*verdict)
        return None

    def lost(self, cause: str) -> None:
        """See `fleetgate.gateway.tls.Application`."""
        if self._phase is not Phase.ENDED:
            self._log("disconnected", cause)
            self._end(Cause.CONNECTION_LOST, with_will=True)

    # --- called by the gateway ---------------------------------------------------------------

    def stop(self) -> asyncio.Task[None] | None:
        """Take no more packets; the task that finishes what has been begun, if any."""
        self._stopped = True
        return self._answers.task if self._answers is not None else None

    def fail(
        self, reason: int, message: str, *, with_will: bool = True, cause: Cause | None = None
    ) -> None:
        """End the connection for `reason` (a code of MQTT 5.0 section 3.14.2.1).

        `cause` is what the event says; without it that follows from `reason`.
        """
        if self._phase is Phase.ENDED:
            return
        self._log("disconnected" if self.open else "refused", message, reason)
        try:
            self.outgoing.farewell(reason, message, refused=not self.open)
        except ProtocolError as error:  # larger than the client takes
            self._log("no-farewell", error.message)
        self._end(cause or lifecycle.cause_of(reason), with_will=with_will)

    # --- called by the session ---------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """See `fleetgate.broker.session.Link`."""
        return self.tls.congested

    def deliver(self, message: Message, qos: int) -> int | None:
        """See `fleetgate.broker.session.Link`."""
        if self._phase is not Phase.READY or self.tls.congested:
            return None
        now = self.services.clock()
        if self._lifetime.is_expired(now) or (qos and not self._has_room()):
            return None
        if self.rights.stale:
            self._refresh()
            return None
        decision = self.rights.decide(RECEIVE, "topic/" + message.topic)
        if not decision.allowed:
            logger.debug(
                "event=not-delivered client=%r topic=%r cause=%r",
                self.client_id,
                message.topic,
                decision.reason,
            )
            return DONE
        try:
            return self.outgoing.deliver(message, qos, now)
        except ProtocolError as error:
            self._log("not-delivered", error.message)
            return DONE

    def taken_over(self) -> None:
        """See `fleetgate.broker.session.Link`."""
        self.fail(Reason.SESSION_TAKEN_OVER, "the client id is used by another connection")

    # --- for requests and answers ------------------------------------------------------------

    @property
    def rights(self) -> Rights:
        """Who the client is and what it may do. Known as soon as packets are handled."""
        assert self._rights is not None  # noqa: S101
        return self._rights

    async def refreshed(self) -> bool:
        """Wait until policies are known that are as new as this call; is it open still?"""
        for _ in range(2):  # a load that was under way already may have been too early
            if self.open and self.rights.stale:
                self._refresh()
            if self._refreshing is not None:
                await self._refreshing
        return self.open

    def answer(self, topic: str, payload: bytes) -> None:
        """Have a provisioning request answered. Raises ProtocolError when there are too many."""
        if self._answers is None:
            self._answers = Answers(self, self._shared)
        self._answers.add(topic, payload)

    def goodbye(self, *, with_will: bool, expiry_interval: float | None) -> None:
        """The client has sent DISCONNECT."""
        self._expiry_interval = expiry_interval
        self._log("disconnected", "by the client")
        self._end(Cause.CLIENT_INITIATED_DISCONNECT, with_will=with_will)

    # --- opening -----------------------------------------------------------------------------

    def _connect(self, connect: Connect) -> None:
        self.client_id = connect.client_id[:128]  # for the log, until it is checked
        try:
            opening.check(connect)
        except ProtocolError as error:
            self.fail(error.reason, error.message)
            return
        self._phase = Phase.OPENING
        self._shared.spawn(self._open(connect))

    async def _open(self, connect: Connect) -> None:
        client_id = self.client_id = connect.client_id or secrets.token_hex(16)
        tls = self.tls
        peer = Peer(tls.address, tls.server_name, tls.certificate, tls.chain)
        try:
            faults = self.services.faults
            if faults is not None and not await fault_injection.connecting(faults, self):
                return
            rights = await admit(self.services, peer, client_id, connect)
            if self._phase is not Phase.OPENING:
                return  # the client has not waited, or the certificate was deactivated meanwhile
            self._rights = rights
            if self._stopped:
                raise ProtocolError(Reason.SERVER_SHUTTING_DOWN, "the server is stopping")
            entry = enter(self, connect, peer, rights, self._shared)
        except ProtocolError as error:
            if isinstance(error, Denied):
                lifecycle.tell_connect_failed(self, error.identity)
            self.fail(error.reason, error.message)
            return
        self.session, terms = entry.session, entry.terms
        valid_for = rights.identity.not_after - self.services.wall()
        self._lifetime.admit(terms.keep_alive, self.services.clock() + valid_for)
        self._phase = Phase.READY
        self.tls.wake_at(self._lifetime.ends_at)
        self._resume(Connack(entry.present, 0, terms.properties))

    # --- working -----------------------------------------------------------------------------

    def _work(self) -> None:
        """Work off the inbox as far as that is possible now."""
        inbox = self._inbox
        clock = self.services.clock
        until = clock() + TURN
        while self._worked_off < len(inbox) and not self._stopped:
            if self._phase is Phase.READY:
                if self._lifetime.is_expired(self._lifetime.heard):
                    self.fail(Reason.NOT_AUTHORIZED, "the certificate has expired")
                    break
                if self.rights.stale:
                    self._refresh()
                    break
                self._worked_off += 1
                requests.handle(self, inbox[self._worked_off - 1])
                if self._worked_off < len(inbox) and clock() >= until:
                    self.tls.hold()
                    asyncio.get_running_loop().call_soon(self._go_on)
                    break
            elif self._phase is Phase.NEW and type(connect := inbox[0]) is Connect:
                self._worked_off = 1
                self._connect(connect)
            else:
                break
        if self._worked_off == len(inbox):
            inbox.clear()
            self._worked_off = 0
        if self._phase in (Phase.OPENING, Phase.REFRESHING):
            self.tls.hold()

    def _resume(self, first: Connack | None = None) -> None:
        """Go on after OPENING, REFRESHING or a turn of the others."""
        self.tls.release()
        self.outgoing.corked = True
        try:
            if first is not None:
                self.outgoing.send(first)
                lifecycle.tell_connected(self)
            self._work()
            if self.session is not None:
                self.session.pump(self.services.clock())
        except ProtocolError as error:
            self._broken(error)
        finally:
            self.outgoing.corked = False
            self.outgoing.flush()

    def _go_on(self) -> None:
        """The next turn."""
        if self._phase is Phase.READY:  # otherwise the end of REFRESHING goes on
            self._resume()

    def _refresh(self) -> None:
        if self._phase is Phase.READY:
            self._phase = Phase.REFRESHING
            self.tls.hold()
            self._refreshing = self._shared.spawn(self._load_policies())

    async def _load_policies(self) -> None:
        rights = self.rights
        try:
            await rights.load_patiently(lambda: self._phase is Phase.REFRESHING)
        except Exception:
            logger.exception("event=policies-not-loaded certificate=%s", self.certificate_id)
            self.fail(Reason.UNSPECIFIED_ERROR, "the server cannot tell what is allowed")
            return
        self._refreshing = None
        if self._phase is Phase.REFRESHING:
            self._phase = Phase.READY
            rights.fresh = True
            try:
                self._resume()
            finally:
                rights.fresh = False

    def _has_room(self) -> bool:
        """May a message of the session be sent? An answer that waits goes first."""
        return self.outgoing.window > 0 and (self._answers is None or not self._answers.waiting)

    def _acknowledged(self, packet_id: int) -> None:
        if self.session is not None:
            self.session.acknowledge(packet_id)
            if self._answers is not None:
                self._answers.acknowledged()
            self.session.pump(self.services.clock())

    # --- ending ------------------------------------------------------------------------------

    def _broken(self, error: ProtocolError) -> None:
        """The client broke the rules of MQTT."""
        if self._phase is Phase.ENDED:
            return
        self._log("disconnected" if self.open else "refused", error.message, error.reason)
        self.outgoing.put(self._core.closing(error))
        self._end(lifecycle.cause_of(error.reason), with_will=True)

    def _end(self, cause: Cause, *, with_will: bool) -> None:
        self._phase = Phase.ENDED
        self._inbox.clear()
        self._worked_off = 0
        self.outgoing.flush()
        self.tls.close()
        members = self._shared.by_certificate[self.certificate_id]
        members.discard(self)
        if not members:
            del self._shared.by_certificate[self.certificate_id]
        if self._answers is not None:
            self._answers.end()
        if self.session is not None:
            self.router.close(
                self.session,
                self,
                with_will=with_will,
                now=self.services.clock(),
                expiry_interval=self._expiry_interval,
            )
            lifecycle.tell_disconnected(self, cause)

    def _log(self, event: str, cause: str, reason: int | None = None) -> None:
        rights = self._rights
        logger.info(
            "event=%s client=%r certificate=%s peer=%s%s cause=%r",
            event,
            self.client_id,
            self.certificate_id if rights is None else rights.identity.logged,
            self.tls.peer,
            "" if reason is None else f" reason=0x{reason:02x}",
            cause[:500],
        )

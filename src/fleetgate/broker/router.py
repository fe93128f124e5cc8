"""The message broker inside the process: sessions by client id, subscriptions by topic filter.

Everything here is synchronous, so a takeover or a delivery is never seen half done. Permissions
are the business of the links: what arrives at `publish` may be published, and each link decides
what its client may receive. Times are given by the caller, all from one monotonic clock.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from fleetgate.broker.deadlines import Deadlines
from fleetgate.broker.session import Backlog, Granted, Limits, Link, Message, Session, Will
from fleetgate.broker.versions import Versions
from fleetgate.mqtt.topics import Subscriptions

logger = logging.getLogger("fleetgate.broker")

_TRAVELLING: Final = (
    "payload_format_indicator",
    "content_type",
    "response_topic",
    "correlation_data",
    "user_property",
)
"""The properties that are passed on unaltered (MQTT 5.0 section 3.3.2.3)."""

_OVERHEAD: Final = 200  # bytes of the objects round a message, roughly


class Router:
    """Sessions and their subscriptions; see the module."""

    def __init__(self, deadlines: Deadlines, limits: Limits | None = None) -> None:
        self._deadlines = deadlines
        self._limits = limits or Limits()
        self._backlog = Backlog(self._limits.all_queued_bytes)
        self._sessions: dict[str, Session] = {}
        self._subscriptions: Subscriptions[Session, Granted] = Subscriptions()
        # By owner, those that have been without a connection for the longest time first.
        self._offline: dict[str, dict[Session, None]] = {}
        self._offline_count = 0
        self._versions = Versions(self._limits.remembered_versions)

    def open(
        self,
        client_id: str,
        link: Link,
        *,
        owner: str,
        clean: bool,
        expiry_interval: float,
        will: Will | None,
        now: float,
    ) -> tuple[Session, bool]:
        """Attach `link` to the session of `client_id`; the session, and whether it was there.

        `owner` is the certificate id behind `link`. A connection that has the session is told to
        close, and has done so before the session has the next `version`. `clean` ends what was
        there.
        Source: MQTT 5.0 sections 3.1.2.4 and 3.1.4, 3.1.3.2.2 for the will.
        """
        session = self._sessions.get(client_id)
        if session is not None:
            if session.link is not None:
                self._take_over(session)
            if _is_over(session, now):
                self._end(session, None)
                session = None
            elif clean or session.expiry_interval == 0:
                self._end(session, now)
                session = None
        present = session is not None
        if session is None:
            session = Session(client_id, self._limits, self._backlog, self._due)
            session.version = self._versions.take(client_id, now)
            self._sessions[client_id] = session
        else:
            session.version += 1
        self._deadlines.clear(session)
        self._forget_offline(session)
        session.owner = owner
        session.expires_at = session.will_at = None
        session.expiry_interval = expiry_interval
        session.will = will
        session.link = link
        return session, present

    def close(
        self,
        session: Session,
        link: Link,
        *,
        with_will: bool,
        now: float,
        expiry_interval: float | None = None,
    ) -> None:
        """`link` is closed. Nothing happens when another one has taken the session over.

        `expiry_interval` replaces the one given at `open`. Without `with_will` the will is
        forgotten.
        """
        if session.link is not link:
            return
        session.detach()
        if expiry_interval is not None:
            session.expiry_interval = expiry_interval
        if not with_will:
            session.will = None
        if session.expiry_interval > 0 and (cause := self._full()) is not None:
            logger.warning(
                "event=session-not-kept client=%r certificate=%s cause=%r",
                session.client_id,
                session.owner,
                cause,
            )
            session.expiry_interval = 0.0
        if session.expiry_interval == 0:
            self._end(session, now)
            return
        self._add_offline(session, now)
        session.expires_at = now + session.expiry_interval
        if session.will is not None:
            session.will_at = now + session.will.delay
            if session.will.delay == 0:
                self._release(session)
        self._deadlines.set(session, _next(session))

    def subscribe(self, session: Session, topic_filter: str, granted: Granted) -> None:
        """Subscribe, or change the options of a subscription."""
        session.subscribe(topic_filter, granted)
        self._subscriptions.add(topic_filter, session, granted)

    def unsubscribe(self, session: Session, topic_filter: str) -> bool:
        """Unsubscribe. False when there was no such subscription."""
        if not session.unsubscribe(topic_filter):
            return False
        self._subscriptions.remove(topic_filter, session)
        return True

    def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        properties: Mapping[str, Any],
        *,
        publisher: str,
        now: float,
    ) -> int:
        """Bring a message to every session that subscribes to `topic`, once; to how many.

        When several filters of a session match, it gets the message at the highest QoS among
        them (MQTT 5.0 section 3.3.4).
        """
        found = self._subscriptions.match(topic)
        if not found:
            return 0
        targets: dict[Session, int] = {}
        for session, granted in found:
            if granted.no_local and session.client_id == publisher:
                continue
            targets[session] = max(targets.get(session, 0), min(qos, granted.qos))
        message = _message(topic, payload, properties, publisher, now)
        for session, granted_qos in targets.items():
            session.offer(message, granted_qos, now)
        return len(targets)

    def wanted(self, topic: str) -> bool:
        """Does any session subscribe to `topic`? What nobody wants need not be made."""
        return bool(self._subscriptions.match(topic))

    def clear(self) -> None:
        """Forget the sessions that have no connection, wills included."""
        for session in [each for each in self._sessions.values() if each.link is None]:
            session.will = None
            self._end(session, None)
        self._versions.clear()

    def owner_of(self, client_id: str, now: float) -> str | None:
        """The certificate id behind the session of `client_id`; None when there is no session."""
        session = self._sessions.get(client_id)
        if session is None or (session.link is None and _is_over(session, now)):
            return None
        return session.owner

    def has_room(self, size: int) -> bool:
        """May `size` bytes more be kept for later?"""
        return self._backlog.used + size <= self._backlog.limit

    def __len__(self) -> int:
        """How many sessions there are."""
        return len(self._sessions)

    def _take_over(self, session: Session) -> None:
        old, will = session.link, session.will
        session.detach()
        # With a delay the will is not sent: the client is back before that has passed.
        if will is not None and will.delay > 0 and session.expiry_interval > 0:
            session.will = None
        self._release(session)
        if old is not None:
            old.taken_over()

    def _full(self) -> str | None:
        """Why no more sessions can be kept, if so."""
        if self._offline_count >= self._limits.offline_sessions:
            return f"{self._offline_count} sessions without a connection"
        if not self.has_room(0):
            return f"{self._backlog.used} bytes are kept for all sessions"
        return None

    def _add_offline(self, session: Session, now: float) -> None:
        sessions = self._offline.setdefault(session.owner, {})
        sessions[session] = None
        self._offline_count += 1
        if len(sessions) > self._limits.offline_sessions_of_one:
            oldest = next(iter(sessions))
            logger.warning(
                "event=session-ended client=%r certificate=%s cause='more than %d sessions of the "
                "certificate without a connection'",
                oldest.client_id,
                oldest.owner,
                self._limits.offline_sessions_of_one,
            )
            self._end(oldest, now)

    def _forget_offline(self, session: Session) -> None:
        sessions = self._offline.get(session.owner)
        if sessions is not None and session in sessions:
            del sessions[session]
            self._offline_count -= 1
            if not sessions:
                del self._offline[session.owner]

    def _release(self, session: Session) -> None:
        will, session.will, session.will_at = session.will, None, None
        if will is not None:
            will.release()

    def _end(self, session: Session, now: float | None) -> None:
        """Forget a session. With the time its version is remembered for a while."""
        self._deadlines.clear(session)
        self._forget_offline(session)
        for topic_filter in session.filters:
            self._subscriptions.remove(topic_filter, session)
        will = session.will
        session.clear()
        del self._sessions[session.client_id]
        if now is not None:
            self._versions.leave(session.client_id, session.version, now)
        if will is not None:
            will.release()

    def _due(self, session: Session, now: float) -> float | None:
        if session.link is not None:
            return None
        if _is_over(session, now):
            self._end(session, None)
            return None
        if session.will_at is not None and session.will_at <= now:
            self._release(session)
        return _next(session)


def _is_over(session: Session, now: float) -> bool:
    return session.expires_at is not None and session.expires_at <= now


def _next(session: Session) -> float:
    times = [at for at in (session.expires_at, session.will_at) if at is not None]
    return min(times)


def _message(
    topic: str, payload: bytes, properties: Mapping[str, Any], publisher: str, now: float
) -> Message:
    size = _OVERHEAD + len(topic) + len(payload)
    if not properties:
        return Message(topic, payload, properties, None, publisher, size)
    passed = {name: properties[name] for name in _TRAVELLING if name in properties}
    for value in passed.values():
        if isinstance(value, list):
            size += sum(_OVERHEAD + len(key) + len(text) for key, text in value)
        elif isinstance(value, (str, bytes)):
            size += len(value)
    lifetime = properties.get("message_expiry_interval")
    expires_at = None if lifetime is None else now + lifetime
    return Message(topic, payload, passed, expires_at, publisher, size)

"""Makes a server's connections to PostgreSQL, and knows while there are none to be had.

While the database is away, or allows no more connections, it is asked twice a second at most,
whoever needs one; in between they are told at once. A connection that nobody needs but that would
make things quicker is tried less often. The log says why there is none, and says so again when the
reason changes.
"""

from __future__ import annotations

import logging
import threading
import time

import psycopg

from fleetgate.errors import ServiceUnavailableException
from fleetgate.store import ownership
from fleetgate.store.libpq import ConnectionLost, Full, Link, Refused, connect, one_line
from fleetgate.store.ownership import Overtaken
from fleetgate.store.target import Target

log = logging.getLogger("fleetgate.store")

PROBE_INTERVAL = 0.5
"""Seconds between two attempts to connect while the database is away."""

GROW_INTERVAL = 5.0
"""Seconds after an attempt that failed until one more connection is tried."""

_AWAY, _NO_ROOM = "database-away", "no-free-connection"
"""The events of the log that say why there is no connection."""

AWAY = "the database cannot be reached; try again later"
FULL = "there is no free connection to the database; try again later"


class Dialler:
    """Makes connections (see the module's text). Its methods are for all threads."""

    def __init__(self, where: Target, owner: str) -> None:
        self._where = where
        self._owner = owner
        self._event = ""  # why there was none for the last who needed one; empty: there was
        self._cause = ""
        self._growth_cause = ""
        self._overtaken = ""
        self._next_probe = 0.0
        self._next_growth = 0.0
        self._probing = threading.Lock()
        self._telling = threading.Lock()

    @property
    def may_grow(self) -> bool:
        """Whether `further` would try now."""
        return not self._overtaken and time.monotonic() >= self._next_growth

    def dial(self) -> Link:
        """A connection for somebody who cannot go on without.

        Raises ServiceUnavailableException when there is none to be had, Full when that is
        because of the number there are.
        """
        if self._overtaken:
            raise ServiceUnavailableException(self._overtaken)
        if not self._event:
            return self._connect()
        # a database that is full answers soon
        if not self._probing.acquire(blocking=self._event == _NO_ROOM):
            raise self._none()
        try:
            if self._event and time.monotonic() < self._next_probe:
                raise self._none()
            return self._connect()
        finally:
            self._probing.release()

    def further(self) -> Link | None:
        """One more connection, or None."""
        if not self.may_grow:
            return None
        try:
            link = self._open()
        except Overtaken as error:
            self._taken(error)
            return None
        except (Refused, ConnectionLost, psycopg.Error) as error:
            # whether the database is away is for those to find out who cannot go on without
            self._next_growth = time.monotonic() + GROW_INTERVAL
            cause = one_line(error)
            with self._telling:
                told, self._growth_cause = self._growth_cause, cause
            if cause != told:
                log.warning(
                    "event=no-further-connection database=%r cause=%s", self._where.shown, cause
                )
            return None
        with self._telling:
            if self.may_grow:  # else another attempt of these moments has failed
                self._growth_cause = ""
        return link

    def _connect(self) -> Link:
        try:
            return self._open()
        except Overtaken as error:
            self._taken(error)
            raise ServiceUnavailableException(self._overtaken) from None
        except (Refused, ConnectionLost, psycopg.Error) as error:
            now = time.monotonic()
            self._next_probe, self._next_growth = now + PROBE_INTERVAL, now + GROW_INTERVAL
            self._tell(_NO_ROOM if isinstance(error, Full) else _AWAY, one_line(error))
            raise self._none() from None

    def _open(self) -> Link:
        link = connect(self._where)
        try:
            ownership.rejoin(link, self._owner)
        except BaseException:
            link.close()
            raise
        with self._telling:
            if self._event == _AWAY:
                log.warning("event=database-back database=%r", self._where.shown)
            self._event = self._cause = ""
        return link

    def _none(self) -> Exception:
        if self._event == _NO_ROOM:
            return Full(FULL)
        return ServiceUnavailableException(AWAY)

    def _tell(self, event: str, cause: str) -> None:
        with self._telling:
            if (event, cause) != (self._event, self._cause):
                log.error("event=%s database=%r cause=%s", event, self._where.shown, cause)
            self._event, self._cause = event, cause

    def _taken(self, error: Overtaken) -> None:
        self._overtaken = f"{error}: this server has to be stopped"
        log.critical("event=database-overtaken database=%r cause=%s", self._where.shown, error)

"""Clients that connect with certificates of other authorities."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fleetgate.names import certificate_id
from fleetgate.operations.admission import NotAdmitted, NotRegistered
from fleetgate.operations.identity import Peer
from fleetgate.operations.just_in_time import JustInTime
from fleetgate.pki import pem
from fleetgate.store.engine import Store
from tests.operations.conftest import Registry
from tests.operations.foreign import ForeignAuthority, register

GATE = "gate.example"
"""What clients call the server, unless a test says otherwise."""


def der(text: str) -> bytes:
    return pem.decode(text, "CERTIFICATE")


def id_of(text: str) -> str:
    return certificate_id(der(text))


def open_to(registry: Registry, foreign: ForeignAuthority, **params: Any) -> str:
    """Registers an authority with auto registration; its id."""
    return register(registry, foreign, allow_auto_registration=True, **params)


class Door:
    """Clients that connect, what they hear, what is published and what the log says."""

    def __init__(self, registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "fleetgate.just_in_time")
        self.registry = registry
        self.just_in_time = JustInTime(registry.services)
        self.events: list[tuple[str, dict[str, Any]]] = []
        registry.services.publish = lambda topic, body: self.events.append(
            (topic, json.loads(body))
        )
        self._caplog = caplog

    def connect(
        self, text: str, *chain: ForeignAuthority, server_name: str = GATE
    ) -> NotAdmitted | None:
        """What a client with this certificate hears, None when it is let in.

        What was begun by it is done then.
        """
        sent = tuple(der(each.pem) for each in chain)
        peer = Peer("192.0.2.7", server_name, der(text), lambda: sent)

        async def connect() -> NotAdmitted | None:
            try:
                await self.just_in_time.admit(peer)
            except NotAdmitted as error:
                return error
            finally:
                await self.just_in_time.provisioning.settled()
            return None

        return self.registry.runner.run(connect())

    def refused(self, text: str, *chain: ForeignAuthority, server_name: str = GATE) -> str:
        """The line in the log about a client that is told nothing but what strangers are told."""
        self.forget()
        heard = self.connect(text, *chain, server_name=server_name)
        assert isinstance(heard, NotRegistered)
        assert heard.message == f"certificate {id_of(text)} is not registered"
        assert self.listed() == []
        assert self.events == []
        [line] = self.lines()
        assert line.startswith(f"event=not-registered certificate={id_of(text)} peer=192.0.2.7 ")
        return line

    def lines(self) -> list[str]:
        """What was logged."""
        return [each.getMessage() for each in self._caplog.records]

    def forget(self) -> None:
        """Forget what was logged."""
        self._caplog.clear()

    def listed(self) -> list[str]:
        """The ids of all certificates."""
        listed = self.registry.call("ListCertificates")["certificates"]
        return [each["certificateId"] for each in listed]

    def describe(self, text: str) -> dict[str, Any]:
        """The registry's description of a certificate."""
        answer = self.registry.call("DescribeCertificate", certificate_id=id_of(text))
        description: dict[str, Any] = answer["certificateDescription"]
        return description

    def start_again(self) -> None:
        """As after a crash: what was in memory is gone."""
        self.just_in_time = JustInTime(self.registry.services)


class Interrupted:
    """A store in which something happens before each write."""

    def __init__(self, store: Store, before: Callable[[], Awaitable[Any]]) -> None:
        self.store = store
        self.before = before
        self.read = store.read

    async def write(self, *args: Any, **kwargs: Any) -> Any:
        await self.before()
        return await self.store.write(*args, **kwargs)

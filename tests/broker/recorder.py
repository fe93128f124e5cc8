"""A client at the other end of a session, which writes down what it gets."""

from __future__ import annotations

from fleetgate.broker.session import DONE, Message


class Recorder:
    """A link that takes what it gets, as long as it is `able` and the `window` is not used up.

    `refuses` are topics the client may not receive.
    """

    def __init__(self, window: int = 100) -> None:
        self.able = True
        self.congested = False
        self.refuses: set[str] = set()
        self.got: list[tuple[str, bytes, int]] = []
        self.messages: list[Message] = []
        self.unacknowledged: list[int] = []
        self.window = window
        self.closed = 0
        self._ids = 0

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload, _ in self.got]

    def deliver(self, message: Message, qos: int) -> int | None:
        if not self.able or (qos and len(self.unacknowledged) >= self.window):
            return None
        if message.topic in self.refuses:
            return DONE
        self.got.append((message.topic, message.payload, qos))
        self.messages.append(message)
        if not qos:
            return DONE
        self._ids += 1
        self.unacknowledged.append(self._ids)
        return self._ids

    def taken_over(self) -> None:
        self.closed += 1

"""One operation as a state machine: subscribe, publish, match the answer, unsubscribe.

Nothing here touches a network, a clock or a thread. An :class:`Exchange` is told what happened, by
its methods, each with the time at which it happened (seconds of any clock that never goes back),
and returns the :data:`Action` that are due; they have to be carried out in that order.

    new --begin--> subscribing --both granted--> publishing --acknowledged--> waiting
                        |                            |                           |
                        +-- refused, lost, cancelled, timed out, an answer came -+
                                                     v
                                     ending --both unsubscribed--> over

* Both answers are subscribed to before anything is asked for, at QoS 1, and both subscriptions
  must be granted.
* There is exactly one ending: ``result`` or ``error`` is set, once, and never changes.
* Whatever the ending is, both subscriptions are taken back with it: also one that was refused or
  not acknowledged yet (the server may grant it later), and when the connection is lost (the client
  shall forget about them).
* The machine is over when both have been acknowledged, or the time for that has passed.
* Answers are matched by topic; they carry nothing else. What comes before the request was
  published is a late answer to another request. What comes after the ending is a duplicate (QoS 1
  may deliver twice) or too late. Both are ignored, and so is an answer that `belongs` denies.
* Time passes by :meth:`Exchange.tick` alone: an answer that arrives at the very moment of the
  time-out, or after it but before anybody noticed, counts.

Times. SUBSCRIBE, PUBLISH and UNSUBSCRIBE may each wait `mqtt_timeout` seconds for their
acknowledgement; the answer may take `timeout` seconds from when the request was sent (QoS 0) or
acknowledged (QoS 1). A whole operation takes no longer than the sum.

Source: AWS IoT Core Developer Guide, "Device provisioning MQTT API"; the order and the time-outs
are those of AWS's C library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from fleetgate.device import protocol
from fleetgate.device.checks import check
from fleetgate.device.errors import (
    BadAnswer,
    BadRequest,
    ConnectionLost,
    NoAnswer,
    NotAcknowledged,
    NotAuthorized,
    PacketTooLarge,
    ProvisioningError,
    Step,
)
from fleetgate.device.protocol import Operation

MAX_ANSWER_SIZE = protocol.MAX_PAYLOAD
"""Bytes."""

MQTT_TIMEOUT = 5.0
"""Seconds; ``AWS_IOT_PROVISIONING_DEFAULT_MQTT_TIMEOUT_MS`` of AWS's C library."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe to this filter at QoS 1; tell :meth:`Exchange.granted` or ``failed``."""

    topic_filter: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish this; tell :meth:`Exchange.acknowledged` or ``failed``."""

    topic: str
    payload: bytes
    qos: int


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Take the subscription back; tell :meth:`Exchange.unsubscribed` however it went."""

    topic_filter: str


Action: TypeAlias = Subscribe | Publish | Unsubscribe


class State(Enum):
    """Where an exchange is; see the module."""

    NEW = auto()
    SUBSCRIBING = auto()
    PUBLISHING = auto()
    WAITING = auto()
    ENDING = auto()
    OVER = auto()


MAX_SECONDS = 86400
"""The longest time-out, a day. No answer that comes later is of use: its token has ended."""

_UNDECIDED = (State.NEW, State.SUBSCRIBING, State.PUBLISHING, State.WAITING)


@dataclass(frozen=True, slots=True)
class Terms:
    """How an operation is carried out.

    ``qos`` is that of the request, 0 or 1. ``timeout`` (for the answer) and ``mqtt_timeout`` (for
    each acknowledgement) are in seconds, up to a day, ``max_answer_size`` in bytes.
    ``payload_format`` is ``json`` or ``cbor``.
    """

    payload_format: protocol.PayloadFormat = "json"
    qos: int = 1
    timeout: float = 10.0
    mqtt_timeout: float = MQTT_TIMEOUT
    max_answer_size: int = MAX_ANSWER_SIZE

    def __post_init__(self) -> None:
        """Raises BadRequest for what cannot be."""
        if self.payload_format not in ("json", "cbor"):
            raise BadRequest(f"a payload is `json` or `cbor`, not `{self.payload_format!r:.80}`")
        check("qos", self.qos, int)
        check("max_answer_size", self.max_answer_size, int)
        if self.qos not in (0, 1):
            raise BadRequest(f"a request is published at QoS 0 or 1, not {self.qos!r:.80}")
        for name in ("timeout", "mqtt_timeout"):
            value = getattr(self, name)
            check(name, value, float)
            if not 0 < value <= MAX_SECONDS:  # also false for NaN
                raise BadRequest(
                    f"`{name}` is {value!r:.80}: it is in seconds, more than 0 and at most "
                    f"{MAX_SECONDS}"
                )
        if not self.max_answer_size >= 0:
            raise BadRequest(
                f"`max_answer_size` is {self.max_answer_size!r:.80}, which is less than 0"
            )


class Exchange(Generic[T]):
    """The state machine of one operation; see the module.

    ``result`` is what `interpret` made of the accepted answer, or None; ``error`` why there is
    none. ``unanswered`` says that the server may have got the request, and has not answered it.
    ``ignored`` counts the messages that were not taken for the answer. ``payload`` is the request.
    ``step`` is where it happens.
    """

    def __init__(
        self,
        operation: Operation,
        request: Mapping[str, Any],
        interpret: Callable[[dict[str, Any]], T],
        *,
        step: Literal["create", "register"],
        terms: Terms,
        belongs: Callable[[T], bool] | None = None,
    ) -> None:
        """`request` are the values to ask with; `interpret` reads the values of an answer and
        raises BadAnswer. `belongs` may recognize that an answer is for another request. `step`
        is what an error says where it happened, unless it was in ``subscribe``.

        Raises BadRequest when the request cannot be encoded, or is larger than AWS IoT takes.
        """
        self.operation = operation
        self.state = State.NEW
        self.result: T | None = None
        self.error: ProvisioningError | None = None
        self.unanswered = False
        self.ignored = 0
        self.payload = protocol.encode(operation.payload_format, request)
        self._interpret = interpret
        self._belongs = belongs
        self.step: Step = step
        self._terms = terms
        self._filters = (operation.accepted, operation.rejected)
        self._awaited = set(self._filters)
        self._foreign = False
        self._deadline = 0.0

    @property
    def ended(self) -> bool:
        """Whether the outcome is known."""
        return self.state not in _UNDECIDED

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.state is State.OVER

    @property
    def deadline(self) -> float | None:
        """When :meth:`tick` is due; None when it is not."""
        return None if self.state in (State.NEW, State.OVER) else self._deadline

    # --- what happened ---

    def begin(self, now: float) -> list[Action]:
        """Once, first."""
        if self.state is not State.NEW:
            return []
        self._go(State.SUBSCRIBING, now + self._terms.mqtt_timeout)
        return [Subscribe(each) for each in self._filters]

    def granted(self, topic_filter: str, now: float) -> list[Action]:
        """The server has granted the subscription to `topic_filter`."""
        if self.state is not State.SUBSCRIBING:
            return []
        self._awaited.discard(topic_filter)
        if self._awaited:
            return []
        self._go(State.PUBLISHING, now + self._terms.mqtt_timeout)
        self.unanswered = True
        return [Publish(self.operation.request, self.payload, self._terms.qos)]

    def acknowledged(self, now: float) -> list[Action]:
        """The request was acknowledged, or at QoS 0 sent."""
        if self.state is State.PUBLISHING:
            self._go(State.WAITING, now + self._terms.timeout)
        return []

    def failed(self, error: ProvisioningError, now: float) -> list[Action]:
        """A SUBSCRIBE or the PUBLISH failed."""
        if isinstance(error, ConnectionLost):
            return self.lost(error, now)
        if isinstance(error, NotAuthorized | BadRequest):
            self.unanswered = False  # refused, or not even sent
        return self._end(error, now)

    def lost(self, error: ConnectionLost, now: float) -> list[Action]:
        """The connection ended."""
        if self.ended:
            return []
        return self._end(self._explain_loss(error), now)

    def arrived(self, topic: str, payload: bytes, now: float) -> list[Action]:
        """A message came. Only the first answer counts, and only after the request."""
        if self.state not in (State.PUBLISHING, State.WAITING) or topic not in self._filters:
            self.ignored += 1
            if self.state is State.ENDING:
                self.unanswered = False  # too late to count, and no later
            return []
        self.unanswered = False
        try:
            result = self._read(topic, payload)
            belongs = self._belongs is None or self._belongs(result)
        except ProvisioningError as error:
            return self._end(error, now)
        except Exception as error:  # whatever a decoder does not foresee: this call never raises
            bad = BadAnswer(f"the answer on `{topic}` cannot be read: {error!r:.200}", topic=topic)
            bad.__cause__ = error
            return self._end(bad, now)
        if not belongs:
            self.ignored += 1
            self._foreign = self.unanswered = True
            return []
        self.result = result
        return self._unsubscribe(now)

    def unsubscribed(self, topic_filter: str, now: float) -> list[Action]:  # noqa: ARG002
        """UNSUBSCRIBE was acknowledged, or could not be."""
        if self.state is State.ENDING:
            self._awaited.discard(topic_filter)
            if not self._awaited:
                self.state = State.OVER
        return []

    def cancelled(self, now: float) -> list[Action]:
        """Nobody wants the outcome any more."""
        if self.ended:
            return []
        return self._end(ProvisioningError("the operation was cancelled"), now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        if self.deadline is None or now < self.deadline:
            return []
        if self.state is State.ENDING:
            self.state = State.OVER
            return []
        return self._end(self._too_late(), now)

    # --- how it is done ---

    def _go(self, state: State, deadline: float) -> None:
        self.state = state
        self._deadline = deadline

    def _end(self, error: ProvisioningError, now: float) -> list[Action]:
        if self.ended:
            return []
        error.at("subscribe" if self.state in (State.NEW, State.SUBSCRIBING) else self.step)
        self.error = error
        return self._unsubscribe(now)

    def _unsubscribe(self, now: float) -> list[Action]:
        if self.state is State.NEW:
            self.state = State.OVER  # nothing was subscribed to
            return []
        self._awaited = set(self._filters)
        self._go(State.ENDING, now + self._terms.mqtt_timeout)
        return [Unsubscribe(each) for each in self._filters]

    def _read(self, topic: str, payload: bytes) -> T:
        limit = self._terms.max_answer_size
        if len(payload) > limit:
            raise BadAnswer(
                f"the answer on `{topic}` has {len(payload)} bytes, more than the {limit} that "
                "this device takes",
                topic=topic,
            )
        return self._interpret(protocol.read(self.operation, topic, payload))

    def _too_late(self) -> NoAnswer:
        request, terms = self.operation.request, self._terms
        if self.state is State.SUBSCRIBING:
            first = next(each for each in self._filters if each in self._awaited)
            return NotAcknowledged(
                f"the server did not acknowledge the subscription to `{first}` within "
                f"{terms.mqtt_timeout:g} s",
                topic=first,
                waited=terms.mqtt_timeout,
            )
        if self.state is State.PUBLISHING:
            return NotAcknowledged(
                f"the server did not acknowledge the message to `{request}` within "
                f"{terms.mqtt_timeout:g} s",
                topic=request,
                waited=terms.mqtt_timeout,
            )
        seen = "; an answer that came belongs to another request" if self._foreign else ""
        return NoAnswer(
            f"no answer to `{request}` within {terms.timeout:g} s{seen}; does the certificate's "
            f"policy allow iot:Publish on `topic/{request}`, and iot:Receive on "
            f"`topic/{self.operation.accepted}` and `topic/{self.operation.rejected}`?",
            topic=request,
            waited=terms.timeout,
        )

    def _explain_loss(self, error: ConnectionLost) -> ConnectionLost:
        """A new error: the client may have given the same one to others."""
        request = self.operation.request
        if self.state in (State.NEW, State.SUBSCRIBING):
            where = f"subscribing to the answers of `{request}`"
            rights, rest = f"iot:Subscribe on `topicfilter/{request}/", "*`"
        else:
            where = f"the request on `{request}`"
            rights, rest = f"iot:Publish on `topic/{request}`", ""
        # what waited for an acknowledgement may have been told of the missing right already
        told = rights in error.message or isinstance(error, PacketTooLarge)
        hint = "" if told else f": does the certificate's policy allow {rights}{rest}?"
        lost = type(error)(
            f"{error.message}; it was during {where}{hint}", topic=request, retry=error.retry
        )
        lost.__cause__ = error
        return lost

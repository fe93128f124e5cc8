"""Fault scripts: what goes wrong on purpose, for which devices, and when.

docs/faults.md describes them for those who write one; `fleetgate.gateway.fault_reading` reads them.
Here it is decided what happens, by functions of their arguments without clock, randomness or I/O,
so that a run can be repeated.

Something that a client does is looked at up to three times, at its *moments*: the request has
arrived, the reply is about to leave, the reply has left. Each is an `Event`. The faults of a script
are asked in their order whether they fit the event. Each counts for itself, for each client id, how
often it did, and the draw that decides is made of seed, place in the script, client id and that
count alone. A fault that ends the event hides it from those behind it, which do not count it.

Source of the errors: AWS IoT developer guide, "Device provisioning MQTT API".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Final

from fleetgate.domain.wildcards import Wildcard, matcher
from fleetgate.errors import (
    AccessDeniedException,
    InternalErrorException,
    InvalidCertificateOwnershipTokenException,
    InvalidCsrException,
    InvalidParametersException,
    InvalidPayloadException,
    ResourceNotFoundException,
    ResourceRegistrationFailureException,
    ServiceError,
    TooManyRequestsException,
)
from fleetgate.gateway.services import MAX_PAYLOAD

REQUEST, REPLY, AFTER = "request", "reply", "after"

KEYS: Final = "CreateKeysAndCertificate"
CSR: Final = "CreateCertificateFromCsr"
REGISTER: Final = "RegisterThing"
OPERATIONS: Final = (KEYS, CSR, REGISTER)
CONNECT, SUBSCRIBE, PUBLISH = "connect", "subscribe", "publish"
PACKETS: Final = (CONNECT, SUBSCRIBE, PUBLISH)

_ALL: Final = (*OPERATIONS, *PACKETS)
_ENDING: Final = frozenset(("drop", "disconnect", "reset", "throttle", "reject", "refuse"))

MOMENTS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "delay": {
        **dict.fromkeys((*OPERATIONS, CONNECT), (REPLY, REQUEST)),
        SUBSCRIBE: (REPLY,),
        PUBLISH: (REPLY,),
    },
    "drop": dict.fromkeys(_ALL, (REPLY, REQUEST)),
    "disconnect": dict.fromkeys(_ALL, (REPLY, REQUEST, AFTER)),
    "reset": dict.fromkeys(_ALL, (REPLY, REQUEST, AFTER)),
    "throttle": dict.fromkeys(OPERATIONS, (REQUEST, REPLY)),
    "reject": dict.fromkeys(OPERATIONS, (REQUEST, REPLY)),
    "duplicate": dict.fromkeys(OPERATIONS, (REPLY,)),
    "garbage": dict.fromkeys(OPERATIONS, (REPLY,)),
    "clock-skew": dict.fromkeys(OPERATIONS, (REQUEST,)),
    "expire-token": {REGISTER: (REQUEST,)},
    "another-key": dict.fromkeys((KEYS, CSR), (REQUEST,)),
    "refuse": dict.fromkeys(PACKETS, (REQUEST,)),
}
"""What can be done, on what, at which moments; the first is taken when a fault says none."""

_EVERYWHERE: Final = (
    AccessDeniedException,
    InternalErrorException,
    TooManyRequestsException,
)
ERRORS: Final[Mapping[str, tuple[type[ServiceError], ...]]] = {
    KEYS: _EVERYWHERE,
    CSR: (*_EVERYWHERE, InvalidCsrException, InvalidPayloadException),
    REGISTER: (
        *_EVERYWHERE,
        InvalidCertificateOwnershipTokenException,
        InvalidParametersException,
        InvalidPayloadException,
        ResourceNotFoundException,
        ResourceRegistrationFailureException,
    ),
}
"""What an operation can be rejected with."""


@dataclass(frozen=True, slots=True)
class Event:
    """A moment of something a client does; see the module.

    `on` is an operation or ``connect``, ``subscribe``, ``publish``. `template` is that of
    RegisterThing, `topic` that of a PUBLISH or the topic filter of a subscription; else empty.
    """

    on: str
    moment: str
    client_id: str
    certificate_id: str
    template: str = ""
    topic: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """One ``[[fault]]``. The patterns know ``*`` and ``?``; `times` None is every time.

    `seconds` are the least and the most of them; which of the parameters mean something depends
    on `do`.
    """

    on: str
    do: str
    moment: str
    client: str = "*"
    certificate: str = "*"
    template: str = "*"
    topic: str = "*"
    nth: int = 1
    times: int | None = None
    probability: float = 1.0
    seconds: tuple[float, float] = (0.0, 0.0)
    code: int = 0
    error: str = ""
    message: str = ""
    copies: int = 2
    kind: str = ""
    members: tuple[str, ...] = ()
    bytes: int = MAX_PAYLOAD

    def fits(self, event: Event) -> bool:
        """Whether it is asked at all about an event."""
        return (
            (self.on, self.moment) == (event.on, event.moment)
            and _pattern(self.client)(event.client_id)
            and _pattern(self.certificate)(event.certificate_id)
            and _pattern(self.template)(event.template)
            and _pattern(self.topic)(event.topic)
        )

    @property
    def ends(self) -> bool:
        """Whether nothing more happens to an event after this."""
        return self.do in _ENDING

    def shown(self) -> dict[str, Any]:
        """What it says, without what it leaves as it is."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        defaults = {each.name: each.default for each in fields(self)}
        return {name: value for name, value in found.items() if value != defaults[name]}


@dataclass(frozen=True, slots=True)
class Script:
    """A whole script."""

    seed: int = 0
    faults: tuple[Fault, ...] = ()


@dataclass(slots=True)
class Count:
    """How often a fault fitted for one client id, and how often it was injected."""

    matched: int = 0
    injected: int = 0


@dataclass(frozen=True, slots=True)
class Injection:
    """A fault that is to happen: the `number`-th of its script, at its `count`-th event.

    `seconds` are drawn from the fault's.
    """

    number: int
    fault: Fault
    count: int
    seconds: float = 0.0


def decide(script: Script, event: Event, count_of: Callable[[int, str], Count]) -> list[Injection]:
    """What happens at an event, in order; one that ends it is the last.

    `count_of(number, client_id)` is where a fault counts; it is changed here.
    """
    found = []
    for number, fault in enumerate(script.faults, 1):
        if not fault.fits(event):
            continue
        count = count_of(number, event.client_id)
        count.matched += 1
        if count.matched < fault.nth:
            continue
        if fault.times is not None and count.injected >= fault.times:
            continue
        of = (script.seed, number, event.client_id, count.matched)
        if fault.probability < 1 and draw(*of, "whether") >= fault.probability:
            continue
        count.injected += 1
        low, high = fault.seconds
        seconds = low if low == high else low + (high - low) * draw(*of, "seconds")
        found.append(Injection(number, fault, count.matched, seconds))
        if fault.ends:
            break
    return found


def draw(seed: int, number: int, client_id: str, count: int, what: str) -> float:
    """A number from 0 to 1, without 1: the same for the same arguments, on every machine."""
    text = f"{seed}\0{number}\0{client_id}\0{count}\0{what}"
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def error_of(fault: Fault) -> ServiceError:
    """The error that a `throttle` or `reject` answers with."""
    wanted = fault.error or "TooManyRequests"
    kind = next(
        each for each in ERRORS[fault.on] if each.code().removesuffix("Exception") == wanted
    )
    return kind(fault.message or f"{wanted}, by a fault script")


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> Callable[[str], bool]:
    """Whether a text fits a pattern of ``*`` and ``?``."""
    known = {each.value: each for each in Wildcard}
    return matcher([known.get(each, each) for each in glob]).test

"""What a device remembers of a journey to a new identity, and what is to be done next.

A journey (:mod:`fleetgate.device.provision`) may be killed at any instant, and lose its power. What
it has done is in its journal, and what it is about to do is written there first wherever it could
not be found out afterwards. So whoever comes next reads the journal and goes on:

=============  ==========================================  ==========================
state          what may have happened                      what comes next
=============  ==========================================  ==========================
(no journal)   nothing                                     begin
``asking``     a certificate was asked for, with the key   ask (again), with this key
               in ``private.key`` if it is there
``issued``     key, certificate and token are stored;      register while the token
               nothing was registered                      lives, else begin anew; when it
                                                           was rejected, try it before
``registering``  RegisterThing was sent, perhaps carried   register (again)
               out
``registered``  the answer is stored                       connect with the new one
``proven``     it has connected, and its files are         switch to it, and forget
               complete                                    the journal
=============  ==========================================  ==========================

Asking again is safe: the certificate of a lost answer was never registered, and the server deletes
it when its token ends. The key stays the same, because a certificate for it may be on its way.

Registering again is safe: the same token with the same parameters repeats the first answer, if the
server is Fleetgate. A server that says that the token is no good instead (it is over, or it was
used, by the request whose answer was lost) does not say whether the registration did happen. The
certificate is tried (:mod:`fleetgate.device.doubt`): when it connects, it did. Otherwise the
journal stays as it is, and its key, until the caller gives them up.

A server that rejects a registration, for whatever reason, when nothing was sent before, says that
nothing was registered. AWS's carries out a template by several operations, and does not say whether
it undoes those before the one that failed (AWS IoT API Reference, "RegisterThing"). So the journal
says ``rejected``, and before such a key is given up, its certificate is tried once; when it is
refused, the server's word is believed.

The end of the token is known by the clock of the device, which may be wrong. A token that seems to
be over in ``issued`` costs another certificate, nothing else, and once in a run; in ``registering``
the server is asked whatever the clock says. A clock that was set back since is not believed.

Nothing here touches a file or a clock. The token and the parameters may be secret: the first is in
the journal, which is as private as the key beside it; of the second there is a digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Any, Literal, TypeAlias, get_args

TOKEN_SECONDS = 3600.0
"""How long an ownership token lives. Source: AWS IoT Core Developer Guide, "Device provisioning
MQTT API" ("the token expires after one hour")."""

VERSION = 1

State: TypeAlias = Literal["asking", "issued", "registering", "registered", "proven"]
Purpose: TypeAlias = Literal["provision", "renew"]


class NextStep(Enum):
    """What a journey does next; see the module."""

    BEGIN = auto()
    CREATE = auto()
    REGISTER = auto()
    TRY = auto()
    PROVE = auto()
    SWITCH = auto()


class Damaged(ValueError):
    """This is no journal; the message is the member that is wrong, or ``""``."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a journey is for. ``parameters`` is a digest; see :func:`digest`."""

    purpose: Purpose
    endpoint: str
    port: int
    template: str
    parameters: str

    def differences(self, other: Goal) -> list[str]:
        """In which respects `other` is not the same, in words."""
        return [
            words
            for words, same in (
                ("another purpose", self.purpose == other.purpose),
                ("another endpoint", self.endpoint == other.endpoint),
                ("another port", self.port == other.port),
                ("another template", self.template == other.template),
                ("other parameters", self.parameters == other.parameters),
            )
            if not same
        ]


@dataclass(frozen=True, slots=True)
class Registration:
    """What the server made of the device, and the client id it connects with.

    ``thing_name`` is None when the template makes no thing. ``answer_lost`` says that the answer
    never arrived: the registration is known by its certificate's connecting alone, and thing name
    and configuration are what they were before, or unknown.
    """

    thing_name: str | None
    client_id: str
    device_configuration: dict[str, str]
    answer_lost: bool = False


@dataclass(frozen=True, slots=True)
class Journal:
    """The state of a journey; see the module.

    ``number`` is that of the identity it makes, ``previous`` that of the one it replaces. ``key``
    says of what kind the key is. ``client_id`` is the one the certificate was asked for with.
    ``issued_at`` and ``token_ends`` are seconds since 1970. ``rejected`` says that the server has
    rejected the certificate's registration.
    """

    state: State
    goal: Goal
    number: int
    previous: int | None
    key: str
    client_id: str
    certificate_id: str = ""
    token: str = field(default="", repr=False)
    issued_at: float = 0.0
    token_ends: float = 0.0
    registration: Registration | None = None
    rejected: bool = False

    def __str__(self) -> str:
        """Thing and certificate, as far as they are known."""
        thing = self.registration.thing_name if self.registration else None
        certificate = f"certificate {self.certificate_id}" if self.certificate_id else "no answer"
        return certificate if thing is None else f"thing `{thing:.128}`, {certificate}"


# --- decisions ---


def next_step(journal: Journal | None, now: float) -> NextStep:
    """What is to be done, as the table in the module has it; `now` is in seconds since 1970."""
    if journal is None:
        return NextStep.BEGIN
    match journal.state:
        case "asking":
            return NextStep.CREATE
        case "issued":
            if token_lives(journal, now):
                return NextStep.REGISTER
            return NextStep.TRY if journal.rejected else NextStep.BEGIN
        case "registering":
            return NextStep.REGISTER
        case "registered":
            return NextStep.PROVE
        case "proven":
            return NextStep.SWITCH


def token_lives(journal: Journal, now: float) -> bool:
    """Whether the token may still be good, as far as the device's clock knows."""
    return now < journal.token_ends


def may_begin_anew(journal: Journal) -> bool:
    """Whether nothing can have been registered, so that the journey may be given up."""
    return journal.state in ("asking", "issued")


# --- what happened ---


def begun(goal: Goal, number: int, previous: int | None, key: str, client_id: str) -> Journal:
    """A journey that is about to ask for a certificate."""
    return Journal("asking", goal, number, previous, key, client_id)


def issued(
    journal: Journal, certificate_id: str, token: str, asked_at: float, token_seconds: float
) -> Journal:
    """The certificate came, and is stored with its key."""
    return replace(
        journal,
        state="issued",
        certificate_id=certificate_id,
        token=token,
        issued_at=asked_at,
        token_ends=asked_at + token_seconds,
    )


def registering(journal: Journal) -> Journal:
    """RegisterThing is about to be sent."""
    return replace(journal, state="registering")


def not_registered(journal: Journal, *, rejected: bool = False) -> Journal:
    """The certificate was not registered: the server has said so, or never got the request."""
    return replace(journal, state="issued", rejected=journal.rejected or rejected)


def registered(journal: Journal, registration: Registration) -> Journal:
    """The server has registered the device. The token has done its duty."""
    return replace(journal, state="registered", token="", registration=registration)


def called(journal: Journal, client_id: str) -> Journal:
    """The new identity, which has not connected yet, is to do so with `client_id`."""
    if journal.registration is None:
        return journal
    return replace(journal, registration=replace(journal.registration, client_id=client_id))


def proven(journal: Journal) -> Journal:
    """The new identity has connected."""
    return replace(journal, state="proven")


# --- as text ---


def digest(parameters: Mapping[str, str]) -> str:
    """What is kept of the parameters, which may be secret: SHA-256, hexadecimal."""
    text = json.dumps(dict(parameters), sort_keys=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def dump(journal: Journal) -> str:
    """The journal as JSON."""
    registration = journal.registration
    values = {
        "version": VERSION,
        "state": journal.state,
        "purpose": journal.goal.purpose,
        "endpoint": journal.goal.endpoint,
        "port": journal.goal.port,
        "template": journal.goal.template,
        "parametersSha256": journal.goal.parameters,
        "number": journal.number,
        "previous": journal.previous,
        "key": journal.key,
        "clientId": journal.client_id,
        "certificateId": journal.certificate_id,
        "certificateOwnershipToken": journal.token,
        "issuedAt": journal.issued_at,
        "tokenEnds": journal.token_ends,
        "rejected": journal.rejected,
        "registration": registration
        and {
            "thingName": registration.thing_name,
            "clientId": registration.client_id,
            "deviceConfiguration": registration.device_configuration,
            "answerLost": registration.answer_lost,
        },
    }
    return json.dumps(values, ensure_ascii=False, indent=2) + "\n"


def parse(content: bytes) -> Journal:
    """The journal in `content`. Raises Damaged when it is none that :func:`dump` has made."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Damaged("") from error
    if not isinstance(values, dict):
        raise Damaged("")
    if values.get("version") != VERSION:
        raise Damaged("version")
    state = _one_of(values, "state", get_args(State))
    asked = state == "asking"
    done = state in ("registered", "proven")
    return Journal(
        state,
        Goal(
            _one_of(values, "purpose", get_args(Purpose)),
            _text(values, "endpoint"),
            _number(values, "port"),
            _text(values, "template"),
            _text(values, "parametersSha256"),
        ),
        _number(values, "number"),
        None if values.get("previous") is None else _number(values, "previous"),
        _text(values, "key"),
        _text(values, "clientId"),
        "" if asked else _text(values, "certificateId"),
        "" if asked or done else _text(values, "certificateOwnershipToken"),
        _seconds(values, "issuedAt"),
        _seconds(values, "tokenEnds"),
        _registration(values) if done else None,
        values.get("rejected") is True,
    )


def _registration(values: Mapping[str, Any]) -> Registration:
    answer = values.get("registration")
    if not isinstance(answer, dict):
        raise Damaged("registration")
    configuration = answer.get("deviceConfiguration")
    if not isinstance(configuration, dict) or not all(
        isinstance(each, str) for each in configuration.values()
    ):
        raise Damaged("deviceConfiguration")
    return Registration(
        None if answer.get("thingName") is None else _text(answer, "thingName"),
        _text(answer, "clientId"),
        configuration,
        answer.get("answerLost") is True,
    )


def _text(values: Mapping[str, Any], member: str) -> str:
    value = values.get(member)
    if not isinstance(value, str) or not value:
        raise Damaged(member)
    return value


def _number(values: Mapping[str, Any], member: str) -> int:
    value = values.get(member)
    if type(value) is not int or value < 1:
        raise Damaged(member)
    return value


def _seconds(values: Mapping[str, Any], member: str) -> float:
    value = values.get(member)
    if type(value) not in (int, float):
        raise Damaged(member)
    return float(value)  # type: ignore[arg-type]


def _one_of(values: Mapping[str, Any], member: str, choices: tuple[Any, ...]) -> Any:
    value = values.get(member)
    if value not in choices:
        raise Damaged(member)
    return value

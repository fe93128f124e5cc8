"""Reading fault scripts: a mistake is an error that names the fault, the key, the rule, the value.

Source of the codes: MQTT 5.0 sections 3.2.2.2, 3.4.2.1, 3.9.3, 3.14.2.1.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NoReturn

from fleetgate.errors import InvalidFaultScript
from fleetgate.gateway.fault_replies import KINDS
from fleetgate.gateway.fault_script import (
    AFTER,
    CONNECT,
    ERRORS,
    MOMENTS,
    PUBLISH,
    REGISTER,
    SUBSCRIBE,
    Fault,
    Script,
)
from fleetgate.mqtt.reasons import (
    CONNACK_CODES,
    DISCONNECT_CODES,
    PUBACK_CODES,
    SUBACK_CODES,
    Reason,
)

MAX_CHARACTERS: Final = 65_536
MAX_FAULTS: Final = 100
MAX_SECONDS: Final = 600
_MAX_SKEW: Final = 20 * 365 * 86_400

_CODES: Final = {CONNECT: CONNACK_CODES, SUBSCRIBE: SUBACK_CODES, PUBLISH: PUBACK_CODES}

_PARAMETERS: Final[Mapping[str, tuple[str, ...]]] = {
    "delay": ("seconds",),
    "drop": (),
    "disconnect": ("code", "seconds"),
    "reset": ("seconds",),
    "throttle": ("message",),
    "reject": ("error", "message"),
    "duplicate": ("copies", "seconds"),
    "garbage": ("kind", "members", "bytes"),
    "clock-skew": ("seconds",),
    "expire-token": (),
    "another-key": (),
    "refuse": ("code",),
}
_NEEDED: Final = {
    ("delay", "seconds"),
    ("reject", "error"),
    ("garbage", "kind"),
    ("clock-skew", "seconds"),
}
_SELECTORS: Final = ("client", "certificate", "template", "topic")
_EVERY: Final = ("on", "do", "moment", *_SELECTORS, "nth", "times", "probability")
_TOP: Final = ("seed", "client", "certificate", "fault")


def parse_script(text: str) -> Script:
    """The script in `text`: TOML, or JSON when it begins with a brace.

    Raises InvalidFaultScript, which names the fault, the key, the rule and the value.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidFaultScript(f"it has {len(text)} characters; the limit is {MAX_CHARACTERS}")
    try:
        document = json.loads(text) if text.lstrip()[:1] == "{" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidFaultScript(f"it cannot be read: {error}") from None
    for key in document:
        if key not in _TOP:
            _wrong("", key, f"is unknown; known are {_listed(_TOP)}")
    seed = document.get("seed", 0)
    if type(seed) is not int or not 0 <= seed < 1 << 63:
        _wrong("", "seed", "a whole number from 0 to 2^63 - 1 is expected", seed)
    common = {name: _glob("", name, document.get(name, "*")) for name in ("client", "certificate")}
    tables = document.get("fault", [])
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        _wrong("", "fault", "tables are expected, each after a line `[[fault]]`")
    if len(tables) > MAX_FAULTS:
        _wrong("", "fault", f"at most {MAX_FAULTS} are expected", len(tables))
    return Script(seed, tuple(_fault(at, each, common) for at, each in enumerate(tables, 1)))


def _fault(number: int, table: Mapping[str, Any], common: Mapping[str, str]) -> Fault:
    where = f"fault {number}"
    do = _one_of(where, "do", table.get("do"), MOMENTS)
    on = _one_of(where, "on", table.get("on"), MOMENTS[do], f"for `{do}` ")
    where = f"fault {number}, `{do}` on `{on}`"
    moment = _one_of(where, "moment", table.get("moment", MOMENTS[do][on][0]), MOMENTS[do][on])
    known = (*_EVERY, *_PARAMETERS[do])
    for key in table:
        if key not in known:
            _wrong(where, key, f"is unknown; known are {_listed(known)}")
        rule = _RULES.get(key)
        if rule is not None and not rule.fits(do, on, moment, table):
            _wrong(where, key, rule.text)
    for name in _PARAMETERS[do]:
        if (do, name) in _NEEDED and name not in table:
            _wrong(where, name, "is missing")
    values: dict[str, Any] = dict(common)
    for key in table.keys() - {"on", "do", "moment"}:
        values[key] = _READERS[key](where, key, table[key])
    if do == "refuse":
        values.setdefault("code", int(Reason.NOT_AUTHORIZED))
    fault = Fault(on, do, moment, **values)
    _check(where, fault, table)
    return fault


@dataclass(frozen=True, slots=True)
class _Rule:
    """When a key may be there at all."""

    fits: Callable[[str, str, str, Mapping[str, Any]], bool]
    text: str


_RULES: Final[Mapping[str, _Rule]] = MappingProxyType(
    {
        "template": _Rule(
            lambda _do, on, _moment, _table: on == REGISTER, f"is for `{REGISTER}` alone"
        ),
        "topic": _Rule(
            lambda _do, on, _moment, _table: on in (SUBSCRIBE, PUBLISH),
            f"is for `{SUBSCRIBE}` and `{PUBLISH}` alone",
        ),
        "seconds": _Rule(
            lambda do, _on, moment, _table: do not in ("disconnect", "reset") or moment == AFTER,
            f"is for the moment `{AFTER}` alone; a `delay` before it does the same elsewhere",
        ),
        "code": _Rule(
            lambda do, on, moment, _table: do == "refuse" or on != CONNECT or moment == AFTER,
            f"is for the moment `{AFTER}` alone: before CONNACK nobody says DISCONNECT",
        ),
        "members": _Rule(
            lambda _do, _on, _moment, table: table.get("kind") == "missing-members",
            "is for the kind `missing-members` alone",
        ),
        "bytes": _Rule(
            lambda _do, _on, _moment, table: table.get("kind") == "huge",
            "is for the kind `huge` alone",
        ),
    }
)


def _check(where: str, fault: Fault, table: Mapping[str, Any]) -> None:
    """What depends on more than one key."""
    low, high = fault.seconds
    if fault.do == "clock-skew":
        if not -_MAX_SKEW <= low <= high <= _MAX_SKEW:
            rule = f"seconds from -{_MAX_SKEW} to {_MAX_SKEW} are expected, the least first"
            _wrong(where, "seconds", rule, table["seconds"])
    elif not 0 <= low <= high <= MAX_SECONDS:
        rule = f"seconds from 0 to {MAX_SECONDS} are expected, the least first"
        _wrong(where, "seconds", rule, table["seconds"])
    if fault.error:
        known = [each.code().removesuffix("Exception") for each in ERRORS[fault.on]]
        _one_of(where, "error", fault.error, known)
    if "code" in table:
        codes = sorted(code for code in _CODES.get(fault.on, ()) if code >= 0x80)
        if fault.do == "disconnect":
            codes = sorted(code for code in DISCONNECT_CODES if code >= 0x80)
        if fault.code not in codes:
            rule = f"one of {', '.join(f'0x{code:02x}' for code in codes)} is expected"
            _wrong(where, "code", rule, table["code"])


def _glob(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 512:
        _wrong(where, key, "a text of 1 to 512 characters is expected, with `*` and `?`", value)
    return value


def _text(where: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= 1000:
        _wrong(where, key, "a text of 1 to 1000 characters is expected", value)
    return value


def _kind(where: str, key: str, value: Any) -> str:
    return _one_of(where, key, value, KINDS)


def _whole(least: int, most: int) -> Callable[[str, str, Any], int]:
    def read(where: str, key: str, value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            _wrong(where, key, f"a whole number from {least} to {most} is expected", value)
        return value

    return read


def _share(where: str, key: str, value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        _wrong(where, key, "a number from 0 to 1 is expected", value)
    return float(value)


def _range(where: str, key: str, value: Any) -> tuple[float, float]:
    ends = value if isinstance(value, list) else [value, value]
    if len(ends) != 2 or any(type(each) not in (int, float) for each in ends):
        _wrong(where, key, "a number, or a list of the least and the most, is expected", value)
    return float(ends[0]), float(ends[1])


def _names(where: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        _wrong(where, key, "a list of the members of a reply is expected", value)
    return tuple(value)


_MANY: Final = 1_000_000_000
_MOST_BYTES: Final = 2**20  # AWS IoT's messages have 128 KiB; this is for what is no AWS IoT
_READERS: Final[Mapping[str, Callable[[str, str, Any], Any]]] = {
    **dict.fromkeys(_SELECTORS, _glob),
    "nth": _whole(1, _MANY),
    "times": _whole(1, _MANY),
    "probability": _share,
    "seconds": _range,
    "code": _whole(0, 255),
    "error": _text,
    "message": _text,
    "copies": _whole(2, 10),
    "kind": _kind,
    "members": _names,
    "bytes": _whole(1, _MOST_BYTES),
}


def _one_of(where: str, key: str, value: Any, known: Any, what: str = "") -> str:
    if value is None:
        _wrong(where, key, f"is missing; {what}one of {_listed(known)} is expected")
    if not isinstance(value, str) or value not in known:
        _wrong(where, key, f"{what}one of {_listed(known)} is expected", value)
    return value


_NOTHING: Final = object()


def _wrong(where: str, key: str, rule: str, value: object = _NOTHING) -> NoReturn:
    said = "" if value is _NOTHING else f", not `{str(value)[:80]}`"
    raise InvalidFaultScript(
        f"{where}: `{key}`: {rule}{said}" if where else f"`{key}`: {rule}{said}"
    )


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)

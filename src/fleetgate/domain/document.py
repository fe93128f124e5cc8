"""JSON documents that users write (policies, templates): read strictly, quoted in messages."""

from __future__ import annotations

import json
import re
from typing import Any, Final

MAX_DIGITS: Final = 4_000
"""Digits of a whole number. Python itself refuses more than 4300."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BRACKETS = re.compile(r'\\.|["\[\]{}]', re.DOTALL)


def read(text: str, *, max_depth: int) -> Any:
    """The value of a JSON text (RFC 8259), nested at most `max_depth` deep.

    Stricter than the RFC where it leaves a choice: a name may occur once in an object, numbers
    are finite, and strings hold no lone surrogates. Raises ValueError with a message fit to show.
    """
    if _depth(text) > max_depth:
        raise ValueError(f"it is nested more than {max_depth} deep")
    try:
        text.encode()
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text else ""
        where = f"{line}column {error.colno}"
        raise ValueError(f"it is not JSON: {error.msg.lower()} at {where}") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    return value


def minified(value: Any) -> str:
    """JSON text without insignificant white space; object members stay in their order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def quoted(text: object, limit: int = 80) -> str:
    """What a user sent, as it appears in a message: in back-ticks, cut to `limit` characters."""
    shown = text if isinstance(text, str) else repr(text)
    return f"`{shown}`" if len(shown) <= limit else f"`{shown[:limit]}...`"


def printable(text: str, limit: int) -> str:
    """Text fit for a line of a log and for every database, of at most `limit` characters.

    Control characters, line separators and lone surrogates are written as in JSON (``\\u0000``).
    PostgreSQL takes no U+0000, and UTF-8 has no lone surrogates.
    """
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text[:limit])[:limit]


def _depth(text: str) -> int:
    # Linear, and before the decoder: its own limit depends on how deep the caller's stack is.
    deepest = depth = 0
    in_string = False
    for mark in _BRACKETS.findall(text):
        if mark == '"':
            in_string = not in_string
        elif in_string or mark[0] == "\\":
            continue
        elif mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"{quoted(name)} occurs twice in one object")
            seen.add(name)
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits; the limit is {MAX_DIGITS}")
    return int(digits)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{quoted(name)} is not JSON")

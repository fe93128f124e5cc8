"""The regular expressions of a service model, which are Java's, as Python's.

Theory of operation. In the model of ``iot`` a character outside ASCII can be told apart by its
Unicode general category alone (``\\p{L}``, ``[^\\p{C}]``); everything else names ASCII characters.
So a value is first reduced: each character outside ASCII becomes the one character that stands for
its category, and ``\\p{L}`` becomes the handful of characters that stand for letters. No table of
Unicode ranges is needed, and an expression stays as small as its author wrote it. The models of
``iam`` and ``sts`` also have expressions that name characters by number
(``\\u00A1-\\u00FF``); those have no categories and are matched against the value as it is.

Source: Java SE 17 API, ``java.util.regex.Pattern`` (without UNICODE_CHARACTER_CLASS: ``\\w``,
``\\d``, ``\\s`` and the POSIX classes are ASCII only).
"""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import category

_CATEGORIES = (
    *("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No"),
    *("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So"),
    *("Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"),
)
# The stand-ins are code points of private use. U+0085 stands for itself: it is the one control
# character outside ASCII that Java's `.` does not match.
_STAND_IN = {name: chr(0xE000 + at) for at, name in enumerate(_CATEGORIES)}
_NEXT_LINE = "\x85"
_ASCII = frozenset(map(chr, range(128)))
_CATEGORY = (
    {character: category(character) for character in _ASCII}
    | {stand_in: name for name, stand_in in _STAND_IN.items()}
    | {_NEXT_LINE: "Cc"}
)
_LINE_TERMINATORS = "\n\r" + _NEXT_LINE + _STAND_IN["Zl"] + _STAND_IN["Zp"] + "\u2028\u2029"

_GRAPH = frozenset(map(chr, range(0x21, 0x7F)))
_ALNUM = frozenset(character for character in _GRAPH if character.isalnum())
_POSIX = {
    "ASCII": _ASCII,
    "Graph": _GRAPH,
    "Print": _GRAPH | {" "},
    "Alnum": _ALNUM,
    "Alpha": frozenset(character for character in _ALNUM if character.isalpha()),
    "Upper": frozenset(character for character in _ALNUM if character.isupper()),
    "Lower": frozenset(character for character in _ALNUM if character.islower()),
    "Digit": frozenset("0123456789"),
    "XDigit": frozenset("0123456789abcdefABCDEF"),
    "Punct": _GRAPH - _ALNUM,
    "Blank": frozenset(" \t"),
    "Space": frozenset(" \t\n\x0b\f\r"),
    "Cntrl": _ASCII - _GRAPH - {" "},
}

_TOKEN = re.compile(
    r"\\(?P<property>[pP])(?:\{(?P<name>\w+)\}|(?P<letter>[A-Z]))"
    r"|\\x(?P<hex>[0-7][0-9a-fA-F])"
    r"|\\u(?P<number>[0-9a-fA-F]{4})"
    r"|\\(?P<class>[wWdDsS])"
    r"|\\(?P<control>[tnrf])"
    r"|\\(?P<quoted>[^a-zA-Z0-9])"
    r"|(?P<open>\[\^?)"
    r"|(?P<close>\])"
    r"|(?P<dot>\.)"
    r"|(?P<plain>[ -\[\]-~])"
)
_NOT_AFTER = re.compile(r"\(\?<!\\[^a-zA-Z0-9]\)")
"""``(?<!\\.)``: the one look-around in a service model, the same in Python."""

_EXTENSIONS = tuple(f"(?{kind}" for kind in "=!<>idmsuxU-")  # leaves `(?:`


def matches(pattern: str, value: str) -> bool:
    """Whether the whole of `value` matches the Java expression `pattern`.

    Raises ValueError when the expression uses what no service model does: see
    :func:`translate`.
    """
    if pattern == "[\\s\\S]*":  # every twentieth shape has this one, on the longest values
        return True
    if not value.isascii() and "\\u" not in pattern:
        value = _reduced(value)
    return _compiled(pattern).fullmatch(value) is not None


def translate(pattern: str) -> str:
    """The Python expression for a Java one, to be matched against a reduced value.

    One with ``\\uHHHH`` is to be matched against the value itself.

    Raises ValueError for look-around (but for `_NOT_AFTER`), back references, nested classes and
    intersections, escapes other than ``\\p \\P \\w \\d \\s \\t \\n \\r \\f \\xHH \\uHHHH`` and
    quoted punctuation, and for ``\\p`` beside ``\\uHHHH``.
    """
    translated = []
    at = 0
    inside = False  # a character class
    while at < len(pattern):
        if not inside and (behind := _NOT_AFTER.match(pattern, at)) is not None:
            translated.append(behind[0])
            at = behind.end()
            continue
        token = _TOKEN.match(pattern, at)
        if token is None or pattern.startswith(("[", "&&") if inside else _EXTENSIONS, at):
            raise ValueError(f"`{pattern}` is not supported from character {at} on")
        at = token.end()
        if token["property"]:
            if "\\u" in pattern:
                raise ValueError(f"`{pattern}` has both categories and characters by number")
            members = _property(token["name"] or token["letter"], token["property"] == "P")
            written = "".join(f"\\x{ord(c):02x}" if ord(c) < 256 else c for c in sorted(members))
            translated.append(written if inside else f"[{written}]")
        elif token["dot"] and not inside:
            translated.append(f"[^{_LINE_TERMINATORS}]")
        elif inside and token["plain"] and token["plain"] in "&~|":
            translated.append("\\" + token["plain"])  # doubled, they would be set operations
        else:
            translated.append(token[0])
            inside = bool(token["open"]) or (inside and not token["close"])
    return "".join(translated)


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern), re.ASCII)


def _property(name: str, negated: bool) -> frozenset[str]:
    """The ASCII characters and stand-ins with a property of Java's ``\\p{...}``."""
    members = _POSIX.get(name)
    if members is None:
        members = frozenset(c for c, its in _CATEGORY.items() if its.startswith(name))
    if not members:
        raise ValueError(f"`\\p{{{name}}}` is not a known character property")
    return frozenset(_CATEGORY) - members if negated else members


def _reduced(value: str) -> str:
    return "".join(c if c < "\x80" or c == _NEXT_LINE else _STAND_IN[category(c)] for c in value)

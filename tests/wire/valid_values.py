"""Values that keep every constraint of a shape, for properties that hold for all of them."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from fleetgate.wire import patterns
from fleetgate.wire.model import Member, Shape

_ANY = st.characters(codec="utf-8")
_HEADER = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
_LONGEST = 2048


def valid_members(
    shape: Shape, alphabet: st.SearchStrategy[str] = _ANY
) -> st.SearchStrategy[dict[str, Any]]:
    """The members of a structure by the names of the model; the optional ones may be absent.

    Text without a pattern is made of the characters of `alphabet`.
    """
    members = shape.members.values()
    return st.fixed_dictionaries(
        {each.name: _member(each, alphabet) for each in members if each.required},
        optional={each.name: _member(each, alphabet) for each in members if not each.required},
    )


def _member(member: Member, alphabet: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    found = valid(member.shape, alphabet)
    if member.shape.type != "string" or member.location is None:
        return found
    if member.location == "header":
        if not (member.shape.pattern or member.shape.enum):
            low = int(member.shape.minimum or 1)
            found = st.text(_HEADER, min_size=low, max_size=low + 20)
        # what HTTP takes away from both ends of a header is not there to be kept
        return found.filter(lambda text: text.isprintable() and text == text.strip() != "")
    # a label is never empty, and a dot alone would be a step in the path (RFC 3986, 5.2.4)
    return found.filter(lambda text: text not in {"", ".", ".."})


def valid(shape: Shape, alphabet: st.SearchStrategy[str] = _ANY) -> st.SearchStrategy[Any]:
    """Values that keep every constraint of a shape; times are whole seconds."""
    low = int(shape.minimum or 0)
    high = int(shape.maximum) if shape.maximum is not None else low + 5
    if shape.enum:
        return st.sampled_from(shape.enum)
    match shape.type:
        case "string" if shape.pattern and "(?!" in shape.pattern:
            # of account aliases, which are only answered: Java and Python read it alike
            return st.from_regex(re.compile(shape.pattern), fullmatch=True).filter(
                lambda text: low <= len(text) <= high
            )
        case "string" if shape.pattern and shape.pattern != r"[\s\S]*":
            pattern = shape.pattern
            return st.from_regex(_sized(pattern, low, high), fullmatch=True).filter(
                lambda text: (
                    low <= len(text) <= min(high, _LONGEST) and patterns.matches(pattern, text)
                )
            )
        case "string":
            return st.text(alphabet, min_size=low, max_size=min(high, low + 20))
        case "boolean":
            return st.booleans()
        case "integer" | "long":
            return st.integers(low, max(high, low))
        case "timestamp":
            return st.integers(0, 4_000_000_000)
        case "float" | "double":
            return st.floats(shape.minimum or 0, shape.maximum or 1e9)
        case "blob":
            return st.binary(min_size=low, max_size=low + 5)
        case "list":
            assert shape.element
            inner = valid(shape.element, alphabet)
            return st.lists(inner, min_size=low, max_size=max(low, min(high, 2)))
        case "map":
            assert shape.key
            assert shape.element
            most = max(low, 1)
            inner = valid(shape.element, alphabet)
            key = valid(shape.key, alphabet)
            return st.dictionaries(key, inner, min_size=low, max_size=most)
    return valid_members(shape, alphabet)


def _sized(pattern: str, low: int, high: int) -> re.Pattern[str]:
    """The expression, its last repetition bounded: else a length of 64 would never come up."""
    translated = patterns.translate(pattern)
    bounds = f"]{{{low},{min(high, low + 20)}}}"
    return re.compile(re.sub(r"\][+*](?=\)?\$?$)", bounds, translated), re.ASCII)

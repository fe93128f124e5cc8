"""wire.patterns: Java's regular expressions (Java SE 17 API, java.util.regex.Pattern)."""

from __future__ import annotations

import re
import time
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.wire import patterns
from fleetgate.wire.constraints import LONGEST_WITHOUT_MAXIMUM
from fleetgate.wire.model import Service, Shape


def _shapes_with_patterns(service: Service) -> list[Shape]:
    described = service._described_shapes
    return [service.shape(name) for name, shape in described.items() if "pattern" in shape]


def test_every_pattern_of_the_model_translates(iot: Service) -> None:
    shapes = _shapes_with_patterns(iot)
    assert len(shapes) == 127
    for shape in shapes:
        assert shape.pattern
        re.compile(patterns.translate(shape.pattern))


@pytest.mark.parametrize(
    ("pattern", "matching", "failing"),
    [
        # `matches` is about the whole value
        ("[a-zA-Z0-9:_-]+", ["lamp-1", "a:b_c"], ["", "a b", "a\n", "é", "a/b", " a"]),
        ("^[0-9A-Za-z_-]+$", ["a"], ["a\n", "\na"]),
        (r"^([1-9]|[12][0-9]|3[01])$|^LAST$", ["1", "31", "LAST"], ["32", "LAST1", "0", ""]),
        (r"([\n\t])|(\r\n)|(,)", ["\n", "\t", "\r\n", ","], ["\r", ",,", ""]),
        ("^[1-9]+.[0-9]+", ["1.0", "123", "9x9"], ["1.", "0.1", "1\n1", "1.0x"]),
        ("^[^_].*$", ["a_b", "ü", "a\u0084"], ["_a", "", "a\nb", "a\u0085b", "a\u2028b", "a\rb"]),
        # the POSIX classes are ASCII
        (r"[\p{Graph}\x20]*", ["a b~!", ""], ["a\tb", "é", "\x7f", "a\u00a0"]),
        (r"[\p{Print}]*", ["a b", ""], ["\t", "é"]),
        (r"[\p{Upper}\p{Digit}_]+", ["A_1"], ["a", "É", "١"]),
        (r"\p{Punct}+", ["!~_-"], ["a", "§", " "]),
        (r"\p{Alpha}\p{Lower}\p{XDigit}", ["Zaf", "aaF"], ["1aa", "aAa", "aag"]),
        (r"[^\p{Cntrl}]*", ["é\u0085 ", ""], ["\x00", "\x7f", "\x1f"]),
        # general categories are Unicode's
        (
            r"[^\p{C}]*",
            ["a é ☃ \u2028", ""],
            ["\x00", "\u0085", "\u200b", "\ue000", "\u0378", "\n"],
        ),
        (
            r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$",
            ["Straße 東京 ٣ Ⅷ", "a-b@c"],
            ["☃", "a,b", "a\tb", "é́!"],
        ),
        (r"\p{Lu}\pL\PL", ["Éa1", "ÀÀ-"], ["éa1", "Éaa"]),
        (r"[\P{L}]", ["1", "☃"], ["a", "é"]),
        # \w, \s and \d are ASCII
        (r"[\w+=,.@-]+", ["a_1@b"], ["é", ""]),
        (r"\S{3,4}", ["abc", "éab"], ["ab", "a c", "abcde"]),
        (r"\d+", ["12"], ["١"]),
        (r"[\s\S]*", ["", "\x00é\n☃"], []),
        (r"a.c", ["abc", "aéc", "a c"], ["a\nc", "ac"]),
        (r"(?:a|b)c", ["ac", "bc"], ["abc"]),
        (r"[a&~|]", ["a", "&", "~", "|"], ["c"]),
        (r"arn:[!-~]+", ["arn:aws:x"], ["arn:", "arn:é"]),
        (r"[a-zA-Z0-9!_.*'()-\/]+", ["a(b),c+d/e"], ["a:b", "a b"]),
        # characters by their number, of four digits: the fifth is a character of its own
        (r"[\u0009\u0020-\u00FF]+", ["a\té"], ["a\n", "Ā", ""]),
        (r"(\u002F)|(\u002F[\u0021-\u007E]+\u002F)", ["/", "/a/b/"], ["//", "/a", "/ /"]),
        (r"[^\u0085].", ["é☃"], ["\u0085a", "a\u2028", "a\u0085"]),
        (r"[\uE000-\uFFFD\u10000-\u10FFFF]+", ["\ue000", "0Z", "F"], ["/", "\U00010000"]),
    ],
)
def test_a_value_matches_as_in_java(pattern: str, matching: list[str], failing: list[str]) -> None:
    assert [value for value in matching if not patterns.matches(pattern, value)] == []
    assert [value for value in failing if patterns.matches(pattern, value)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)b",
        "(?<!a)b",
        "(?i)a",
        r"(a)\1",
        "[a[b]]",
        "[a-z&&[^b]]",
        r"\bword",
        r"\Qa\E",
        r"\p{IsLatin}",
        r"\p{}",
        r"\xe9",
        "é",
        "a\\",
    ],
)
def test_what_no_service_model_uses_is_not_supported(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"not supported|not a known"):
        patterns.translate(pattern)


@pytest.mark.parametrize("name", ["L", "Z", "N", "C", "Lu", "Nd", "P", "S", "M", "Cn", "Cs", "Zl"])
def test_a_category_holds_exactly_its_characters(name: str) -> None:
    inside, outside = f"\\p{{{name}}}", f"[^\\p{{{name}}}]"
    for point in [*range(0x3100), *range(0x3100, 0x11_0000, 997), 0xD800, 0xFFFF, 0x10FFFF]:
        character = chr(point)
        expected = category(character).startswith(name)
        assert patterns.matches(inside, character) is expected, hex(point)
        assert patterns.matches(outside, character) is not expected, hex(point)


@given(value=st.text())
def test_the_length_of_a_value_is_kept(value: str) -> None:
    assert patterns.matches(rf"[\P{{Cn}}\p{{Cn}}]{{{len(value)}}}", value)


def test_no_pattern_of_the_model_takes_long(iot: Service) -> None:
    slowest = 0.0
    for shape in _shapes_with_patterns(iot):
        assert shape.pattern
        longest = int(shape.maximum or LONGEST_WITHOUT_MAXIMUM)
        for repeated in ("1", "a", "-", "=", "\t", "é", "a1", "a/", "1.", "ab-"):
            value = (repeated * longest)[: longest - 1] + "\x00"
            start = time.process_time()
            patterns.matches(shape.pattern, value)
            slowest = max(slowest, time.process_time() - start)
    assert slowest < 0.25

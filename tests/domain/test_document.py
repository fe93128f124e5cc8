from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.domain.document import minified, quoted, read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a":1,"a":2}', "`a` occurs twice"),
        ('{"b":{"a":1,"a":2}}', "`a` occurs twice"),
        ("[NaN]", "`NaN` is not JSON"),
        ("[-Infinity]", "`-Infinity` is not JSON"),
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[[[[[1]]]]]", "nested more than 4"),
        ("[" * 100_000, "nested more than 4"),
        ('"\\ud800"', "surrogate"),
        ('{"\\ud800": 1}', "surrogate"),
        ('"\ud800"', "surrogate"),
        ("1" * 5000, "a number has 5000 digits; the limit is 4000"),
    ],
)
def test_what_rfc_8259_leaves_open_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(text, max_depth=4)


def test_brackets_inside_strings_do_not_nest() -> None:
    assert read(r'["[[[[[", "\"[[[["]', max_depth=1) == ["[[[[[", '"[[[[']


@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        read(text, max_depth=8)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner)
        ),
        max_leaves=10,
    )
)
def test_what_was_minified_reads_back(value: object) -> None:
    assert read(minified(value), max_depth=64) == value
    assert read(json.dumps(value), max_depth=64) == value


def test_minified_keeps_the_order_of_members() -> None:
    assert minified({"b": [1, 2], "a": "é"}) == '{"b":[1,2],"a":"é"}'


def test_long_input_is_cut_when_quoted() -> None:
    assert quoted("a") == "`a`"
    assert quoted(None) == "`None`"
    assert quoted("a" * 100) == f"`{'a' * 80}...`"

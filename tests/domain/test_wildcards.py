from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.domain.wildcards import Wildcard, matcher

RUN, ONE = Wildcard.RUN, Wildcard.ONE
FEW: list[str | Wildcard] = [RUN, "a", "b"]
PARTS = st.lists(st.sampled_from([RUN, ONE, "a", "b", "ab", ".", "*", "\n"])) | st.lists(
    st.sampled_from(FEW), max_size=5
)
TEXTS = st.text("ab.*\n", max_size=12) | st.text("ab", max_size=4)


def oracle(parts: list[str | Wildcard], text: str) -> bool:
    """Which ends of `text` each part may reach, part by part."""
    ends = {0}
    for part in parts:
        if part is RUN:
            ends = {end for start in ends for end in range(start, len(text) + 1)}
        elif part is ONE:
            ends = {start + 1 for start in ends if start < len(text)}
        else:
            run = str(part)
            ends = {start + len(run) for start in ends if text.startswith(run, start)}
    return len(text) in ends


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["ab", RUN, "ba"], "aba"),
        ([RUN, "ab", RUN, "ab", RUN], "ab"),
        ([RUN, "b", RUN, "b"], "b"),
        (["a", RUN, "a", RUN], "a"),
    ],
)
def test_a_character_is_matched_once(parts: list[str | Wildcard], text: str) -> None:
    assert not matcher(parts).test(text)
    assert matcher(parts).test(text + text)


@given(PARTS, TEXTS)
def test_matching_equals_the_oracle(parts: list[str | Wildcard], text: str) -> None:
    compiled = matcher(parts)
    assert compiled.test(text) is oracle(parts, text)
    if compiled.exact is not None:
        assert (text == compiled.exact) is compiled.test(text)
    if compiled.prefix is not None:
        assert text.startswith(compiled.prefix) is compiled.test(text)


@given(PARTS, st.data())
def test_a_text_made_from_a_pattern_matches_it(
    parts: list[str | Wildcard], data: st.DataObject
) -> None:
    text = "".join(
        part
        if isinstance(part, str)
        else data.draw(TEXTS if part is RUN else st.sampled_from("ab.*\n"))
        for part in parts
    )
    assert matcher(parts).test(text)


@pytest.mark.parametrize("one", [[], [ONE]])
def test_many_wildcards_do_not_backtrack(one: list[str | Wildcard]) -> None:
    parts: list[str | Wildcard] = ["a", RUN, *one] * 200
    assert not matcher([*parts, "b"]).test("a" * 1000)
    assert matcher([*parts, "b"]).test("a" * 1000 + "b")


def test_long_runs_are_found_wherever_they_nearly_are() -> None:
    parts: list[str | Wildcard] = [RUN, "a" * 500, ONE, "b", RUN]
    for text in ("a" * 2000 + "b", "a" * 500 + "b" * 2, "x" * 1000 + "a" * 501 + "b"):
        assert matcher(parts).test(text)
    for text in ("a" * 2000, "a" * 499 + "xb", ("a" * 499 + "b") * 4):
        assert not matcher(parts).test(text)

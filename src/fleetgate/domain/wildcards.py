"""Patterns with the wildcards of policies: ``*`` is any run of characters, ``?`` is one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum


class Wildcard(Enum):
    """A wildcard in a pattern that has been split into parts; a part of text is a str."""

    RUN = "*"
    ONE = "?"


@dataclass(frozen=True, slots=True)
class Matcher:
    """A compiled pattern. `exact` or `prefix` say so when it is as simple as that."""

    test: Callable[[str], bool]
    exact: str | None = None
    prefix: str | None = None


def matcher(parts: Sequence[str | Wildcard]) -> Matcher:
    """A matcher whose time is bounded by pattern length times text length: no backtracking."""
    if Wildcard.ONE in parts:
        return Matcher(_regular_expression(parts))
    runs: list[str] = [""]
    for part in parts:
        if isinstance(part, str):
            runs[-1] += part
        else:
            runs.append("")
    if len(runs) == 1:
        exact = runs[0]
        return Matcher(lambda text: text == exact, exact=exact)
    head, *middle, tail = runs
    middle = [run for run in middle if run]
    if not middle and not tail:
        return Matcher(lambda text: text.startswith(head), prefix=head)
    shortest = len(head) + len(tail)

    def test(text: str) -> bool:
        # Taking the first place where each run fits leaves the most room for the rest.
        if len(text) < shortest or not text.startswith(head) or not text.endswith(tail):
            return False
        start, end = len(head), len(text) - len(tail)
        for run in middle:
            found = text.find(run, start, end)
            if found < 0:
                return False
            start = found + len(run)
        return True

    return Matcher(test)


def _regular_expression(parts: Sequence[str | Wildcard]) -> Callable[[str], bool]:
    runs: list[str] = [""]
    for part in parts:
        if part is Wildcard.RUN:
            runs.append("")
        else:
            runs[-1] += "." if part is Wildcard.ONE else re.escape(str(part))
    if len(runs) == 1:
        source = runs[0]
    else:
        head, *middle, tail = runs
        # Atomic groups: once a run has been found it is never looked for again.
        source = head + "".join(f"(?>.*?{run})" for run in middle if run) + f".*{tail}"
    compiled = re.compile(source, re.DOTALL)
    return lambda text: compiled.fullmatch(text) is not None

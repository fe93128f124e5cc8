"""Patterns with the wildcards of policies: ``*`` is any run of characters, ``?`` is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache


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
    """A matcher whose time is bounded by pattern length times text length: no backtracking.

    Making one costs no more than reading the pattern, since patterns with variables are made
    anew for each request.
    """
    runs: list[list[str | Wildcard]] = [[]]
    for part in parts:
        if part is Wildcard.RUN:
            runs.append([])
        else:
            runs[-1].append(part)
    if Wildcard.ONE in parts:
        return Matcher(_several([_Run.of(run) for run in runs]))
    head, *others = ["".join(map(str, run)) for run in runs]
    if not others:
        return Matcher(head.__eq__, exact=head)  # smaller than a function, and there are many
    *middle, tail = others
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


@dataclass(frozen=True, slots=True)
class _Run:
    """What stands between two ``*``: pieces of text with their offsets, ``?`` being the gaps."""

    pieces: tuple[tuple[int, str], ...]
    size: int

    @classmethod
    def of(cls, parts: Sequence[str | Wildcard]) -> _Run:
        pieces: list[tuple[int, str]] = []
        size = 0
        for part in parts:
            if isinstance(part, str):
                pieces.append((size, part))
                size += len(part)
            else:
                size += 1
        return cls(tuple(pieces), size)

    def fits(self, text: str, start: int) -> bool:
        """Does it stand at this place, which leaves room enough?"""
        return all(text.startswith(piece, start + offset) for offset, piece in self.pieces)

    def find(self, text: str, start: int, end: int) -> int:
        """The first place from `start` on where it ends before `end`, -1 if there is none."""
        last = end - self.size
        if last < start:
            return -1
        # One bit for each place; the places of each character are shifted to where the run begins.
        left = (1 << last + 1) - (1 << start)
        places = _places(text)
        for offset, piece in self.pieces:
            for at, character in enumerate(piece, offset):
                left &= places[character] >> at
                if not left:
                    return -1
        return (left & -left).bit_length() - 1


class _Places(dict[str, int]):
    """The places of a character in a text, as the bits of a number; found when asked for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __missing__(self, character: str) -> int:
        digits = bytearray(b"0") * (len(self._text) or 1)
        at = self._text.find(character)
        while at >= 0:
            digits[-1 - at] = 49
            at = self._text.find(character, at + 1)
        found = self[character] = int(digits, 2)
        return found


# many patterns are tried on one text
_places = lru_cache(maxsize=16)(_Places)


def _several(runs: Sequence[_Run]) -> Callable[[str], bool]:
    """The test of runs with ``*`` between them."""
    size = sum(run.size for run in runs)
    if len(runs) == 1:
        [only] = runs
        return lambda text: len(text) == size and only.fits(text, 0)
    head, *middle, tail = runs
    # what is not in a text is known sooner than where the rest of it is
    longest = max((piece for run in runs for _, piece in run.pieces), key=len, default="")

    def test(text: str) -> bool:
        start, end = head.size, len(text) - tail.size
        if len(text) < size or longest not in text:
            return False
        if not head.fits(text, 0) or not tail.fits(text, end):
            return False
        for run in middle:
            found = run.find(text, start, end)
            if found < 0:
                return False
            start = found + run.size
        return True

    return test

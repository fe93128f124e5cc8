"""A claim's QR codes on a terminal, one after the other, for a camera or a scanner."""

from __future__ import annotations

import os
import select
import shutil
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from fleetgate.device import claim as claims
from fleetgate.device import claim_code
from fleetgate.device.claim import Claim
from fleetgate.device.errors import BadRequest

_ALTERNATE_SCREEN = "\x1b[?1049h", "\x1b[?1049l"  # what is shown there is in no scroll-back
_CLEAR = "\x1b[H\x1b[2J"
_LINES = 2  # above and below a code
_PROMPT = "Enter: the next code; q and Enter: done "
_LOOK_SECONDS = 0.5
"""Seconds after which the size of the terminal is looked at again."""


def check(stdin: TextIO, stdout: TextIO, environ: Mapping[str, str]) -> None:
    """Raises BadRequest when codes would go, with the key in them, where nobody scans them."""
    for name, stream in (("input", stdin), ("output", stdout)):
        if not stream.isatty():
            raise BadRequest(
                f"--qr shows codes on a terminal, and the standard {name} is none: use --out"
            )
    if environ.get("TERM") == "dumb":
        raise BadRequest(
            "--qr needs a terminal that can be cleared and has colours, and this one is `dumb`, as "
            "TERM says: use --out, or another terminal"
        )
    try:
        "\u2580".encode(stdout.encoding)
    except UnicodeEncodeError:
        raise BadRequest(
            f"--qr needs a terminal in UTF-8, and this one is in {stdout.encoding}: use --out"
        ) from None


def show(
    claim: Claim,
    stdin: TextIO,
    stdout: TextIO,
    size_now: Callable[[], os.terminal_size] = shutil.get_terminal_size,
) -> None:
    """One code after the other, which leave nothing behind on the terminal.

    As long as none fits, none can have been scanned, and they are made anew for the size that the
    terminal has now. Afterwards they stay as they are, since a scanner has some of them.
    """
    begin, end = _ALTERNATE_SCREEN
    stdout.write(begin)
    try:
        number, texts, fits = 0, [""], False
        while True:
            size = size_now()
            if not fits:
                version = claim_code.version_for(size.columns, size.lines - _LINES)
                number, texts = 0, claim_code.encode(claim, version)
                columns, rows = claim_code.size_of(version)
            lacking = columns > size.columns or rows + _LINES > size.lines
            fits = fits or not lacking
            prompt = _PROMPT
            if lacking:  # below the code, because what is above it is out of sight
                prompt = (
                    f"too small: {size.columns} x {size.lines}, the code needs {columns} x "
                    f"{rows + _LINES}; make the letters smaller, or q: done "
                )
            caption = _caption(claim, number + 1, len(texts))
            shown = claim_code.draw(texts[number])
            stdout.write("\n".join([f"{_CLEAR}{caption}", *shown, prompt]))
            stdout.flush()
            answer = _answer(claim, stdin, size, size_now)
            if answer == "q":
                break
            if answer is not None:
                number = (number + 1) % len(texts)
    finally:
        stdout.write(end)
        stdout.flush()
    stdout.write(f"the claim for the template `{claim.template}` expires {expiry(claim)}\n")


def _answer(
    claim: Claim,
    stdin: TextIO,
    size: os.terminal_size,
    size_now: Callable[[], os.terminal_size],
) -> str | None:
    """What is typed, without blanks; ``q`` also at its end, and when the claim has expired.

    None when the terminal has another `size` now.
    """
    while True:
        left = claim.expiration.timestamp() - time.time()
        if left <= 0:
            return "q"
        if select.select([stdin], [], [], min(left, _LOOK_SECONDS))[0]:
            line = stdin.readline()
            return line.strip().lower() if line else "q"
        if size_now() != size:
            return None


def _caption(claim: Claim, number: int, count: int) -> str:
    which = f"code {number} of {count}, " if count > 1 else ""
    return f"{which}template `{claim.template}`, expires {expiry(claim)}"


def expiry(claim: Claim) -> str:
    """When `claim` expires, and how long that is from now."""
    left = max(int(claim.expiration.timestamp() - time.time()), 0)
    return f"{claims.shown(claim.expiration)}, in {left // 60} min {left % 60} s"

"""What the commands print: here, and nowhere else, text goes to a terminal.

Names, messages and reasons come from servers, proxies and files of others. Whatever is in them, a
terminal obeys nothing, no line pretends to be another one, and nothing reads from right to left.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO


def visible(text: str) -> str:
    """`text` with all that is not printed written as Python escapes it (``\\x1b``, ``\\u202e``).

    That are control characters, line ends, marks of direction, blanks but the usual one, lone
    surrogates, and characters that Unicode does not know (its general categories C and Z).
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii")
        for each in text
    )


def say(line: str, stream: TextIO | None = None) -> None:
    """One line on `stream`, by default standard output, with what its encoding has not escaped.

    When nobody reads it any more, what is being done goes on. Raises other OSErrors.
    """
    stream = sys.stdout if stream is None else stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = visible(line).encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # else it would be tried again at the end of the process
        os.close(nowhere)


def say_json(value: Any, stream: TextIO | None = None) -> None:
    """`value` as indented JSON, all of it ASCII."""
    for line in json.dumps(value, indent=2).splitlines():
        say(line, stream)

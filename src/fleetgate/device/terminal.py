"""What the commands print: here, and nowhere else, text goes to a terminal.

Names, messages and reasons come from servers, proxies and files of others. Whatever is in them, a
terminal obeys nothing, no line pretends to be another one, and nothing reads from right to left.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

from fleetgate.errors import Error


class NotWritten(Error):
    """A line could not be written; the message says where to, and why."""


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

    When nobody reads it any more, what is being done goes on. Raises NotWritten when it cannot be
    written for another reason, such as a full disk; the next line is tried again.
    """
    stream = sys.stdout if stream is None else stream
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = visible(line).encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        _to_nowhere(stream)
    except OSError as error:
        where = os.dup(stream.fileno())
        try:
            _to_nowhere(stream)
            stream.flush()
        finally:
            os.dup2(where, stream.fileno())
            os.close(where)
        name = "standard error" if stream is sys.stderr else "standard output"
        raise NotWritten(f"{name} cannot be written: {error.strerror}") from error


def _to_nowhere(stream: TextIO) -> None:
    """Else what `stream` still holds would be tried again, at the end of the process even."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def say_json(value: Any, stream: TextIO | None = None) -> None:
    """`value` as indented JSON, all of it ASCII."""
    for line in json.dumps(value, indent=2).splitlines():
        say(line, stream)

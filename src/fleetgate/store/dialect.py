"""Our SQL text in PostgreSQL's words.

Two things are translated. ``:name`` parameters become ``$1``, ``$2``, ... And text is given the
collation "C", which sorts by bytes as SQLite does, whatever the database's own collation is: in
column definitions, and where a parameter is cast to TEXT.

Source: PostgreSQL documentation, "PREPARE", "Collation Support", "Lexical Structure".
"""

from __future__ import annotations

import re
from functools import lru_cache

_TOKEN = re.compile(
    r"""'(?:[^']|'')*'          # text
      | "(?:[^"]|"")*"          # a quoted name
      | --[^\n]*                # comments
      | /\*.*?\*/
      | ::                      # a cast
      | :(?P<name>[A-Za-z_]\w*)
      | \bAS\s+TEXT\s*\)(?P<cast>)
      | \bTEXT\b(?P<type>)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_DEFINITION = re.compile(r"\s*(CREATE|ALTER)\s+TABLE\b", re.IGNORECASE)


@lru_cache(maxsize=4096)
def translate(sql: str) -> tuple[str, tuple[str, ...]]:
    """The statement for PostgreSQL, and the names of its parameters ``$1``, ``$2``, ..."""
    names: list[str] = []
    definition = _DEFINITION.match(sql) is not None

    def replace(found: re.Match[str]) -> str:
        name = found["name"]
        if name is not None:
            if name not in names:
                names.append(name)
            return f"${names.index(name) + 1}"
        text = found[0]
        if found["cast"] is not None or (definition and found["type"] is not None):
            return f'{text} COLLATE "C"'
        return text

    return _TOKEN.sub(replace, sql), tuple(names)

"""Names and values that begin with a prefix, as a range the index of a key can answer."""

from __future__ import annotations


def prefix_range(column: str, prefix: str | None) -> tuple[str, dict[str, object]]:
    """A condition and its parameters: `column` begins with `prefix`; always true for None.

    Text sorts by its bytes, and no character of a name or an attribute's value (ASCII without
    ``{|}~``) sorts behind ``~``.
    """
    if prefix is None:
        return "", {}
    return f"AND {column} >= :prefix AND {column} < :prefix_end ", {
        "prefix": prefix,
        "prefix_end": prefix + "~",
    }

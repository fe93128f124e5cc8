"""PEM, the text form of X.509 objects (RFC 7468)."""

from __future__ import annotations

import base64
import re

_BLOCK = re.compile(
    r"-----BEGIN ([A-Z0-9 ]+)-----[ \t]*\r?\n([A-Za-z0-9+/=\s]*?)-----END \1-----", re.ASCII
)
_COLUMNS = 64  # RFC 7468 section 2: generators wrap at exactly 64 characters


def encode(label: str, der: bytes) -> str:
    """`der` as one PEM block: LF line ends, 64 columns, a newline at the end."""
    text = base64.b64encode(der).decode("ascii")
    lines = [text[at : at + _COLUMNS] for at in range(0, len(text), _COLUMNS)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def decode(text: str, *labels: str) -> bytes:
    """The content of the one PEM block in `text`, whose label is one of `labels`.

    Text before the block is allowed (RFC 7468 section 2, and what `openssl ... -text` prints);
    after it there may be only white space. Raises ValueError with the rule that is broken.
    """
    count = text.count("-----BEGIN ")
    if count != 1:
        found = f"{count} PEM blocks" if count else f"no `-----BEGIN {labels[0]}-----` line"
        raise ValueError(f"exactly one PEM block is expected, but there is {found}")
    block = _BLOCK.search(text)
    if block is None:
        raise ValueError(
            "the PEM block is broken: it needs base64 between a BEGIN and an END line of one label"
        )
    if block[1] not in labels:
        raise ValueError(f"the PEM block is a `{block[1][:40]}`, not a `{labels[0]}`")
    rest = text[block.end() :].strip()
    if rest:
        raise ValueError(f"there is text after the PEM block: `{rest[:40]}`")
    return _content(block)


def decode_all(text: str, *labels: str) -> list[bytes]:
    """The contents of the PEM blocks in `text`, one at least, each with one of the `labels`.

    Text before each block is allowed, and only white space after the last one. Raises ValueError
    with the rule that is broken.
    """
    if not text.isascii():
        raise ValueError("PEM is made of ASCII characters (RFC 7468)")
    blocks = list(_BLOCK.finditer(text))
    count = text.count("-----BEGIN ")
    if not count:
        raise ValueError(f"there is no `-----BEGIN {labels[0]}-----` line")
    if len(blocks) != count:
        raise ValueError(
            f"{count - len(blocks)} of {count} PEM blocks are broken: each needs base64 between a "
            "BEGIN and an END line of one label"
        )
    for block in blocks:
        if block[1] not in labels:
            raise ValueError(f"there is a PEM block `{block[1][:40]}`, not a `{labels[0]}`")
    rest = text[blocks[-1].end() :].strip()
    if rest:
        raise ValueError("there is text after the last PEM block")
    return [_content(block) for block in blocks]


def _content(block: re.Match[str]) -> bytes:
    try:
        return base64.b64decode("".join(block[2].split()), validate=True)
    except ValueError as error:
        raise ValueError(f"the PEM block is not base64: {error}") from None

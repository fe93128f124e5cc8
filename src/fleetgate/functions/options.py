"""The options of a function of the configuration, read one by one.

Every method raises ValueError naming the option, the rule and the value; `finished` refuses what
nobody has read. Values of files that hold secrets are never part of a message.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from pathlib import Path

from fleetgate.functions.program import RESERVED

MAX_FILE = 1_048_576
"""Bytes of a file that an option names."""


class Options:
    """Options with their names; `directory` is what relative paths are relative to.

    `within` is the name of the option that these are part of.
    """

    def __init__(self, options: Mapping[str, object], directory: Path, within: str = "") -> None:
        self._left = dict(options)
        self._known: list[str] = []
        self._directory = directory
        self._within = f"{within}." if within else ""

    def named(self, name: str) -> str:
        """An option as messages name it."""
        return f"`{self._within}{name}`"

    def given(self, name: str) -> bool:
        """Whether the option is there, read or not."""
        return name in self._left

    def text(self, name: str, default: str = "", *, pattern: str = "", rule: str = "") -> str:
        """A text that matches `pattern`, which `rule` tells in words; required without default."""
        value = self._take(name)
        if value is None:
            if not default:
                raise ValueError(f"{self.named(name)} is required{f': {rule}' if rule else ''}")
            return default
        if not isinstance(value, str) or not value:
            raise ValueError(f"{self.named(name)} has to be a text, not {_shown(value)}")
        if pattern and not re.fullmatch(pattern, value):
            raise ValueError(f"{self.named(name)}: {rule}, not {_shown(value)}")
        return value

    def optional(self, name: str, *, pattern: str = "", rule: str = "") -> str:
        """As `text`, "" when it is not there."""
        if name in self._left:
            return self.text(name, pattern=pattern, rule=rule)
        self._known.append(name)
        return ""

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(
                f"{self.named(name)} has to be a whole number from {least} to {most}, "
                f"not {_shown(value)}"
            )
        return value

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """A number from `least` to `most`."""
        value = self._take(name)
        if value is None:
            return default
        known = isinstance(value, int | float) and not isinstance(value, bool)
        if not known or not least <= value <= most:  # type: ignore[operator]
            raise ValueError(
                f"{self.named(name)} has to be a number from {least:g} to {most:g}, "
                f"not {_shown(value)}"
            )
        return float(value)  # type: ignore[arg-type]

    def environment(self, name: str) -> dict[str, str]:
        """A table of environment variables; their values are never shown.

        Source: Lambda API reference, Environment, for the names.
        """
        value = self._take(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise ValueError(f"{self.named(name)} has to be a table of names and texts")
        for variable, text in value.items():
            if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]+", variable):
                raise ValueError(
                    f"{self.named(name)}: {_shown(variable)} is no name of a variable: a letter, "
                    "then one or more letters, digits or `_`"
                )
            if variable in RESERVED:
                raise ValueError(
                    f"{self.named(name)}: `{variable}` is reserved: functions find in it what "
                    "Lambda puts there"
                )
            if not isinstance(text, str) or "\0" in text:
                raise ValueError(f"{self.named(name)}: the value of `{variable}` has to be a text")
        return dict(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """true or false."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ValueError(f"{self.named(name)} has to be true or false, not {_shown(value)}")
        return value

    def texts(self, name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A list of texts."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) and v for v in value):
            raise ValueError(f"{self.named(name)} has to be a list of texts, not {_shown(value)}")
        return tuple(value)

    def table(self, name: str) -> Options:
        """The options within an option."""
        value = self._take(name)
        if not isinstance(value, Mapping):
            raise ValueError(f"{self.named(name)} has to be a table, not {_shown(value)}")
        return Options(value, self._directory, f"{self._within}{name}")

    def path(self, name: str) -> Path:
        """A path, absolute."""
        return self._directory / self.text(name, rule="a file is expected")

    def optional_path(self, name: str) -> Path | None:
        """A path, absolute, or None."""
        if name in self._left:
            return self.path(name)
        self._known.append(name)
        return None

    def paths(self, name: str, default: tuple[str, ...] = ()) -> tuple[Path, ...]:
        """Paths, absolute: one text or a list of texts."""
        if isinstance(self._left.get(name), str):
            return (self.path(name),)
        return tuple(self._directory / text for text in self.texts(name, default))

    def read(self, name: str, path: Path, *, secret: bool = False) -> bytes:
        """What the file of an option holds.

        One with a `secret` may be readable by its owner alone, as ssh wants it of its keys.
        """
        return read_file(self.named(name), path, secret=secret)

    def value(self, name: str) -> object:
        """Whatever it is, None when it is not there: for whoever checks it."""
        return self._take(name)

    def finished(self) -> None:
        """Refuses options that nobody has read."""
        if self._left:
            raise ValueError(
                f"{self.named(next(iter(self._left)))} is not an option; "
                f"there are {', '.join(f'`{name}`' for name in sorted(set(self._known)))}"
            )

    def _take(self, name: str) -> object:
        self._known.append(name)
        return self._left.pop(name, None)


def read_file(what: str, path: Path, *, secret: bool = False, group: bool = False) -> bytes:
    """The content of a file, `what` naming it. Raises ValueError, see `Options.read`.

    With `group` a secret may be readable by the file's group too.
    """
    try:
        with path.open("rb") as file:
            state = path.stat()
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ValueError(f"{what}: `{path}` cannot be read: {error.strerror}") from None
    if secret and state.st_mode & (0o027 if group else 0o077):
        allowed = (
            "its owner and group must not read it (chmod 640"
            if group
            else ("its owner must not read it (chmod 600")
        )
        raise ValueError(
            f"{what}: `{path}` holds a secret and has mode {stat.S_IMODE(state.st_mode):04o}; "
            f"others than {allowed})"
        )
    if len(content) > MAX_FILE:
        raise ValueError(f"{what}: `{path}` has more than {MAX_FILE} bytes")
    if not content.strip():
        raise ValueError(f"{what}: `{path}` is empty")
    return content


def read_secret(what: str, path: Path, *, group: bool = False) -> str:
    """The one line that a file holds (a PIN, a passphrase, a token), without its end."""
    try:
        text = read_file(what, path, secret=True, group=group).decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError(f"{what}: `{path}` is not UTF-8") from None
    if "\n" in text or "\0" in text:
        raise ValueError(f"{what}: `{path}` has to hold one line")
    return text


def _shown(value: object) -> str:
    return f"`{str(value)[:80]}`" if isinstance(value, str) else f"{value!r:.80}"

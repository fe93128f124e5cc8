"""``allow-list``: only devices with a serial number of a list are provisioned, each so often.

Theory of operation. The list is a CSV file or in the database. What was used of it is in the
database either way: a counter for each serial number, which the registration that succeeds counts
up by one statement, inside its own transaction (`settle`). The statement does nothing when none
is left, so that of any number of devices with one serial number as many get through as may, on
both databases; a registration that fails in any way takes its use back with everything else.
`answer`, before anything is built, only spares the others the way.

A serial number is what stands between commas without the white space around it. The device's is
compared as it is, to the letter.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fleetgate.domain.document import printable, quoted
from fleetgate.domain.resources import Resources
from fleetgate.errors import AccessDeniedException
from fleetgate.functions.options import Options
from fleetgate.operations.allow_list_file import (
    UNLIMITED,
    Contents,
    Entry,
    FileError,
    SerialFile,
    cannot_be_listed,
    uses_of,
)
from fleetgate.operations.built_in import Answer
from fleetgate.operations.call import Call
from fleetgate.store import allow_lists
from fleetgate.store.allow_lists import Serial, Use
from fleetgate.store.engine import Tx

log = logging.getLogger("fleetgate.functions")

PARAMETER = "SerialNumber"
"""The parameter of a template that holds the serial number, when the options name none."""


@dataclass(frozen=True, slots=True)
class AllowList:
    """A list; `name` is the name of its function, `file` None for one in the database.

    `uses` is how often a serial number may be used that does not say so itself, UNLIMITED for any
    number. With `overrides` the further columns of the list are parameters of the template.
    """

    name: str
    parameter: str = PARAMETER
    uses: int = 1
    overrides: bool = False
    file: SerialFile | None = None

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, object], directory: Path) -> AllowList:
        """Raises ValueError, naming option, rule and value."""
        given = Options(options, directory)
        parameter = given.text("parameter", PARAMETER)
        path, column = given.optional_path("file"), given.optional("column")
        uses, overrides = given.value("uses"), given.flag("overrides")
        given.finished()
        if column and path is None:
            raise ValueError("`column` is given without `file`: it is a column of that")
        file = None
        if path is not None:
            file = SerialFile(path, parameter, column or None, overrides=overrides)
        return cls(name, parameter, 1 if uses is None else uses_of(uses), overrides, file)

    @property
    def description(self) -> str:
        """``builtin:allow-list serials.csv``."""
        return "builtin:allow-list" + (f" {self.file.path}" if self.file is not None else "")

    async def check(self) -> None:
        """Reads the file; one that cannot be used is told in the log by whoever reads it."""
        if self.file is not None:
            with contextlib.suppress(FileError):
                await self.file.contents()

    async def answer(self, call: Call, event: Mapping[str, Any]) -> Answer:
        """Whether the device's serial number is on the list and may be used once more."""
        parameters = event.get("parameters")
        serial = parameters.get(self.parameter) if isinstance(parameters, Mapping) else None
        if not isinstance(serial, str) or not serial:
            return _no(f"the parameter `{self.parameter}` is missing, which has the serial number")
        contents: Contents | None = None
        if self.file is not None:
            try:
                contents = await self.file.contents()
            except FileError as error:
                return _no(f"{self.called} cannot be used: {error.message}")
        entry, kept = await call.read(self._find, serial, contents)
        if entry is None:
            like = await call.read(self._similar, serial, contents)
            return _no(f"serial number {_shown(serial)} is not on {self.called}{like}")
        uses = self._uses(entry)
        if uses != UNLIMITED and kept.used >= uses:
            return _no(await call.read(self.used_up, serial, uses))
        use = _Counted(self, serial, uses)
        return Answer(
            {"allowProvisioning": True, "parameterOverrides": dict(entry.overrides)}
            if entry.overrides
            else {"allowProvisioning": True},
            use.settle,
            f"serial number {_shown(serial)} is on {self.called}, may be used {_times(uses)} and "
            f"was used {_times(kept.used) if kept.used else 'never'}",
            use.announce,
        )

    def _find(self, tx: Tx, serial: str, contents: Contents | None) -> tuple[Entry | None, Serial]:
        """What the list says of a serial number, and what is known of its use."""
        kept = None if cannot_be_listed(serial) else allow_lists.find_serial(tx, self.name, serial)
        kept = kept or Serial(serial, False, None, None, 0, 0.0)
        if contents is not None:
            return contents.find(serial), kept
        if not kept.listed:
            return None, kept
        overrides = msgspec.json.decode(kept.overrides or "{}") if self.overrides else {}
        return Entry(kept.uses, overrides), kept

    def _similar(self, tx: Tx, serial: str, contents: Contents | None) -> str:
        """A hint for operators: what is on the list in another spelling."""
        bare = serial.strip()
        for other in dict.fromkeys((bare, bare.upper(), bare.lower())):
            if other and other != serial and self._find(tx, other, contents)[0] is not None:
                return f"; {_shown(other)} is: white space and case count"
        return ""

    def _uses(self, entry: Entry) -> int:
        return self.uses if entry.uses is None else entry.uses

    def used_up(self, tx: Tx, serial: str, uses: int) -> str:
        """Why a serial number may not be used again, in words."""
        last = allow_lists.list_uses(tx, self.name, serial, 1)
        by = ""
        if last:
            thing = f" for thing `{last[0].thing_name}`" if last[0].thing_name else ""
            by = f", last by certificate {last[0].certificate_id}{thing}"
        return (
            f"serial number {_shown(serial)} of {self.called} may be used {_times(uses)} and was "
            f"used so often{by}; `fleetgate allow-list release` gives a use back"
        )

    @property
    def called(self) -> str:
        """The list, in words for operators."""
        what = f" ({self.file.path})" if self.file is not None else ""
        return f"the allow-list `{self.name}`{what}"


@dataclass(slots=True)
class _Counted:
    """A use of a serial number, counted when the registration is stored."""

    allow_list: AllowList
    serial: str
    uses: int
    thing_name: str | None = None
    certificate_id: str = ""

    def settle(
        self, tx: Tx, call: Call, certificate_id: str, resources: Resources
    ) -> tuple[str, ...]:
        """Counts it, or raises AccessDeniedException when others were faster."""
        name, serial = self.allow_list.name, self.serial
        if self.allow_list.file is not None:
            counted = allow_lists.update_used_of_file(tx, name, serial, self.uses, call.now)
        else:
            counted = allow_lists.update_used(tx, name, serial, self.allow_list.uses)
        if not counted:
            kept = allow_lists.find_serial(tx, name, serial)
            if self.allow_list.file is None and (kept is None or not kept.listed):
                raise AccessDeniedException(
                    f"serial number {_shown(serial)} was taken from {self.allow_list.called}"
                )
            raise AccessDeniedException(self.allow_list.used_up(tx, serial, self.uses))
        self.certificate_id = certificate_id
        self.thing_name = None if resources.thing is None else resources.thing.name
        use = Use(certificate_id, self.thing_name, call.now)
        allow_lists.add_use(tx, name, serial, use)
        return ()

    def announce(self, call: Call) -> None:
        """Tells of it in the log."""
        log.info(
            "event=serial-used list=%s serial=%r uses=%s thing=%s certificate=%s request=%s",
            *(self.allow_list.name, printable(self.serial, 200), self.uses or "unlimited"),
            *(self.thing_name, self.certificate_id, call.request_id),
        )


def _no(reason: str) -> Answer:
    return Answer({"allowProvisioning": False}, reason=reason)


def _shown(serial: str) -> str:
    return quoted(printable(serial, 200), 200)


def _times(uses: int) -> str:
    if uses == UNLIMITED:
        return "any number of times"
    return "once" if uses == 1 else f"{uses} times"

"""``fleetgate allow-list``: the serial numbers that may register, on a running server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from fleetgate.errors import Error
from fleetgate.signed_requests import EndpointUrl, RunningServer

if TYPE_CHECKING:
    from fleetgate.operations.allow_list_file import Rows

BATCH = 1000
"""Serial numbers of one request."""

app = typer.Typer(
    help="Work on an allow-list of a running server.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The function of the configuration that it belongs to."),
]
Serial = Annotated[str, typer.Argument(metavar="SERIAL", help="The serial number.")]
Serials = Annotated[list[str], typer.Argument(metavar="SERIAL...", help="The serial numbers.")]


@app.command()
def add(
    name: Name,
    serials: Serials,
    uses: Annotated[
        str | None,
        typer.Option(metavar="N", help="How often each may be used: from 1, or unlimited."),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter of the template that devices with them get; repeatable.",
        ),
    ] = None,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Put serial numbers on a list, or change how often they may be used."""
    overrides = {}
    for each in override or ():
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise Error(f"--override `{each[:80]}`: NAME=VALUE is expected")
        overrides[key] = value
    server = _Server(name, endpoint_url)
    for batch in _batches(
        {"serialNumber": each, "uses": uses, "overrides": overrides} for each in serials
    ):
        server.ask("add", {"serialNumbers": batch})
    typer.echo(f"on the list {name}: {_count(len(serials))}")


@app.command()
def remove(name: Name, serials: Serials, endpoint_url: EndpointUrl = None) -> None:
    """Take serial numbers from a list; how often they were used is remembered.

    The exit code is 1 when one of them was not on it.
    """
    server = _Server(name, endpoint_url)
    removed: set[str] = set()
    for batch in _batches(iter(serials)):
        removed.update(server.ask("remove", {"serialNumbers": batch})["removed"])
    typer.echo(f"taken from the list {name}: {_count(len(removed))}")
    missing = [each for each in dict.fromkeys(serials) if each not in removed]
    if missing:
        raise Error(f"not on the list {name}: {', '.join(missing[:10])}")


@app.command(name="list")
def list_(
    name: Name,
    serial: Annotated[
        str | None,
        typer.Argument(
            metavar="[SERIAL]", help="This one alone, and what used it.", show_default=False
        ),
    ] = None,
    used: Annotated[
        bool, typer.Option("--used", help="Only those that were used at least once.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Print a list: each serial number, and how often it was used.

    Of a list in a file that is what the file says now, and what was used of it before.
    """
    server = _Server(name, endpoint_url)
    for each in [server.describe(serial)] if serial is not None else server.serials(used=used):
        typer.echo(json.dumps(each, ensure_ascii=False) if as_json else _line(each))
        for use in () if as_json else each.get("usedBy", ()):
            at = datetime.fromtimestamp(use["usedAt"], UTC)
            typer.echo(
                f"  {at:%Y-%m-%dT%H:%M:%SZ} certificate {use['certificateId']} "
                f"thing {use.get('thingName') or '-'}"
            )


@app.command(name="import")
def import_(
    name: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A CSV file with a header; - reads stdin.")
    ],
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The column with the serial numbers; without it SerialNumber or the first.",
        ),
    ] = None,
    overrides: Annotated[
        bool,
        typer.Option(
            "--overrides",
            help="The further columns are parameters of the template that devices get.",
        ),
    ] = False,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Put all serial numbers of a file on a list; the column uses says how often each may be used.

    Nothing is done when the file has a mistake. To import a file again changes nothing.
    """
    new = list(_read(file, column, overrides=overrides))
    server = _Server(name, endpoint_url)
    for batch in _batches(iter(new)):
        server.ask("add", {"serialNumbers": batch})
    typer.echo(f"on the list {name}: {_count(len(new))}")


@app.command()
def release(
    name: Name,
    serial: Serial,
    certificate: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The use by this certificate instead of the last one."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All uses of the serial number.")] = False,
    endpoint_url: EndpointUrl = None,
) -> None:
    """Give a use of a serial number back: a device with it may be provisioned once more."""
    if every and certificate is not None:
        raise Error("--all and --certificate exclude each other")
    asked = {"serialNumber": serial, "certificateId": certificate, "all": every}
    released = _Server(name, endpoint_url).ask("release", asked)["released"]
    typer.echo(f"given back to {serial}: {released} use{'' if released == 1 else 's'}")


# --- files -----------------------------------------------------------------------------------


def _read(file: Path, column: str | None, *, overrides: bool) -> Iterator[dict[str, Any]]:
    """What a file says, as the server takes it; raises Error."""
    from fleetgate.operations.allow_list import PARAMETER
    from fleetgate.operations.allow_list_file import UNLIMITED, Rows

    seen: set[str] = set()
    try:
        with sys.stdin.buffer if str(file) == "-" else file.open("rb") as lines:
            rows: Rows = Rows(lines, PARAMETER, column)
            for row in rows:
                if row.serial in seen:
                    raise ValueError(f"{rows.line}: `{row.serial[:80]}` is there a second time")
                seen.add(row.serial)
                yield {
                    "serialNumber": row.serial,
                    "uses": "unlimited" if row.uses == UNLIMITED else row.uses,
                    "overrides": rows.overrides(row.cells) if overrides else {},
                }
    except ValueError as error:
        raise Error(f"`{file}`: {error}") from None


def _batches(items: Iterator[Any]) -> Iterator[list[Any]]:
    batch = []
    for each in items:
        batch.append(each)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _count(number: int) -> str:
    return f"{number} serial number{'' if number == 1 else 's'}"


def _line(each: Mapping[str, Any]) -> str:
    uses = each.get("uses")
    line = f"{each['serialNumber']}\tused {each['used']}"
    line += f" of {uses}" if uses is not None else ""
    line += "" if each["listed"] or uses is not None else "\tnot on the list any more"
    further = each.get("overrides")
    return line + (f"\t{json.dumps(further, ensure_ascii=False)}" if further else "")


# --- the server ------------------------------------------------------------------------------


class _Server:
    """The allow-list of a function, on a running server."""

    def __init__(self, name: str, endpoint_url: str | None) -> None:
        self._running = RunningServer(endpoint_url)
        self._path = f"allow-lists/{quote(name, safe='')}"

    def serials(self, *, used: bool) -> Iterator[dict[str, Any]]:
        """All serial numbers of the list, page by page."""
        token = ""
        while True:
            query = {"limit": str(BATCH), "used": "true" if used else "false"}
            further = {"nextToken": token} if token else {}
            answer = self._running.ask("GET", self._path, query=query | further)
            yield from answer["serialNumbers"]
            token = answer.get("nextToken") or ""
            if not token:
                return

    def describe(self, serial: str) -> dict[str, Any]:
        """One serial number."""
        return self._running.ask("GET", self._path, query={"serialNumber": serial})

    def ask(self, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a change."""
        return self._running.ask("POST", f"{self._path}/{verb}", body)

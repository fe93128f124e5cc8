"""``fleetgate status``: the identity of this device, and whether something is left to do."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleetgate.device import options
from fleetgate.device.terminal import say, say_json

if TYPE_CHECKING:
    from fleetgate.device.identity import Identity
    from fleetgate.device.journal import Journal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``fleetgate status``."""
    parser.description = (
        "Show the identity in a directory, and whether a provisioning or renewal in it is not "
        "finished. The exit code is 1 when there is no identity. Nothing is connected to."
    )
    parser.add_argument(
        "directory", type=options.directory_of, metavar="DIR", help="the directory of the identity"
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    """Carry it out; the exit code. Raises NoIdentity and StorageRefused."""
    from fleetgate.device import identity
    from fleetgate.device.errors import NoIdentity

    found = unfinished(args.directory)
    try:
        present = identity.load(args.directory)
    except NoIdentity as error:
        if not args.as_json:
            raise
        from fleetgate.device.command_line import complain
        from fleetgate.device.journey_output import error_as_json

        told = {"identity": None, "unfinished": _journal_as_json(found)}
        say_json(told | {"error": error_as_json(error)})
        complain(error.message)
        return 1
    if args.as_json:
        say_json({"identity": _as_json(present), "unfinished": _journal_as_json(found)})
    else:
        for line in _lines(present, found):
            say(line)
    return 0


def unfinished(directory: Path) -> Journal | None:
    """What was begun in `directory` and not finished. Locks nothing. Raises StorageRefused."""
    from fleetgate.device import disk, identity, journal
    from fleetgate.device.errors import StorageRefused

    path = directory / identity.JOURNAL
    with disk.told(f"cannot use the directory `{directory}`"):
        try:
            if directory.is_symlink():
                raise StorageRefused(f"`{directory}` is a symbolic link: name the directory itself")
            descriptor = disk.open_directory(directory)
        except FileNotFoundError:
            return None
        try:
            return journal.parse(disk.read(descriptor, identity.JOURNAL, path, private=True))
        except FileNotFoundError:
            return None
        except journal.Damaged as error:
            raise StorageRefused(f"`{path}` is damaged") from error
        finally:
            os.close(descriptor)


def needs_claim(directory: Path) -> bool:
    """Whether a provisioning into `directory` has to connect with its claim (again).

    When it may be registered it can do without, if the new certificate connects.
    """
    from fleetgate.device import identity
    from fleetgate.device.errors import NoIdentity

    found = unfinished(directory)
    if found is not None and found.state in ("registering", "registered", "proven"):
        return False
    try:
        identity.load(directory)
    except NoIdentity:
        return True
    return False


def _lines(present: Identity, found: Journal | None) -> list[str]:
    ends = present.ends_at()
    days = (ends.timestamp() - time.time()) / 86400
    when = f"in {days:.0f} days" if days >= 0 else "it is over"
    lines = [
        f"thing         {present.thing_for_people}",
        f"certificate   {present.certificate_id}",
        f"ends          {ends:%Y-%m-%dT%H:%M:%SZ}, {when}",
        f"key           {present.key_kind}, {_key_place(present)}",
        f"client id     {present.client_id}",
        f"endpoint      {present.host}:{present.port}",
        f"template      {present.template}",
        f"files         {present.certificate.parent}",
    ]
    if found is not None:
        lines.append(f"not finished  {found.goal.purpose}, {found.state} ({found})")
    return lines


def _key_place(present: Identity) -> str:
    if present.token is None:
        return f"in `{present.key}`"
    return f"`{present.token.key}` on the token `{present.token.token}`"


def _as_json(present: Identity) -> dict[str, Any]:
    return {
        "thingName": present.thing_name,
        "certificateId": present.certificate_id,
        "certificateEnds": f"{present.ends_at():%Y-%m-%dT%H:%M:%SZ}",
        "clientId": present.client_id,
        "endpoint": present.host,
        "port": present.port,
        "template": present.template,
        "key": present.key_kind,
        "deviceConfiguration": present.device_configuration,
        "certificate": str(present.certificate),
        "privateKey": None if present.key is None else str(present.key),
        "ca": None if present.ca is None else str(present.ca),
    }


def _journal_as_json(found: Journal | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "purpose": found.goal.purpose,
        "state": found.state,
        "template": found.goal.template,
        "certificateId": found.certificate_id or None,
    }

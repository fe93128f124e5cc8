"""The ``fleetgate`` command: what a device has, and what ``fleetgate[server]`` adds.

``pip install fleetgate`` is the device library, whose commands know nothing but argparse
(:mod:`fleetgate.device.command_line`) and start fast on small machines. They are run from here
in both installations. Everything else is :mod:`fleetgate.cli`, which needs the libraries of the
extra ``server``. Where one of them is missing, the commands of the server are named and refused.
"""

from __future__ import annotations

import sys

from fleetgate import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:  # all that is not needed at once is imported where Ctrl-C is heard
    from collections.abc import Sequence
    from typing import NoReturn

INSTALL = 'pip install "fleetgate[server]"'

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

SERVER_MODULES = (
    "argon2",
    "boto3",
    "botocore",
    "h11",
    "httptools",
    "joserfc",
    "msgspec",
    "psycopg",
    "OpenSSL",
    "rich",
    "typer",
    "uvicorn",
    "uvloop",
)
"""What the extra ``server`` installs, by the names of the modules."""

SERVER_COMMANDS = (
    "serve",
    "migrate",
    "env",
    "operations",
    "demo",
    "template",
    "hook",
    "allow-list",
)
"""Those of :mod:`fleetgate.cli`, which cannot be asked when it cannot be imported."""


def main() -> NoReturn:
    """The command, with the arguments of this process. It ends the process."""
    try:
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    except RuntimeError as error:  # what Python 3.11 makes of it while a class is made
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        code = INTERRUPTED
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Carry out a command; the exit code. May raise SystemExit with it instead."""
    from fleetgate.device import command_line

    if arguments and arguments[0] in command_line.COMMANDS:
        return command_line.run(arguments)
    missing = missing_of_the_server()
    if missing is not None:
        return _without_server(arguments, missing)
    from fleetgate import cli

    cli.main()
    return 0


def missing_of_the_server() -> str | None:
    """A module of the extra ``server`` that is not installed; None when all are."""
    from importlib.util import find_spec

    return next((name for name in SERVER_MODULES if find_spec(name) is None), None)


def _without_server(arguments: Sequence[str], missing: str) -> int:
    from fleetgate.device import command_line

    first = arguments[0] if arguments else "--help"
    if first == "--version":
        print(f"fleetgate {__version__}")  # noqa: T201
        return 0
    if first in ("--help", "-h"):
        print(_help())  # noqa: T201
        return 0 if arguments else 2  # as with the server's commands
    if first in SERVER_COMMANDS:
        command_line.complain(
            f"`fleetgate {first}` is for those who run a server, and `{missing}` is not installed: "
            f"{INSTALL}"
        )
    else:
        command_line.complain(f"there is no command `{first:.80}`; `fleetgate --help` lists them")
    return 2


def _help() -> str:
    from fleetgate.device import command_line

    width = max(map(len, command_line.COMMANDS))
    listed = [
        f"  {name:<{width}}  {command.summary}" for name, command in command_line.COMMANDS.items()
    ]
    return "\n".join(
        [
            "Usage: fleetgate COMMAND [OPTIONS]",
            "",
            "The device library of Fleetgate: device provisioning, against Fleetgate and AWS IoT.",
            "",
            "Options:",
            "  --version  Show the version.",
            "  --help     Show this message and exit; after a command: explain it.",
            "",
            "Commands:",
            *listed,
            "",
            f"The server's commands ({', '.join(SERVER_COMMANDS)}) need:",
            f"  {INSTALL}",
        ]
    )

"""The commands of a device: ``fleetgate provision`` and its like, by argparse alone.

Each command is a module with two functions: ``add_arguments(parser)``, and ``run(args)``, which
returns the exit code. It is imported when its command is asked for, so that a command costs what
it needs.

Exit codes, of all commands:

====  ============================================================================================
0     done
1     failed, or what was asked about is not so; one line on standard error says what
2     not begun: an argument is wrong or missing, or a library is not installed
130   interrupted by Ctrl-C
====  ============================================================================================
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

from fleetgate.device.terminal import say, visible


@dataclass(frozen=True, slots=True)
class Command:
    """A command: the module that has it, and what it does, for a list."""

    module: str
    summary: str


COMMANDS = {
    "provision": Command("provision_command", "Give this device an identity of its own."),
    "renew": Command("renew_command", "Get this device a new certificate with its present one."),
    "status": Command("status_command", "Show the identity of this device."),
    "abandon": Command("abandon_command", "Give up a provisioning that was not finished."),
    "claim": Command("claim_command", "Make a temporary claim for a device (for installers)."),
    "simulate": Command("simulate_command", "Provision many simulated devices, and measure."),
}
"""By name, in the order of the list."""

_LINE_END = re.compile(r"[\t\r\n][\t\r\n ]*")


class Parser(argparse.ArgumentParser):
    """As argparse's, but an error shows what was typed without a terminal obeying it."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with exit code 2."""
        super().error(visible(message))


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of the command `name`."""
    command = COMMANDS[name]
    parser = Parser(prog=f"fleetgate {name}", description=command.summary, allow_abbrev=False)
    _module(command).add_arguments(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Carry out the command that `arguments` begin with, one of COMMANDS; the exit code.

    argparse raises SystemExit: with 0 after ``--help``, with 2 when an argument is wrong.
    """
    args = parser_of(arguments[0]).parse_args(arguments[1:])
    from fleetgate.device.errors import BadRequest
    from fleetgate.device.extras import ExtraMissing
    from fleetgate.errors import Error

    try:
        return int(_module(COMMANDS[arguments[0]]).run(args))
    except (BadRequest, ExtraMissing) as error:
        complain(error.message)
        return 2
    except Error as error:
        complain(error.message)
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        complain(f"`{error.filename}`: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        return 130


def complain(message: str) -> None:
    """One line on standard error, whatever is in `message`."""
    say(f"fleetgate: {_LINE_END.sub(' ', message.strip())}", sys.stderr)


def _module(command: Command) -> Any:
    return import_module(f"fleetgate.device.{command.module}")

"""The commands of a device: ``fleetgate provision`` and its like, by argparse alone.

Each command is a module with two functions: ``add_arguments(parser)``, and ``run(args)``, which
returns the exit code. It is imported when its command is asked for, so that a command costs what
it needs.

Exit codes, of all commands:

====  ============================================================================================
0     done
1     failed, or what was asked about is not so; one line on standard error says what
2     not begun: an argument is wrong or missing, names a file that cannot be read, or needs a
      library that is not installed
130   interrupted by Ctrl-C
====  ============================================================================================

With ``--json``, where a command has it, a failure is one JSON object on standard output as well,
with the member ``error``: see :func:`fleetgate.device.journey_output.error_as_json`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from fleetgate.device.terminal import NotWritten, say, visible

if TYPE_CHECKING:
    from fleetgate.device.errors import Step
    from fleetgate.errors import Error


@dataclass(frozen=True, slots=True)
class Command:
    """A command: the module that has it, and what it does, for a list.

    ``first_step`` is where an error happened that says nothing of it, when there are steps.
    """

    module: str
    summary: str
    first_step: Step | None = None


COMMANDS = {
    "provision": Command(
        "provision_command", "Give this device an identity of its own.", "prepare"
    ),
    "renew": Command(
        "renew_command", "Get this device a new certificate with its present one.", "prepare"
    ),
    "status": Command("status_command", "Show the identity of this device."),
    "abandon": Command("abandon_command", "Give up a provisioning that was not finished."),
    "claim": Command("claim_command", "Make a temporary claim for a device (for installers)."),
    "simulate": Command(
        "simulate_command", "Provision many simulated devices, and measure.", "prepare"
    ),
}
"""By name, in the order of the list."""

_LINE_END = re.compile(r"[\t\r\n][\t\r\n ]*")


class Parser(argparse.ArgumentParser):
    """As argparse's, but an error shows what was typed without a terminal obeying it.

    With `json` it is told as JSON, too, when the command has that option.
    """

    json: bool = False

    def error(self, message: str) -> NoReturn:
        """Ends the process with exit code 2."""
        if self.json and any(each.dest == "as_json" for each in self._actions):
            from fleetgate.device.errors import BadRequest

            _tell_as_json(BadRequest(message), COMMANDS[self.prog.split()[-1]])
        super().error(visible(message))


def parser_of(name: str) -> Parser:
    """The parser of the command `name`."""
    command = COMMANDS[name]
    parser = Parser(prog=f"fleetgate {name}", description=command.summary, allow_abbrev=False)
    _module(command).add_arguments(parser)
    return parser


def run(arguments: Sequence[str]) -> int:
    """Carry out the command that `arguments` begin with, one of COMMANDS; the exit code.

    argparse raises SystemExit: with 0 after ``--help``, with 2 when an argument is wrong.
    """
    command = COMMANDS[arguments[0]]
    parser = parser_of(arguments[0])
    parser.json = "--json" in arguments
    args = parser.parse_args(arguments[1:])
    from fleetgate.device.errors import BadRequest, ProvisioningError
    from fleetgate.device.extras import ExtraMissing
    from fleetgate.errors import Error

    try:
        return int(_module(command).run(args))
    except Error as error:
        if isinstance(error, ProvisioningError) and command.first_step is not None:
            error.at(command.first_step)  # unless it has one
        failure = error
    except OSError as error:
        if error.filename is None:
            raise
        failure = Error(f"`{error.filename}`: {error.strerror}")
    except KeyboardInterrupt:
        return 130
    if getattr(args, "as_json", False) and not isinstance(failure, NotWritten):
        _tell_as_json(failure, command)
    complain(failure.message)
    return 2 if isinstance(failure, BadRequest | ExtraMissing) else 1


def complain(message: str) -> None:
    """One line on standard error, whatever is in `message`."""
    with suppress(NotWritten):
        say(f"fleetgate: {_LINE_END.sub(' ', message.strip())}", sys.stderr)


def _tell_as_json(error: Error, command: Command) -> None:
    from fleetgate.device.journey_output import error_as_json
    from fleetgate.device.terminal import say_json

    with suppress(NotWritten):
        say_json({"error": error_as_json(error, command.first_step)})


def _module(command: Command) -> Any:
    return import_module(f"fleetgate.device.{command.module}")

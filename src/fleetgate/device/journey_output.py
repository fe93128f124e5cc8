"""What ``fleetgate provision`` and ``fleetgate renew`` print: progress, results and errors."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fleetgate.device.errors import ProvisioningError, Step
from fleetgate.device.status_command import unfinished
from fleetgate.device.terminal import NotWritten, say, say_json, visible
from fleetgate.errors import Error

if TYPE_CHECKING:
    from fleetgate.device.provision import Provisioned


def carry_out(args: argparse.Namespace, journey: Callable[[], Provisioned]) -> int:
    """Do it and print the result. Raises ProvisioningError and ExtraMissing.

    Raises KeyboardInterrupt, too, and says before what is to be done then, if anything was begun.
    """
    try:
        done = journey()
    except KeyboardInterrupt:
        if unfinished(args.out if "out" in args else args.directory) is not None:
            with suppress(NotWritten):
                say("fleetgate: interrupted; run the same again to go on", sys.stderr)
        raise
    try:
        if args.as_json:
            say_json(result_as_json(done))
        else:
            for line in result_lines(done):
                say(line)
    except NotWritten as error:
        where = done.identity.directory
        raise NotWritten(
            f"the identity in `{where}` is finished, but {error.message}; `fleetgate status "
            f"{where}` shows it"
        ) from error
    return 0


def result_lines(done: Provisioned) -> list[str]:
    """For people."""
    return [
        f"thing         {done.identity.thing_for_people}",
        f"certificate   {done.certificate_id}",
        "nothing to do: it was finished before"
        if done.already
        else f"reconnected   as `{done.client_id}` with the new certificate",
        f"files         {done.identity.directory}",
    ]


def result_as_json(done: Provisioned) -> dict[str, Any]:
    """For programs."""
    return {
        "thingName": done.thing_name,
        "certificateId": done.certificate_id,
        "clientId": done.client_id,
        "endpoint": done.identity.host,
        "port": done.identity.port,
        "deviceConfiguration": done.device_configuration,
        "files": {name: str(path) for name, path in done.files.items()},
        "already": done.already,
        "seconds": {step: round(seconds, 3) for step, seconds in done.seconds.items()},
    }


def error_as_json(error: Error, step: Step | None = None) -> dict[str, Any]:
    """For programs. `step` is the one of an error that has none, such as a missing library."""
    if not isinstance(error, ProvisioningError):
        plain, error = error, ProvisioningError(error.message)
        return error_as_json(error, step) | {"type": type(plain).__name__}
    return {
        "type": type(error).__name__,
        "message": error.message,
        "step": error.step or step,
        "topic": error.topic,
        "status": error.status.name,
        "statusCode": error.status_code,
        "errorCode": error.error_code,
        "errorMessage": error.error_message,
        "retry": error.retry,
    }


def tell(step: Step, sentence: str) -> None:
    """Progress, for people."""
    with suppress(NotWritten):  # nothing that a device should do without its identity for
        say(f"{step:<10} {sentence}")


class Visible(logging.Formatter):
    """Tells a line without anything in it that a terminal would obey."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return "\n".join(map(visible, super().formatException(ei).split("\n")))

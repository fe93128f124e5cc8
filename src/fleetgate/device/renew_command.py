"""``fleetgate renew``: this device gets a new certificate, by its present one."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fleetgate.device import journey_options as shared
from fleetgate.device import journey_output, options
from fleetgate.device.errors import BadRequest, ProvisioningError
from fleetgate.device.terminal import say, say_json

if TYPE_CHECKING:
    from fleetgate.device.identity import Identity

_TIME = "%Y-%m-%dT%H:%M:%SZ"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``fleetgate renew``."""
    parser.description = (
        "Get this device a new certificate, with its present one, whose policy has to allow what a "
        "claim's does. The new one becomes the active one when it has connected; until then, and "
        "whatever happens, the present one is. When it was interrupted, run it again."
    )
    parser.add_argument(
        "directory",
        type=options.directory_of,
        metavar="DIR",
        help="the directory of the present identity",
    )
    parser.add_argument(
        "--within",
        type=float,
        metavar="DAYS",
        help="only when the certificate ends within so many days, or a renewal was begun; "
        "otherwise there is nothing to do",
    )
    shared.add_template(parser, "that of the present identity")
    parser.add_argument(
        "--endpoint",
        metavar="HOST[:PORT]",
        help="the server; default: that of the present identity",
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="F",
        help="a PEM file with the authorities that the server is trusted by; default: those of the "
        "present identity",
    )
    group = shared.add_key(parser, "as the present one; one on a token is kept")
    group.add_argument(
        "--keep-key", action="store_true", help="the new certificate is for the present key"
    )
    parser.add_argument(
        "--new-thing",
        action="store_true",
        help="let the template make this device another thing, whose name becomes its client id if "
        "it was the present one's; otherwise that is an error, and the present identity stays",
    )
    shared.add_connection(parser, *["that of the present identity"] * 4)
    shared.add_patience(parser)
    shared.add_output(parser)


def run(args: argparse.Namespace, *, now: Callable[[], float] = time.time) -> int:
    """Carry it out; the exit code. Raises ProvisioningError, BadRequest and ExtraMissing."""
    from fleetgate.device import identity
    from fleetgate.device.provision import renew
    from fleetgate.device.status_command import unfinished

    parameters = shared.meant(options.parameters_of, args.parameters)
    others = shared.journey_of(args)
    if args.keep_key:
        _check_kept(args)
    if args.within is not None and math.isnan(args.within):
        raise BadRequest("--within is no number of days: nan")
    if args.within is not None and args.within < 0:
        raise BadRequest(f"--within is {args.within:g} days, less than 0")
    if args.template is not None:
        options.check_template(args.template)
    present = identity.load(args.directory)
    key = shared.key_of(args, present.token)
    if args.within is not None and unfinished(args.directory) is None:
        _check_clock(present, now())
        left = (present.ends_at().timestamp() - now()) / 86400
        if left > args.within:
            if args.as_json:
                say_json({"renewed": False, "daysLeft": int(left)})
            else:
                say(f"nothing to do: the certificate ends in {left:.0f} days")
            return 0
    endpoint = present.endpoint()
    if args.endpoint is not None:
        host, port = shared.meant(options.endpoint_of, args.endpoint)
        endpoint = replace(endpoint, host=host, port=port)
    if args.ca is not None:
        endpoint = replace(endpoint, ca=args.ca)
    endpoint = shared.with_options(endpoint, args)
    shared.check_key(args, key, others["connect"], present.credentials)
    options.check_readable({"--ca": args.ca, "--pin-file": args.pin_file})
    return journey_output.carry_out(
        args,
        lambda: renew(
            args.directory,
            args.template or present.template,
            parameters,
            endpoint=endpoint,
            keep_key=args.keep_key,
            key=key,
            new_thing=args.new_thing,
            **others,
        ),
    )


def _check_clock(present: Identity, now: float) -> None:
    """Raises ProvisioningError when it cannot be `now`, in seconds since 1970."""
    begins = present.begins_at()
    if now < begins.timestamp():
        raise ProvisioningError(
            f"this device's clock is wrong: it says {datetime.fromtimestamp(now, UTC):{_TIME}}, "
            f"and the certificate is not valid before {begins:{_TIME}}. When it ends is not known "
            "without the time"
        )


def _check_kept(args: argparse.Namespace) -> None:
    """Raises BadRequest when --keep-key comes with an option about another key."""
    others = {
        "--keys": args.keys or None,
        "--key-type": args.key_type,
        "--pkcs11-module": args.pkcs11_module,
        "--token": args.token,
        "--key-label": args.key_label,
        "--pin-file": args.pin_file,
    }
    for name, value in others.items():
        if value is not None:
            raise BadRequest(f"either --keep-key or {name}: the present key or another one")

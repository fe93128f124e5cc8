"""``fleetgate simulate``: how a server does with many devices, and what goes wrong.

What a person watches goes to standard error, the result to standard output. The exit code is 0 when
no more failed than is allowed, 1 when more did, 2 for options that cannot be, and 130 after Ctrl-C
(143 after SIGTERM), which prints what was counted until then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import re
import resource
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from fleetgate.device import claim as claims
from fleetgate.device import disk, options, simulate_report
from fleetgate.device import journey_options as shared
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import BadRequest
from fleetgate.device.simulate import simulate
from fleetgate.device.simulate_plan import Plan, prepare
from fleetgate.device.simulate_report import Phase, Result
from fleetgate.device.terminal import say, say_json

FINE, FAILED = 0, 1

_OTHER_FILES = 64
"""File descriptors for everything but connections."""

_TERMINAL_SECONDS, _LOG_SECONDS = 0.2, 5.0
_ALLOWED = re.compile(r"(\d+(?:\.\d+)?)(%?)", re.ASCII)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``fleetgate simulate``."""
    parser.description = (
        "Provision many devices against Fleetgate or AWS and measure each step. Nothing is tried "
        "again: what fails is counted."
    )
    add = parser.add_argument
    add("--devices", type=int, required=True, metavar="N", help="how many devices")
    add("--template", metavar="NAME", help="the provisioning template; default: that of --claim")
    add(
        "--profile",
        choices=["burst", "steady", "storm"],
        help="burst: all begin together; steady: --rate of them each second; storm: all are "
        "provisioned, then all reconnect together. Default: steady with --rate, else burst",
    )
    add("--rate", type=float, metavar="R", help="devices that begin each second")
    add(
        "--concurrency",
        type=int,
        metavar="N",
        help="how many may be under way at a time; default: all",
    )
    add("--storms", type=int, metavar="N", help="how often all of a storm reconnect; default: 1")
    add(
        "--spread",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="those of a burst or storm begin at random within so many seconds; default: 0",
    )
    where = parser.add_argument_group("server and claim")
    where.add_argument(
        "--endpoint",
        metavar="HOST[:PORT]",
        help="the server; without a port it is 8883. default: that of --claim, or "
        "FLEETGATE_MQTT_HOST and FLEETGATE_MQTT_PORT, which `fleetgate env` prints",
    )
    where.add_argument(
        "--ca",
        type=Path,
        metavar="F",
        help="a PEM file with the authorities that the server is trusted by; default: those of "
        "--claim, or of FLEETGATE_MQTT_CA, when it is their server; else those of the system",
    )
    where.add_argument(
        "--claim", type=Path, metavar="FILE", help="a claim as `fleetgate claim` makes it"
    )
    where.add_argument("--cert", type=Path, metavar="F", help="a claim certificate")
    where.add_argument("--key", type=Path, metavar="F", help="its private key")
    device = parser.add_argument_group("what a device does")
    device.add_argument(
        "--parameters",
        default='{"SerialNumber": "{serial}"}',
        metavar="JSON",
        help="the template's parameters, a JSON object of text to text, or @FILE with one; {n} is "
        "the device's number from 1 on, {serial} its serial number, {seed} that of --seed; "
        "default: %(default)s",
    )
    device.add_argument(
        "--serial",
        default="sim-{seed}-{n}",
        metavar="TEXT",
        help="its serial number; default: %(default)s",
    )
    device.add_argument(
        "--claim-client-id",
        default="claim-{serial}",
        metavar="TEXT",
        help="MQTT client id with the claim; default: %(default)s",
    )
    device.add_argument(
        "--client-id",
        default="{thing}",
        metavar="TEXT",
        help="MQTT client id with its own certificate; default: %(default)s, the thing's name",
    )
    publish = device.add_mutually_exclusive_group()
    publish.add_argument(
        "--publish",
        default="devices/{client_id}/simulated",
        metavar="TOPIC",
        help="where it publishes once it is reconnected; default: %(default)s",
    )
    publish.add_argument("--no-publish", action="store_true", help="it does not publish")
    device.add_argument("--keys", action="store_true", help="let the server make the keys")
    shared.add_messages(device)
    device.add_argument(
        "--mqtt-version", choices=["3.1.1", "5"], default="5", help="of MQTT; default: %(default)s"
    )
    device.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="for each of TCP, TLS, CONNECT, acknowledgement and answer; default: 10",
    )
    add("--seed", type=int, metavar="N", help="for --serial and --spread; default: random")
    add(
        "--allow-failures",
        default="0",
        metavar="N|P%",
        help="so many onboardings and reconnects may fail before the exit code is 1; default: 0",
    )
    add("--json", action="store_true", dest="as_json", help="print the result as JSON")


def run(
    args: argparse.Namespace,
    *,
    environ: Mapping[str, str] = os.environ,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
) -> int:
    """Carry it out; the exit code. Raises BadRequest for options that cannot be, StorageRefused for
    a claim that cannot be used, ConnectionFailed when nobody listens."""
    stdout, stderr = stdout or sys.stdout, stderr or sys.stderr
    with ExitStack() as cleanup:
        allowed = allowance(args.allow_failures)
        plan = plan_of(args, environ, cleanup)
        own = "--ca" if args.ca else "FLEETGATE_MQTT_CA"
        options.check_readable({own: plan.endpoint.ca, "--cert": args.cert, "--key": args.key})
        raise_file_limit(plan.connections + _OTHER_FILES)
        progress = Progress(stderr, time.monotonic)
        devices = prepare(plan, lambda count: progress.keys(count, plan.devices))
        signals: list[int] = []

        async def go() -> Result:
            stop = asyncio.Event()
            with stopping(stop, signals):
                return await simulate(plan, devices, progress.phase, stop)

        result = asyncio.run(go())
        progress.end()
    if args.as_json:
        say_json(_told(plan) | simulate_report.as_json(result), stdout)
    else:
        for line in simulate_report.lines(result):
            say(line, stdout)
    if signals:
        return 128 + signals[0]
    return FINE if result.failed <= allowed(result.attempts) else FAILED


# --- options ---


def plan_of(args: argparse.Namespace, environ: Mapping[str, str], cleanup: ExitStack) -> Plan:
    """What the options ask for; `cleanup` is closed when it is over. Raises BadRequest."""
    parameters = options.parameters_of(args.parameters)
    template, endpoint, claim = _where(args, environ, cleanup)
    options.check_template(template)
    if args.storms is not None and args.profile != "storm":
        raise BadRequest("--storms is for --profile storm: only then do all reconnect")
    return Plan(
        endpoint,
        claim,
        template,
        parameters,
        args.devices,
        args.profile or ("burst" if args.rate is None else "steady"),
        args.rate,
        args.concurrency,
        1 if args.storms is None else args.storms,
        args.spread,
        args.keys,
        shared.terms_of(args, args.timeout),
        secrets.randbelow(10**6) if args.seed is None else args.seed,
        args.serial,
        args.claim_client_id,
        args.client_id,
        None if args.no_publish else args.publish,
    )


def _where(
    args: argparse.Namespace, environ: Mapping[str, str], cleanup: ExitStack
) -> tuple[str, Endpoint, Credentials]:
    """Template, server and claim: of the options, else of the claim's file, else of variables."""
    template = args.template
    if args.claim is not None:
        if args.cert or args.key:
            raise BadRequest(
                "--claim has certificate and key: --cert and --key are for other claims"
            )
        options.check_readable({"--claim": args.claim})
        claim = claims.load(args.claim)
        credentials, claims_ca = cleanup.enter_context(claim.files())
        template = template or claim.template
        theirs: tuple[str, int, Path | None] | None = (claim.endpoint, claim.port, claims_ca)
    elif args.cert and args.key:
        disk.check_key(args.key)
        credentials = Credentials(args.cert, args.key)
        theirs = options.server_unless(args.endpoint, environ)
    else:
        raise BadRequest("a claim is needed: --claim, or --cert and --key")
    host, port = options.chosen(args.endpoint, theirs)
    if template is None:
        raise BadRequest("a template is needed: --template")
    version: Any = 5 if args.mqtt_version == "5" else 4
    endpoint = Endpoint(
        host,
        port,
        args.ca or options.authorities_for(host, port, theirs),
        mqtt_version=version,
        keep_alive=args.keep_alive,
        connect_timeout=args.timeout,
        max_packet_size=shared.packet_size_of(args),
    )
    return template, endpoint, credentials


def allowance(text: str) -> Callable[[int], int]:
    """How many of so many attempts may fail: ``3``, or ``0.5%``. Raises BadRequest."""
    found = _ALLOWED.fullmatch(text)
    if found is None or (found[2] and float(found[1]) > 100) or (not found[2] and "." in text):
        raise BadRequest(
            f"--allow-failures `{text[:80]}`: a number such as 3, or a share such as 0.5%"
        )
    if found[2]:
        return lambda attempts: math.floor(attempts * float(found[1]) / 100)
    return lambda _attempts: int(found[1])


def raise_file_limit(wanted: int) -> None:
    """Let this process have so many files open, sockets among them. Raises BadRequest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise BadRequest(
                f"{wanted} files would be open at a time, and {hard} are allowed (ulimit -Hn): "
                "fewer --devices, or a --concurrency"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# --- while it runs ---


@contextmanager
def stopping(stop: asyncio.Event, signals: list[int]) -> Iterator[None]:
    """Set `stop` on Ctrl-C and SIGTERM, and remember which it was; the second one ends at once."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)

    def hear(number: int) -> None:
        signals.append(number)
        stop.set()
        for each in numbers:
            loop.remove_signal_handler(each)

    for number in numbers:
        loop.add_signal_handler(number, hear, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


class Progress:
    """A line on a terminal that is written over; elsewhere a line now and then."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty()
        self._next = clock() + (0 if self._terminal else _LOG_SECONDS)
        self._shown = False

    def keys(self, count: int, wanted: int) -> None:
        """Keys have been made."""
        if self._due():
            self._show(f"making keys: {count} of {wanted}")

    def phase(self, phase: Phase) -> None:
        """A device has come to an end."""
        if self._due():
            under_way = phase.started - phase.succeeded - phase.failed
            self._show(
                f"{phase.name}: {phase.succeeded} of {phase.wanted} succeeded, {phase.failed} "
                f"failed, {under_way} under way, {phase.rate:.0f} a second, {phase.seconds:.0f} s"
            )

    def end(self) -> None:
        """Nothing more comes."""
        if self._shown and self._terminal:
            self._write("\r\x1b[K")

    def _due(self) -> bool:
        return self._clock() >= self._next

    def _show(self, line: str) -> None:
        self._next = self._clock() + (_TERMINAL_SECONDS if self._terminal else _LOG_SECONDS)
        self._shown = True
        self._write(f"\r\x1b[K{line}" if self._terminal else f"{line}\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody looks any more
            self._stream.write(text)
            self._stream.flush()


def _told(plan: Plan) -> dict[str, Any]:
    return {
        "profile": plan.profile,
        "endpoint": plan.endpoint.host,
        "port": plan.endpoint.port,
        "template": plan.template,
        "devices": plan.devices,
        "seed": plan.seed,
    }

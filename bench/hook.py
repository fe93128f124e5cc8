"""Devices of one template while the hook of another sleeps; an onboarding with a hook and without.

Every hook is an uploaded Python function. The one that sleeps takes 6 seconds, more than a hook
has, and a hundred devices with the same claim certificate keep asking for it: as many as may be
sleep, the others wait, all are refused after 5 seconds and begin again. Meanwhile devices of
another template are onboarded, with that same claim.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import threading
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench import rig
from bench.fleet import (
    CLAIM_POLICY_NAME,
    CREATE_FROM_CSR,
    TEMPLATE,
    TEMPLATE_BODY,
    Fleet,
    ask,
    claim_policy,
    create,
    make_key,
    set_up,
    subscribe,
    trust_policy,
)
from fleetgate.device import protocol
from fleetgate.device.errors import Rejected

WAITING = 100
THREADS = 8
TURNS = 5
SLOW_TURNS = 2
LENGTH = 8
SLEEP = 6
_SLOW = "slow"
_REGISTER = protocol.register_thing(_SLOW, "json")
_ACCOUNT = "us-east-1:000000000000"
_CODE = f"""
import time

def allow(event, context):
    return {{"allowProvisioning": True}}

def sleep(event, context):
    time.sleep({SLEEP})
    return {{"allowProvisioning": True}}
"""


def run(options: argparse.Namespace, directory: Path) -> None:
    """Measures and prints."""
    count = options.onboardings
    rig.heading(
        f"hook: {TURNS} turns of {count} CSR onboardings, {THREADS} at a time; "
        f"{WAITING} devices of another template whose hook sleeps {SLEEP} s"
    )
    plain: list[rig.Turn] = []
    hooked: list[rig.Turn] = []
    alone: list[rig.Turn] = []
    beside: list[rig.Turn] = []
    children: list[float] = []
    with rig.fleetgate(directory / "server", rig.SERVER_CORE) as server:
        fleet = set_up(server, directory)
        with server.client("iot") as iot:
            _functions(server)
            _set_hook(iot, "allow")
            rig.take_turn(server, fleet.csr_onboardings(count), THREADS)  # warm up
            for _ in range(TURNS):
                hooked.append(_turn(server, fleet, count, children))
                _set_hook(iot, None)
                plain.append(_turn(server, fleet, count))
                _set_hook(iot, "allow")
            _set_hook(iot, None)
            _slow_template(iot)
            # long enough to see the processes that are ended after 5 s, and started again
            for _ in range(SLOW_TURNS):
                server.settle()
                alone.append(_turn(server, fleet, LENGTH * count))
                with _waiting(fleet):
                    beside.append(_turn(server, fleet, LENGTH * count))
    _print(plain, hooked, children, alone, beside)


def _turn(
    server: rig.Fleetgate, fleet: Fleet, count: int, children: list[float] | None = None
) -> rig.Turn:
    pieces = list(fleet.csr_onboardings(count))
    before = server.children_cpu()
    turn = rig.take_turn(server, pieces, THREADS)
    if children is not None:
        children.append((server.children_cpu() - before) / count * 1e3)
    return turn


def _functions(server: rig.Fleetgate) -> None:
    """The two hooks, uploaded, and the right of AWS IoT to invoke them."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("hooks.py", _CODE)
    with server.client("iam") as iam:
        role = iam.create_role(
            RoleName="functions", AssumeRolePolicyDocument=trust_policy("lambda")
        )["Role"]
    with server.client("lambda") as functions:
        for name in ("allow", "sleep"):
            functions.create_function(
                FunctionName=name,
                Runtime=rig.RUNTIME,
                Handler=f"hooks.{name}",
                Role=role["Arn"],
                Code={"ZipFile": code.getvalue()},
                Timeout=10,
            )
            functions.add_permission(
                FunctionName=name,
                StatementId="iot",
                Action="lambda:InvokeFunction",
                Principal="iot.amazonaws.com",
            )


def _hook(name: str) -> dict[str, str]:
    return {"targetArn": f"arn:aws:lambda:{_ACCOUNT}:function:{name}"}


def _set_hook(iot: Any, name: str | None) -> None:
    change: dict[str, Any] = {"removePreProvisioningHook": True}
    if name is not None:
        change = {"preProvisioningHook": _hook(name)}
    iot.update_provisioning_template(templateName=TEMPLATE, **change)


def _slow_template(iot: Any) -> None:
    """The other template, and the right of the claim to use it."""
    template = iot.describe_provisioning_template(templateName=TEMPLATE)
    iot.create_provisioning_template(
        templateName=_SLOW,
        templateBody=TEMPLATE_BODY,
        provisioningRoleArn=template["provisioningRoleArn"],
        enabled=True,
        preProvisioningHook=_hook("sleep"),
    )
    iot.create_policy(policyName="slow-claim", policyDocument=claim_policy(_SLOW))
    [claim] = iot.list_targets_for_policy(policyName=CLAIM_POLICY_NAME)["targets"]
    iot.attach_policy(policyName="slow-claim", target=claim)


@contextlib.contextmanager
def _waiting(fleet: Fleet) -> Iterator[None]:
    """So many devices wait for the hook that sleeps, all the time."""
    stop = threading.Event()
    asking = threading.Semaphore(0)
    refusals: list[float] = []
    csr = make_key(fleet.directory, "waiting").csr
    devices = [
        threading.Thread(
            target=partial(_ask_on, fleet, csr, f"slow-{number}", stop, asking, refusals)
        )
        for number in range(WAITING)
    ]
    for each in devices:
        each.start()
    try:
        for _ in devices:
            if not asking.acquire(timeout=60):
                raise RuntimeError("the devices of the other template do not get so far")
        time.sleep(0.5)
        yield
    finally:
        stop.set()
        for each in devices:
            each.join()
    if not refusals or not 4.9 < statistics.median(refusals) < 6.5:
        raise RuntimeError(f"the other devices were not refused after 5 s: {refusals[:5]}")


def _ask_on(
    fleet: Fleet,
    csr: str,
    name: str,
    stop: threading.Event,
    asking: threading.Semaphore,
    refusals: list[float],
) -> None:
    with fleet.connect(name) as connection:
        subscribe(connection, CREATE_FROM_CSR)
        token = create(connection, csr).ownership_token
        subscribe(connection, _REGISTER)
        asking.release()
        while not stop.is_set():
            begun = time.perf_counter()
            try:
                ask(connection, _REGISTER, protocol.register_request(token, {"SerialNumber": name}))
            except Rejected as error:
                if error.status_code != 403:
                    raise
                refusals.append(time.perf_counter() - begun)


def _print(
    plain: list[rig.Turn],
    hooked: list[rig.Turn],
    children: list[float],
    alone: list[rig.Turn],
    beside: list[rig.Turn],
) -> None:
    rig.line("server CPU per onboarding, no hook", rig.median(each.cost for each in plain), "ms")
    rig.line(
        "server CPU per onboarding, with a hook", rig.median(each.cost for each in hooked), "ms"
    )
    pairs = zip((each.cost for each in hooked), (each.cost for each in plain), strict=True)
    rig.line("server CPU, with a hook / without", rig.ratio(pairs), "x")
    rig.line("CPU of the function's processes per onboarding", rig.median(children), "ms")
    for share in (50, 95, 99):
        figures = [_percentile(turns, share) for turns in (plain, hooked, alone, beside)]
        rig.line(f"onboarding, {share} % within, no hook", figures[0], "ms")
        rig.line("  with a hook", figures[1], "ms")
        rig.line("  no hook, nobody waits", figures[2], "ms")
        rig.line(f"  {WAITING} devices wait for another template's hook", figures[3], "ms")
        rig.line("  with / without those", figures[3] / figures[2], "x")


def _percentile(turns: list[rig.Turn], share: int) -> float:
    """Milliseconds within which so many percent of all pieces of work were done."""
    latencies = sorted(each for turn in turns for each in turn.latencies)
    return statistics.quantiles(latencies, n=100)[share - 1] * 1e3

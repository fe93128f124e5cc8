"""The log of one run as Invoke answers it, with the lines Lambda puts round what was written.

Source: Lambda developer guide, "Viewing CloudWatch logs for Lambda functions" (START, END and
REPORT), "Understanding the Lambda execution environment lifecycle"; Lambda API reference, Invoke,
LogResult.
"""

from __future__ import annotations

import math

from fleetgate.functions.target import LOG_TAIL, Run
from fleetgate.operations.function_names import LATEST


def log_result(request_id: str, run: Run, seconds: float) -> str:
    """The last LOG_TAIL bytes of the log of a run.

    `seconds` is how long it took whoever asked, told of what ran in no process of its own.
    """
    written = run.log if not run.log or run.log.endswith("\n") else f"{run.log}\n"
    log = (
        f"START RequestId: {request_id} Version: {LATEST}\n"
        f"{written}{run.cause}"
        f"END RequestId: {request_id}\n"
        f"REPORT RequestId: {request_id}\t{_report(run, seconds)}\n"
    )
    return log.encode(errors="replace")[-LOG_TAIL:].decode(errors="ignore")


def _report(run: Run, seconds: float) -> str:
    usage = run.usage
    if usage is None:
        return _durations(seconds, seconds)
    # the start of a process is paid for as well
    init = usage.init_seconds or 0.0
    report = (
        f"{_durations(usage.seconds, usage.seconds + init)}Memory Size: {usage.memory_megabytes} "
        f"MB\tMax Memory Used: {usage.used_megabytes} MB\t"
    )
    return f"{report}Init Duration: {init * 1000:.2f} ms\t" if init else report


def _durations(seconds: float, billed: float) -> str:
    milliseconds = math.ceil(round(billed * 1000, 3))
    return f"Duration: {seconds * 1000:.2f} ms\tBilled Duration: {milliseconds} ms\t"

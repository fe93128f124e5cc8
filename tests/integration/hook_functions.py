"""Functions for hooks as somebody uploads them: the file goes into a zip as it is.

`today` and `earlier` are written by the letter of AWS's guide, "Pre-provisioning hooks", as it is
and as it was; `decide` does what the parameter `do` says.
"""

import os
import time
from typing import Any


def today(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """The input of today's page: claimCertificateId, certificateId, ..., parameters."""
    if len(event["claimCertificateId"]) != 64 or len(event["certificateId"]) != 64:
        return {"allowProvisioning": False}
    if not event["certificatePem"].startswith("-----BEGIN CERTIFICATE-----"):
        return {"allowProvisioning": False}
    return {
        "allowProvisioning": event["parameters"]["SerialNumber"].startswith("ok"),
        "parameterOverrides": {
            "DeviceLocation": "Seattle",
            "asked": event["clientId"] + " " + event["templateArn"],
        },
    }


def earlier(event: dict[str, Any], _context: Any) -> dict[str, Any]:
    """The input of the earlier page: claimCertificateId, claimId, ..., incomingParameters."""
    if len(event["claimCertificateId"]) != 64 or not event["claimId"]:
        return {"allowProvisioning": False}
    if not event["certificatePem"].startswith("-----BEGIN CERTIFICATE-----"):
        return {"allowProvisioning": False}
    return {
        "allowProvisioning": event["incomingParameters"]["SerialNumber"].startswith("ok"),
        "parameterOverrides": {
            "DeviceLocation": "Seattle",
            "asked": event["mqttClientId"] + " " + event["templateArn"],
        },
    }


def decide(event: dict[str, Any], _context: Any) -> Any:
    """What `do` says, one thing for each way to go wrong, and a few to go right."""
    what, _, argument = event["parameters"].get("do", "allow").partition(":")
    if what == "raise":
        raise KeyError("no such\nserial")
    if what == "exit":
        os._exit(3)
    if what == "sleep":
        time.sleep(float(argument))
    return {
        "false": {"allowProvisioning": False},
        "true-text": {"allowProvisioning": "true"},
        "True-text": {"allowProvisioning": "True"},
        "one": {"allowProvisioning": 1},
        "without": {"statusCode": 200, "parameterOverrides": {"a": "b"}},
        "nothing": None,
        "text": "true",
        "list": [{"allowProvisioning": True}],
        "deep": {"allowProvisioning": True, "a": _deep(40)},
        "number": {"allowProvisioning": True, "parameterOverrides": {"n": 1}},
        "overrides": {"allowProvisioning": True, "parameterOverrides": ["a"]},
        "large": {"allowProvisioning": True, "a": "x" * 1_000_000},
        "override": {"allowProvisioning": True, "parameterOverrides": {"by": argument}},
    }.get(what, {"allowProvisioning": True})


def _deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value

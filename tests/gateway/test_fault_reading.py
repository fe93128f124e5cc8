"""Fault scripts as they are read: what they may say, and which mistake is told in which words."""

from __future__ import annotations

import json
import tomllib

import pytest

from fleetgate.errors import InvalidFaultScript
from fleetgate.gateway.fault_reading import MAX_CHARACTERS, MAX_FAULTS, parse_script
from fleetgate.gateway.fault_script import ERRORS, MOMENTS, OPERATIONS, Fault, Script, error_of
from fleetgate.server import load_provisioning_model

WHOLE = """
seed = 7
client = "lamp-*"

[[fault]]
on = "RegisterThing"
do = "throttle"
template = "lamps"
nth = 2
times = 3
probability = 0.5
message = "later"

[[fault]]
client = "other"
certificate = "ab*"
on = "subscribe"
topic = "$aws/*/accepted"
do = "refuse"
code = 0x97

[[fault]]
on = "CreateCertificateFromCsr"
do = "delay"
seconds = [1, 2.5]
"""


def fault(**keys: object) -> str:
    """A script of one fault; `keys` replace and, with None, remove."""
    table = {"on": "RegisterThing", "do": "drop"} | keys
    return json.dumps({"fault": [{k: v for k, v in table.items() if v is not None}]})


def read(**keys: object) -> Fault:
    return parse_script(fault(**keys)).faults[0]


def test_a_script_has_what_it_says_and_defaults() -> None:
    assert parse_script(WHOLE) == Script(
        7,
        (
            Fault(
                "RegisterThing",
                "throttle",
                "request",
                client="lamp-*",
                template="lamps",
                nth=2,
                times=3,
                probability=0.5,
                message="later",
            ),
            Fault(
                "subscribe",
                "refuse",
                "request",
                client="other",
                certificate="ab*",
                topic="$aws/*/accepted",
                code=0x97,
            ),
            Fault(
                "CreateCertificateFromCsr",
                "delay",
                "reply",
                client="lamp-*",
                seconds=(1.0, 2.5),
            ),
        ),
    )


def test_json_says_the_same() -> None:
    assert parse_script(json.dumps(tomllib.loads(WHOLE))) == parse_script(WHOLE)


def test_nothing_is_a_script_without_faults() -> None:
    assert parse_script("") == parse_script("{}") == Script()


NEEDS: dict[str, dict[str, object]] = {
    "delay": {"seconds": 1},
    "reject": {"error": "InternalError"},
    "garbage": {"kind": "empty"},
    "clock-skew": {"seconds": -5},
}


@pytest.mark.parametrize(
    ("do", "on", "moment"),
    [
        (do, on, moment)
        for do, of in MOMENTS.items()
        for on, moments in of.items()
        for moment in moments
    ],
)
def test_whatever_is_offered_can_be_said(do: str, on: str, moment: str) -> None:
    assert read(do=do, on=on, moment=moment, **NEEDS.get(do, {})).moment == moment
    default = read(do=do, on=on, **NEEDS.get(do, {})).moment
    assert default == MOMENTS[do][on][0]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_can_be_rejected_with_what_its_model_has(operation: str) -> None:
    """data/provisioning.json has the errors of "Device provisioning MQTT API"."""
    declared = load_provisioning_model().operation(operation).errors
    assert {each.code(): each.status for each in ERRORS[operation]} == dict(declared)
    for each in ERRORS[operation]:
        code = each.code().removesuffix("Exception")
        error = error_of(read(on=operation, do="reject", error=code))
        assert (type(error), error.status) == (each, each.status)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed = x", "it cannot be read: Invalid value (at line 1, column 8)"),
        ("{", "it cannot be read: Expecting property name"),
        ("x" * (MAX_CHARACTERS + 1), f"it has 65537 characters; the limit is {MAX_CHARACTERS}"),
        ("seed = 1.5", "`seed`: a whole number from 0 to 2^63 - 1 is expected, not `1.5`"),
        ("seed = true", "`seed`: a whole number from 0"),
        ("seeds = 1", "`seeds`: is unknown; known are `seed`, `client`, `certificate`, `fault`"),
        ("client = 7", "`client`: a text of 1 to 512 characters is expected, with `*` and `?`"),
        ("fault = 1", "`fault`: tables are expected, each after a line `[[fault]]`"),
        ("[fault]\non = 'connect'", "`fault`: tables are expected"),
        ("[[fault]]\non='connect'\ndo='drop'\n" * (MAX_FAULTS + 1), "at most 100 are expected"),
        (fault(do=None), "fault 1: `do`: is missing; one of `delay`, `drop`, "),
        (
            fault(on=None),
            "fault 1: `on`: is missing; for `drop` one of `CreateKeysAndCertificate`,",
        ),
        (fault(do="explode"), "fault 1: `do`: one of `delay`, "),
        (fault(do="explode"), ", not `explode`"),
        (fault(do=["drop"]), "fault 1: `do`: one of"),
        (
            fault(do="expire-token", on="connect"),
            "fault 1: `on`: for `expire-token` one of `RegisterThing` is expected, not `connect`",
        ),
        (
            fault(moment="before"),
            "fault 1, `drop` on `RegisterThing`: `moment`: one of `reply`, `request` is expected",
        ),
        (fault(moment="after"), "`moment`: one of `reply`, `request` is expected, not `after`"),
        (
            fault(chance=1),
            "fault 1, `drop` on `RegisterThing`: `chance`: is unknown; known are `on`, `do`, ",
        ),
        (fault(seconds=1), "`seconds`: is unknown"),
        (fault(do="delay"), "`delay` on `RegisterThing`: `seconds`: is missing"),
        (
            fault(do="delay", seconds="1"),
            "`seconds`: a number, or a list of the least and the most",
        ),
        (fault(do="delay", seconds=[1]), "or a list of the least and the most, is expected"),
        (fault(do="delay", seconds=[1, True]), "or a list of the least and the most, is expected"),
        (fault(do="delay", seconds=-1), "seconds from 0 to 600 are expected, the least first"),
        (fault(do="delay", seconds=[2, 1]), "the least first, not `[2, 1]`"),
        (fault(do="delay", seconds=601), "seconds from 0 to 600"),
        (fault(do="delay", seconds=float("nan")), "seconds from 0 to 600"),
        (fault(do="clock-skew", seconds=float("inf")), "seconds from -630720000 to 630720000"),
        (fault(do="disconnect", seconds=1), "`seconds`: is for the moment `after` alone"),
        (fault(do="reset", moment="request", seconds=1), "is for the moment `after` alone"),
        (fault(template=7), "`template`: a text of 1 to 512 characters"),
        (fault(on="connect", template="t"), "`template`: is for `RegisterThing` alone"),
        (fault(topic="t"), "`topic`: is for `subscribe` and `publish` alone"),
        (fault(nth=0), "`nth`: a whole number from 1 to 1000000000 is expected, not `0`"),
        (fault(times=0), "`times`: a whole number from 1"),
        (fault(times=True), "`times`: a whole number from 1"),
        (fault(probability=1.1), "`probability`: a number from 0 to 1 is expected, not `1.1`"),
        (fault(probability=float("nan")), "`probability`: a number from 0 to 1"),
        (fault(do="reject"), "`error`: is missing"),
        (
            fault(do="reject", error="InvalidCsr"),
            "`reject` on `RegisterThing`: `error`: one of `AccessDenied`, `InternalError`, ",
        ),
        (fault(do="throttle", message=""), "`message`: a text of 1 to 1000 characters"),
        (fault(do="duplicate", copies=1), "`copies`: a whole number from 2 to 10"),
        (fault(do="garbage", kind="odd"), "`kind`: one of `undecodable`, `truncated`, "),
        (
            fault(do="garbage", kind="huge", members=["a"]),
            "is for the kind `missing-members` alone",
        ),
        (fault(do="garbage", kind="empty", bytes=5), "`bytes`: is for the kind `huge` alone"),
        (
            fault(do="garbage", kind="huge", bytes=1048577),
            "`bytes`: a whole number from 1 to 1048576",
        ),
        (
            fault(do="garbage", kind="missing-members", members="thingName"),
            "`members`: a list of the members of a reply is expected, not `thingName`",
        ),
        (
            fault(do="refuse", on="subscribe", code=0x88),
            "0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2 is expected, not `136`",
        ),
        (fault(do="refuse", on="connect", code=0), "`code`: one of 0x80, 0x81, "),
        (fault(do="refuse", on="publish", code=256), "`code`: a whole number from 0 to 255"),
        (
            fault(do="disconnect", on="connect", code=0x8B),
            "`code`: is for the moment `after` alone: before CONNACK nobody says DISCONNECT",
        ),
        (fault(do="disconnect", code=4), "`code`: one of 0x80, 0x81, "),
    ],
)
def test_a_mistake_is_told_with_its_place_rule_and_value(text: str, said: str) -> None:
    with pytest.raises(InvalidFaultScript) as caught:
        parse_script(text)
    assert said in caught.value.message
    assert len(caught.value.message) < 500


def test_the_second_fault_is_called_so() -> None:
    with pytest.raises(InvalidFaultScript, match=r"^fault 2: `do`: is missing"):
        parse_script('[[fault]]\non = "connect"\ndo = "drop"\n[[fault]]\non = "connect"')

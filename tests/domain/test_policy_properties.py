"""Properties of the evaluator, and that it agrees with another reading of the language."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from fleetgate.domain import policy
from fleetgate.domain.conditions import OPERATORS
from fleetgate.domain.policy import CONNECT, PUBLISH, Decision, Policies
from tests.domain import policy_oracle

Statement = dict[str, Any]
Values = dict[str, tuple[str, ...]]

PIECES = st.sampled_from(
    ["a", "b", "/", "*", "?", "+", "#", "${iot:ClientId}", "${*}", "${IOT:clientid}", "${k:x}"]
)
TEXTS = st.lists(PIECES, max_size=4).map("".join)
PATTERNS = TEXTS.map(lambda text: "arn:aws:iot:r:a:t" + text)
RESOURCES = st.text("ab/*+#", max_size=5).map(lambda rest: "arn:aws:iot:r:a:t" + rest)
ACTIONS = st.sampled_from([CONNECT, PUBLISH, "iot:*", "iot:P*", "IOT:publish", "iot:?onnect", "*"])
ASKED = st.sampled_from([CONNECT, PUBLISH])

KEYS = st.sampled_from(["iot:ClientId", "iot:connectattributes", "k:x", "K:N", "k:d", "k:ip"])
OPERANDS = {
    "String": TEXTS,
    "Arn": st.one_of(PATTERNS, st.sampled_from(["arn:*:iot:r:*:t*", "*", "arn:aws:iot:?:a:ta"])),
    "Numeric": st.sampled_from(["1", "1.0", "-2", "10", "1e1"]),
    "Date": st.sampled_from(["2020", "2020-01-01T00:00:00Z", "1577836800", "2021-06-01"]),
    "Bool": st.sampled_from(["true", "false", "${k:x}"]),
    "IpAddress": st.sampled_from(["10.0.0.0/8", "10.1.2.3", "10.1.2.0/23", "0.0.0.0/0"]),
    "NotIp": st.sampled_from(["10.0.0.0/8", "10.1.2.3"]),
    "Null": st.sampled_from(["true", "false"]),
}
FOUND = st.one_of(
    st.text("ab*?$", max_size=3),
    RESOURCES,
    *(OPERANDS[kind] for kind in ("Numeric", "Date")),
    st.sampled_from(["true", "False", "10.1.2.3", "10.1.3.255", "11.0.0.1"]),
)


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, dict[str, list[str]]]:
    drawn: dict[str, dict[str, list[str]]] = {}
    for _ in range(draw(st.integers(0, 2))):
        base = draw(st.sampled_from([each for each in OPERATORS if each != "BinaryEquals"]))
        name = draw(st.sampled_from(["", "ForAllValues:", "ForAnyValue:"])) + base
        if base != "Null":
            name += draw(st.sampled_from(["", "IfExists"]))
        operands = next(found for kind, found in OPERANDS.items() if base.startswith(kind))
        drawn.setdefault(name, {})[draw(KEYS)] = draw(st.lists(operands, max_size=2))
    return drawn


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    drawn: Statement = {
        "Effect": draw(st.sampled_from(["Allow", "Deny"])),
        draw(st.sampled_from(["Action", "NotAction"])): draw(
            st.lists(ACTIONS, min_size=1, max_size=2)
        ),
        draw(st.sampled_from(["Resource", "Resource", "NotResource"])): draw(
            st.lists(PATTERNS, min_size=1, max_size=2)
        ),
    }
    condition = draw(conditions())
    return {**drawn, "Condition": condition} if condition else drawn


SETS = st.lists(statements(), max_size=4)
VALUES = st.dictionaries(KEYS, st.lists(FOUND, max_size=2).map(tuple), max_size=5).map(
    lambda found: {key.lower(): value for key, value in found.items()}
)
CLIENT_IDS = st.text("ab/*?+#$", max_size=3)


def document(*listed: Statement) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(listed)})


def compiled(listed: list[Statement], values: Values) -> Policies:
    named = [
        (str(n), policy.parse(document(each), max_characters=10_000))
        for n, each in enumerate(listed)
    ]
    return policy.compile_policies(named, values)


def decide(listed: list[Statement], action: str, resource: str, values: Values) -> Decision:
    policies = compiled(listed, values)
    first = policies.evaluate(action, resource)
    assert policies.evaluate(action, resource) == first
    return first


def verdict(decision: Decision) -> str:
    if decision.explicit_deny:
        return "DENY"
    return "ALLOW" if decision.allowed else "SILENT"


@given(SETS, st.text(), st.text(), st.dictionaries(st.text(), st.lists(st.text()).map(tuple)))
def test_evaluate_is_total(
    listed: list[Statement], action: str, resource: str, values: Values
) -> None:
    everywhere = {**values, **dict.fromkeys(["k:n", "k:d", "k:ip", "k:x"], tuple(values))}
    policies = compiled(listed, everywhere)
    for decision in (
        policies.evaluate(action, resource),
        policies.evaluate(PUBLISH, resource, everywhere),
    ):
        assert decision.reason
        assert decision.allowed <= (decision.policy is not None)


@given(SETS, ASKED, RESOURCES, VALUES)
@example(
    [{"Effect": "Allow", "Action": ["*"], "NotResource": ["arn:aws:iot:r:a:t${k:x}"]}],
    PUBLISH,
    "arn:aws:iot:r:a:ta",
    {"k:x": ("*",)},
)
def test_it_decides_like_the_oracle(
    listed: list[Statement], action: str, resource: str, values: Values
) -> None:
    expected = policy_oracle.verdict(listed, action, resource, values)
    assert verdict(decide(listed, action, resource, values)) == expected


@given(SETS, ASKED, RESOURCES, VALUES, VALUES)
def test_values_of_a_request_count_like_those_of_the_connection(
    listed: list[Statement], action: str, resource: str, values: Values, later: Values
) -> None:
    expected = verdict(decide(listed, action, resource, {**values, **later}))
    policies = compiled(listed, values)
    assert verdict(policies.evaluate(action, resource, later)) == expected
    assert verdict(policies.evaluate(action, resource)) == verdict(
        decide(listed, action, resource, values)
    )


@given(SETS, ASKED, RESOURCES, VALUES, VALUES)
def test_the_policies_that_speak_are_those_that_decide(
    listed: list[Statement], action: str, resource: str, values: Values, later: Values
) -> None:
    policies = compiled(listed, values)
    allowing, denying = policies.speaking(action, resource, later)
    decision = policies.evaluate(action, resource, later)
    assert decision.allowed is bool(allowing and not denying)
    assert decision.explicit_deny is bool(denying)
    assert decision.policy is None or decision.policy in (allowing | denying)


@given(SETS, ASKED, RESOURCES, VALUES, st.randoms())
def test_the_order_of_statements_does_not_matter(
    listed: list[Statement], action: str, resource: str, values: Values, random: Any
) -> None:
    shuffled = random.sample(listed, len(listed))
    expected = verdict(decide(listed, action, resource, values))
    assert verdict(decide(shuffled, action, resource, values)) == expected
    if shuffled:
        together = policy.parse(document(*shuffled), max_characters=10_000)
        policies = policy.compile_policies([("p", together)], values)
        assert verdict(policies.evaluate(action, resource)) == expected


@given(SETS, statements(), ASKED, RESOURCES, VALUES)
def test_any_deny_wins_and_one_more_deny_never_allows(
    listed: list[Statement], another: Statement, action: str, resource: str, values: Values
) -> None:
    deny = {**another, "Effect": "Deny"}
    before = decide(listed, action, resource, values).allowed
    after = decide([*listed, deny], action, resource, values)
    assert after.allowed <= before
    if decide([deny], action, resource, values).explicit_deny:
        assert after.explicit_deny


@given(SETS, ASKED, RESOURCES, VALUES)
def test_without_an_allow_that_matches_alone_nothing_is_allowed(
    listed: list[Statement], action: str, resource: str, values: Values
) -> None:
    alone = [
        decide([each], action, resource, values).allowed
        for each in listed
        if each["Effect"] == "Allow"
    ]
    assert decide(listed, action, resource, values).allowed <= any(alone)


@given(PATTERNS, RESOURCES, CLIENT_IDS)
def test_a_substituted_value_never_widens_a_pattern(
    pattern: str, resource: str, client_id: str
) -> None:
    def allows(text: str) -> bool:
        allow = {"Effect": "Allow", "Action": "*", "Resource": text}
        return decide([allow], PUBLISH, resource, {"iot:ClientId": (client_id,)}).allowed

    if "${k:x}" in pattern:
        assert not allows(pattern)
    elif "${iot:ClientId}" in pattern or "${IOT:clientid}" in pattern:
        if not client_id or set(client_id) & set("*?+#$"):
            assert not allows(pattern)
        else:
            written = pattern.replace("${iot:ClientId}", client_id)
            written = written.replace("${IOT:clientid}", client_id)
            assert allows(pattern) is allows(written)

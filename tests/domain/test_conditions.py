"""Condition operators, one row for each fact.

Sources: IAM User Guide, "IAM JSON policy elements: Condition operators" (OPERATORS), "Single-valued
vs. multivalued context keys" and "Creating a condition with multiple keys or values" (SETS);
AWS IoT Developer Guide, "Connect policy examples" (CONNECT).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from fleetgate.domain import policy
from fleetgate.domain.conditions import OPERATORS, is_operator
from fleetgate.errors import MalformedPolicyException

ARN = "arn:aws:iot:us-east-1:123456789012:"
CLIENT = ARN + "client/client1"

Values = Mapping[str, tuple[str, ...]]
Statement = Mapping[str, object]


def statement(effect: str, name: str, operands: object, key: str = "k:key") -> dict[str, object]:
    condition = {name: {key: operands}}
    return {"Effect": effect, "Action": "*", "Resource": "*", "Condition": condition}


def compiled(*statements: Statement, values: Values) -> policy.Policies:
    text = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    return policy.compile_policies([("p", policy.parse(text))], values)


def holds(name: str, operands: object, found: tuple[str, ...] | None, **others: str) -> bool:
    """Is the condition true where the key has these values (None: it is absent)?"""
    values: dict[str, tuple[str, ...]] = {f"k:{key}": (value,) for key, value in others.items()}
    if found is not None:
        values["k:key"] = found
    policies = compiled(statement("Allow", name, operands), values=values)
    allowed = policies.evaluate("iot:Publish", CLIENT).allowed
    late = compiled(statement("Allow", name, operands), values={})
    assert late.evaluate("iot:Publish", CLIENT, values).allowed is allowed
    return allowed


# operator, operands in the policy, value in the request, whether it is true
OPERATOR_ROWS: list[tuple[str, object, str, bool]] = [
    # String condition operators: "Exact matching, case sensitive"; wildcards are letters here.
    ("StringEquals", "john", "john", True),
    ("StringEquals", "john", "John", False),
    ("StringEquals", "jo*", "john", False),
    ("StringEquals", "jo*", "jo*", True),
    ("StringEquals", ["jane", "john"], "john", True),
    ("StringNotEquals", "john", "john", False),
    ("StringNotEquals", "john", "John", True),
    ("StringNotEquals", ["jane", "john"], "john", False),
    ("StringNotEquals", ["jane", "john"], "jim", True),
    ("StringEqualsIgnoreCase", "john", "JOHN", True),
    ("StringEqualsIgnoreCase", "john", "jon", False),
    ("StringNotEqualsIgnoreCase", "john", "JOHN", False),
    ("StringNotEqualsIgnoreCase", "john", "jon", True),
    ("StringLike", "home/*", "home/x/y", True),
    ("StringLike", "home/?", "home/xy", False),
    ("StringLike", "HOME/*", "home/x", False),
    ("StringLike", "", "", True),
    ("StringLike", ["a*", "b*"], "bc", True),
    ("StringNotLike", "home/*", "home/x", False),
    ("StringNotLike", "home/*", "work/x", True),
    # Numeric condition operators: integers and decimals; the JSON may hold numbers.
    ("NumericEquals", "10", "10.0", True),
    ("NumericEquals", 10, "10", True),
    ("NumericEquals", 0.5, "0.5", True),
    ("NumericEquals", "10", "ten", False),
    ("NumericNotEquals", "10", "11", True),
    ("NumericNotEquals", "10", "1e1", False),
    ("NumericLessThan", "10", "9.99", True),
    ("NumericLessThan", "10", "10", False),
    ("NumericLessThanEquals", "10", "10", True),
    ("NumericLessThanEquals", "10", "10.1", False),
    ("NumericGreaterThan", "10", "11", True),
    ("NumericGreaterThan", "10", "9", False),
    ("NumericGreaterThanEquals", "10", "10", True),
    ("NumericGreaterThanEquals", "-10", "-11", False),
    ("NumericGreaterThanEquals", "10", "100000000000000000000000000000", True),
    # Date condition operators: the W3C's ISO 8601 formats, or seconds since the epoch.
    ("DateEquals", "2020-01-01T00:00:01Z", "2020-01-01T00:00:01Z", True),
    ("DateEquals", "2020-01-01T00:00:01Z", "1577836801", True),
    ("DateEquals", "1577836801", "2020-01-01T01:00:01+01:00", True),
    ("DateEquals", "2020", "2020-01-01T00:00:00.000Z", True),
    ("DateEquals", "2020-02", "2020-02-01", True),
    ("DateEquals", "2020-01-01T00:00Z", "2019-12-31T22:30:00-01:30", True),
    ("DateEquals", "2020-01-01", "yesterday", False),
    ("DateNotEquals", "2020-01-01", "2020-01-02", True),
    ("DateNotEquals", "2020-01-01", "2020-01-01", False),
    ("DateLessThan", "2020-01-01T00:00:01Z", "2020-01-01T00:00:00.5Z", True),
    ("DateLessThan", "2020-01-01", "2020-01-01", False),
    ("DateLessThanEquals", "2020-01-01", "2020-01-01", True),
    ("DateGreaterThan", "2020-01-01T00:00:01Z", "2021-01-01T00:00:00Z", True),
    ("DateGreaterThan", "2020-01-01T00:00:01Z", "2019-01-01T00:00:00Z", False),
    ("DateGreaterThanEquals", "2020-01-01", "2020-01-01", True),
    ("DateGreaterThanEquals", "2020-01-01", "2019-12-31T23:59:59Z", False),
    # Boolean condition operators; the JSON may hold booleans.
    ("Bool", "true", "true", True),
    ("Bool", "TRUE", "true", True),
    ("Bool", True, "true", True),
    ("Bool", "false", "true", False),
    # Binary condition operators: base64, compared byte for byte.
    ("BinaryEquals", "QmluYXJ5VmFsdWVJbkJhc2U2NA==", "QmluYXJ5VmFsdWVJbkJhc2U2NA==", True),
    ("BinaryEquals", "QQ==", "QQ==", True),
    ("BinaryEquals", "QQ==", "Qg==", False),
    ("BinaryEquals", "QQ==", "no base64", False),
    # IP address condition operators: CIDR, IPv4 and IPv6; without a prefix one address.
    ("IpAddress", "203.0.113.0/24", "203.0.113.255", True),
    ("IpAddress", "203.0.113.0/24", "203.0.114.0", False),
    ("IpAddress", "203.0.113.7", "203.0.113.7", True),
    ("IpAddress", "203.0.113.7", "203.0.113.8", False),
    ("IpAddress", ["203.0.113.0/24", "2001:DB8:1234:5678::/64"], "2001:db8:1234:5678::1", True),
    ("IpAddress", "2001:DB8:1234:5678::/64", "2001:db8:1234:5679::1", False),
    ("IpAddress", "203.0.113.0/24", "::ffff:203.0.113.9", True),
    ("IpAddress", "203.0.113.0/24", "nowhere", False),
    ("NotIpAddress", "203.0.113.0/24", "203.0.113.9", False),
    ("NotIpAddress", "203.0.113.0/24", "198.51.100.1", True),
    ("NotIpAddress", "203.0.113.0/24", "2001:db8::1", True),
    # ARN condition operators: "each of the six colon-delimited components is checked separately",
    # "ArnEquals and ArnLike behave identically", and the example of that page.
    ("ArnEquals", "arn:aws:sns:R:123456789012:T", "arn:aws:sns:R:123456789012:T", True),
    ("ArnEquals", "arn:aws:sns:*:123456789012:T*", "arn:aws:sns:R:123456789012:T1", True),
    ("ArnLike", "arn:aws:sns:?:123456789012:T", "arn:aws:sns:R:123456789012:T", True),
    ("ArnLike", "arn:aws:sns:R:123456789012:T", "arn:aws:sns:r:123456789012:T", False),
    (
        "ArnLike",
        "arn:aws:someservice:*:111122223333:finance/*",
        "arn:aws:someservice:us-east-2:999999999999:store/abc:111122223333:finance/document.txt",
        False,
    ),
    (
        "StringLike",
        "arn:aws:someservice:*:111122223333:finance/*",
        "arn:aws:someservice:us-east-2:999999999999:store/abc:111122223333:finance/document.txt",
        True,
    ),
    ("ArnLike", "arn:aws:s:r:a:x:y*", "arn:aws:s:r:a:x:yz", True),
    ("ArnLike", "arn:aws:*", "arn:aws:s:r:a:x", False),
    ("ArnLike", "*", "arn:aws:s:r:a:x", False),
    ("ArnLike", "*:*:*:*:*:*", "no arn", False),
    ("ArnNotEquals", "arn:aws:sns:*:1:T", "arn:aws:sns:R:1:T", False),
    ("ArnNotEquals", "arn:aws:sns:*:1:T", "arn:aws:sns:R:2:T", True),
    ("ArnNotLike", "arn:aws:sns:*:1:T", "arn:aws:sns:R:1:T", False),
    ("ArnNotLike", "arn:aws:sns:*:1:T", "arn:aws:sns:R:1:U", True),
]


@pytest.mark.parametrize(("name", "operands", "value", "expected"), OPERATOR_ROWS)
def test_operators(name: str, operands: object, value: str, expected: bool) -> None:
    assert holds(name, operands, (value,)) is expected
    assert holds(f"{name}IfExists", operands, (value,)) is expected
    if value:
        assert holds(f"ForAllValues:{name}", operands, (value,)) is expected
        assert holds(f"ForAnyValue:{name}", operands, (value,)) is expected


def test_every_operator_has_rows() -> None:
    assert {row[0] for row in OPERATOR_ROWS} == set(OPERATORS) - {"Null"}


# "If the key that you specify in a policy condition is not present in the request context, the
# values do not match and the condition is false. If the policy condition requires that the key is
# not matched, [...] the condition is true."
@pytest.mark.parametrize("name", [each for each in OPERATORS if each != "Null"])
def test_an_absent_key(name: str) -> None:
    operands = next(row[1] for row in OPERATOR_ROWS if row[0] == name)
    for found in (None, ()):
        assert holds(name, operands, found) is ("Not" in name)
        assert holds(f"{name}IfExists", operands, found)
        assert holds(f"ForAllValues:{name}", operands, found)
        assert not holds(f"ForAnyValue:{name}", operands, found)
        assert not holds(f"ForAnyValue:{name}IfExists", operands, found)


# "use either true (the key doesn't exist -- it is null) or false (the key exists and its value is
# not null)"
@pytest.mark.parametrize(
    ("operands", "found", "expected"),
    [
        ("true", None, True),
        ("true", (), True),
        ("true", ("x",), False),
        ("false", None, False),
        ("false", ("x",), True),
        (True, None, True),
        (["true", "false"], ("x",), True),
    ],
)
def test_null(operands: object, found: tuple[str, ...] | None, expected: bool) -> None:
    assert holds("Null", operands, found) is expected


# "ForAllValues: tests whether the value of every member of the request set is a subset of the
# condition key set", "ForAnyValue: [...] at least one member"; the tables of the page.
@pytest.mark.parametrize(
    ("name", "operands", "found", "expected"),
    [
        ("ForAllValues:StringEquals", ["a", "b"], ("a", "b"), True),
        ("ForAllValues:StringEquals", ["a", "b", "c"], ("a",), True),
        ("ForAllValues:StringEquals", ["a", "b"], ("a", "d"), False),
        ("ForAllValues:StringEquals", [], ("a",), False),
        ("ForAllValues:StringEquals", [], (), True),
        ("ForAllValues:StringEquals", ["a"], ("",), True),
        ("ForAllValues:StringLike", ["a*"], ("ab", "ac"), True),
        ("ForAllValues:StringNotEquals", ["a"], ("b", "c"), True),
        ("ForAllValues:StringNotEquals", ["a"], ("a", "c"), False),
        ("ForAnyValue:StringEquals", ["a", "b"], ("b", "d"), True),
        ("ForAnyValue:StringEquals", ["a", "b"], ("c", "d"), False),
        ("ForAnyValue:StringEquals", ["a"], ("",), False),
        ("ForAnyValue:StringNotEquals", ["a", "b"], ("a", "c"), True),
        ("ForAnyValue:StringNotEquals", ["a", "b"], ("a", "b"), False),
        # without a quantifier (AWS asks for one): every value has to pass
        ("StringEquals", ["a", "b"], ("a", "b"), True),
        ("StringEquals", ["a"], ("a", "b"), False),
        ("StringNotEquals", ["a"], ("a", "b"), False),
        ("StringNotEquals", ["a"], ("b", "c"), True),
        ("StringEquals", [], ("a",), False),
        ("StringNotEquals", [], ("a",), True),
    ],
)
def test_sets(name: str, operands: object, found: tuple[str, ...], expected: bool) -> None:
    assert holds(name, operands, found) is expected


# "Condition: multiple keys or values": keys AND, operators AND, values OR.
@pytest.mark.parametrize(
    ("a", "b", "n", "expected"),
    [("1", "1", "5", True), ("2", "1", "5", True), ("1", "2", "5", False), ("1", "1", "6", False)],
)
def test_all_conditions_have_to_hold(a: str, b: str, n: str, expected: bool) -> None:
    condition = {"StringEquals": {"k:a": ["1", "2"], "k:b": "1"}, "NumericLessThan": {"k:n": 6}}
    both = {**statement("Allow", "Bool", "true"), "Condition": condition}
    values = {"k:a": (a,), "k:b": (b,), "k:n": (n,)}
    policies = compiled(both, values=values)
    assert policies.evaluate("iot:Publish", CLIENT).allowed is expected


def test_names_of_keys_and_operators_have_no_case() -> None:
    values = {"AWS:sourceIP": ("1.2.3.4",)}
    policies = compiled(statement("Allow", "ipaddress", "1.2.3.4", "aws:SourceIp"), values=values)
    assert policies.evaluate("iot:Publish", CLIENT).allowed
    assert is_operator("forAllValues:STRINGequalsIFEXISTS")


def test_an_empty_condition_is_no_condition() -> None:
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {}}
    assert compiled(everything, values={}).evaluate("iot:Publish", CLIENT).allowed


# IAM User Guide, "Policy elements: Variables and tags", Condition element: string and ARN
# operators, and Boolean as the page on operators says.
@pytest.mark.parametrize(
    ("name", "operand", "found", "x", "expected"),
    [
        ("StringEquals", "a-${k:x}", "a-b", "b", True),
        ("StringEquals", "${K:X}", "b", "b", True),
        ("StringEquals", "${*}${?}${$}", "*?$", "", True),
        ("StringLike", "*${k:x}", "client-b", "b", True),
        ("StringLike", "*${k:x}", "client-b", "*", False),
        ("StringLike", "a${*}", "ab", "", False),
        ("StringEqualsIgnoreCase", "${k:x}", "ABC", "abc", True),
        ("ArnLike", "arn:aws:iot:*:1:topic/${k:x}/*", "arn:aws:iot:r:1:topic/b/c", "b", True),
        ("ArnLike", "arn:aws:iot:*:1:topic/${k:x}/*", "arn:aws:iot:r:1:topic/b/c", "", False),
        ("ArnEquals", "arn:aws:iot:r:1:${k:x}", "arn:aws:iot:r:1:a:b", "a:b", True),
        ("ArnEquals", "arn:aws:iot:${k:x}:y", "arn:aws:iot:r:1:y", "r:1", False),
        ("Bool", "${k:x}", "true", "true", True),
        ("StringEquals", "${k:x, 'c'}", "c", "b", False),
        ("StringEquals", "${k:absent, 'c'}", "c", "b", True),
        ("StringEquals", "${k:absent, '*'}", "c", "b", False),
        # what is excepted from a permission is unknown
        ("StringNotEquals", "${k:x}", "b", "*", False),
        ("StringNotEquals", "${k:absent}", "b", "", False),
        ("StringNotEquals", ["c", "${k:absent}"], "b", "", False),
        ("ArnNotLike", "arn:aws:iot:r:1:${k:absent}", "arn:aws:iot:r:1:b", "", False),
    ],
)
def test_variables_in_operands(
    name: str, operand: object, found: str, x: str, expected: bool
) -> None:
    assert holds(name, operand, (found,), x=x) is expected


@pytest.mark.parametrize(("name", "operand"), [("StringEquals", "red"), ("StringNotEquals", "b")])
def test_a_deny_is_not_lost_to_a_further_value(name: str, operand: str) -> None:
    """SETS: such a key wants a quantifier. Without one no value may lift what another denies."""
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    deny = statement("Deny", name, operand, "k:tag")
    for values in (
        {"k:tag": ("red", "b")},
        {"k:tag": ("b", "red")},
        {"k:Tag": ("red",), "k:tag": ("b",)},
        {"k:tag": ("b",), "k:Tag": ("red",)},
    ):
        policies = compiled(everything, deny, values=values)
        assert policies.evaluate("iot:Publish", CLIENT).explicit_deny
        late = compiled(everything, deny, values={})
        assert late.evaluate("iot:Publish", CLIENT, values).explicit_deny


def test_a_deny_is_not_lost_to_an_unknown_exception() -> None:
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    deny = statement("Deny", "StringNotEquals", "${k:absent}")
    policies = compiled(everything, deny, values={"k:key": ("b",)})
    assert policies.evaluate("iot:Publish", CLIENT).explicit_deny


# The guide's examples, in its order; what is tried are no features, persistent, will, and both.
PERSISTENT, WILL = "PersistentConnect", "LastWill"
TOPIC = ARN + "topic/my/lastwill/topicName"
ATTRIBUTES = "iot:ConnectAttributes"
ALLOW = {"Effect": "Allow", "Action": ["iot:Connect"], "Resource": CLIENT}


def allow(name: str, operands: object, key: str = ATTRIBUTES) -> dict[str, object]:
    return {**ALLOW, "Condition": {name: {key: operands}}}


def deny(name: str, operands: object) -> dict[str, object]:
    condition = {name: {ATTRIBUTES: operands}}
    return {"Effect": "Deny", "Action": ["iot:Connect"], "Resource": "*", "Condition": condition}


CONNECT_ROWS: Mapping[str, tuple[Sequence[Statement], tuple[bool, ...]]] = {
    "allows connect with PersistentConnect feature": (
        [allow("ForAllValues:StringEquals", [PERSISTENT])],
        (True, True, False, False),
    ),
    "disallows PersistentConnect, other features are allowed": (
        [allow("ForAllValues:StringNotEquals", [PERSISTENT])],
        (True, False, True, False),
    ),
    "the same by a Deny": (
        [ALLOW, deny("ForAnyValue:StringEquals", [PERSISTENT])],
        (True, False, True, False),
    ),
    "both PersistentConnect and LastWill": (
        [allow("ForAllValues:StringEquals", [PERSISTENT, WILL])],
        (True, True, True, True),
    ),
    "clean connect by clients with or without LastWill": (
        [allow("StringEquals", WILL)],
        (True, False, True, False),
    ),
    "only default features": (
        [allow("ForAllValues:StringEquals", [])],
        (True, False, False, False),
    ),
    "only with PersistentConnect": (
        [allow("ForAnyValue:StringEquals", [PERSISTENT])],
        (False, True, False, True),
    ),
    "must have both": (
        [
            allow("ForAllValues:StringEquals", [PERSISTENT, WILL]),
            deny("ForAllValues:StringEquals", [PERSISTENT]),
            deny("ForAllValues:StringEquals", [WILL]),
            deny("ForAllValues:StringEquals", []),
        ],
        (False, False, False, True),
    ),
    "must not have PersistentConnect but can have LastWill": (
        [
            deny("ForAnyValue:StringEquals", [PERSISTENT]),
            allow("ForAllValues:StringEquals", [WILL]),
        ],
        (True, False, True, False),
    ),
    "a LastWill with this topic": (
        [allow("ArnEquals", TOPIC, "iot:LastWillTopic")],
        (False, False, True, True),
    ),
    "clean connect using this LastWillTopic": (
        [
            allow("ArnEquals", TOPIC, "iot:LastWillTopic"),
            deny("ForAnyValue:StringEquals", [PERSISTENT]),
        ],
        (False, False, True, False),
    ),
    "without conditions": ([ALLOW], (True, True, True, True)),
}


@pytest.mark.parametrize("row", CONNECT_ROWS)
def test_the_connect_policy_examples(row: str) -> None:
    statements, expected = CONNECT_ROWS[row]
    policies = compiled(*statements, values={"iot:ClientId": ("client1",)})
    tried = []
    for features in ((), (PERSISTENT,), (WILL,), (PERSISTENT, WILL)):
        values: dict[str, tuple[str, ...]] = {ATTRIBUTES: features}
        if WILL in features:
            values["iot:LastWillTopic"] = (TOPIC,)
        tried.append(policies.evaluate("iot:Connect", CLIENT, values).allowed)
    assert tuple(tried) == expected


def test_another_topic_of_the_will_is_refused() -> None:
    policies = compiled(allow("ArnEquals", TOPIC, "iot:LastWillTopic"), values={})
    values: Values = {ATTRIBUTES: (WILL,), "iot:LastWillTopic": (ARN + "topic/other",)}
    assert not policies.evaluate("iot:Connect", CLIENT, values).allowed


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ([], "Condition: it must be a JSON object"),
        ({"StringIs": {"k:a": "b"}}, "`StringIs` is not a condition operator"),
        ({"StringIs": {}}, "`StringIs` is not a condition operator"),
        ({"": {"k:a": "b"}}, "`` is not a condition operator"),
        ({"ForSome:StringEquals": {"k:a": "b"}}, "not a condition operator"),
        ({":StringEquals": {"k:a": "b"}}, "not a condition operator"),
        ({"ForAllValues:": {"k:a": "b"}}, "not a condition operator"),
        ({"IfExists": {"k:a": "b"}}, "not a condition operator"),
        ({"StringEqualsIfExistsIfExists": {"k:a": "b"}}, "not a condition operator"),
        ({"NullIfExists": {"k:a": "true"}}, "not a condition operator"),
        ({"StringEquals": "k:a"}, "Condition.StringEquals: it must be a JSON object"),
        ({"StringEquals": {"a": "b"}}, "`a` is not a condition key"),
        ({"StringEquals": {"k:a": {}}}, "k:a: it must be strings, numbers or booleans"),
        ({"StringEquals": {"k:a": [None]}}, "it must be strings"),
        ({"StringEquals": {"k:a": "${x"}}, "`.{3}` has a `.{2}` that is not a variable"),
        ({"Null": {"k:a": "maybe"}}, "`maybe` is neither `true` nor `false`"),
        ({"Bool": {"k:a": "1"}}, "`1` is neither `true` nor `false`"),
        ({"NumericEquals": {"k:a": "ten"}}, "`ten` is not a number"),
        ({"NumericEquals": {"k:a": "NaN"}}, "`NaN` is not a number"),
        ({"NumericEquals": {"k:a": "${k:x}"}}, "is not a number"),
        ({"DateEquals": {"k:a": "2020-13-01"}}, "`2020-13-01` is not a date or a time"),
        ({"DateEquals": {"k:a": "2020-01-01T"}}, "is not a date or a time"),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}}, "`10.0.0.0/33` is not an IP address"),
        ({"IpAddress": {"aws:SourceIp": "${k:x}"}}, "is not an IP address"),
        ({"BinaryEquals": {"k:a": "?"}}, "`[?]` is not base64"),
    ],
)
def test_a_malformed_condition_is_refused(condition: object, message: str) -> None:
    broken = {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": condition}
    with pytest.raises(MalformedPolicyException, match=message):
        compiled(broken, values={})

"""Policy variables, one row for each; how they come to their values is tested with admission.

Sources: AWS IoT Developer Guide, "Basic AWS IoT Core policy variables" (BASIC), "Thing policy
variables" (THING), "X.509 Certificate AWS IoT Core policy variables" (CERTIFICATE) and "Using X.509
certificate policy variables", limitations; IAM User Guide, "Policy elements: Variables and tags".
"""

from __future__ import annotations

import json
import re

import pytest

from fleetgate.domain.policy import IDENTITY, IOT, Dialect, compile_policies, parse
from fleetgate.domain.policy_variables import Variable, fold, folded, split, substitute
from fleetgate.domain.wildcards import Wildcard

NAMES = [
    "DistinguishedNameQualifier",
    "Country",
    "Organization",
    "OrganizationalUnit",
    "State",
    "CommonName",
    "SerialNumber",
    "Title",
    "Surname",
    "GivenName",
    "Initials",
    "Pseudonym",
    "GenerationQualifier",
]
ALTERNATIVES = ["RFC822Name", "DNSName", "DirectoryName", "UniformResourceIdentifier", "IPAddress"]

VARIABLES = [
    "iot:ClientId",  # BASIC
    "aws:SourceIp",
    "iot:DomainName",
    "iot:Connection.Thing.ThingName",  # THING
    "iot:Connection.Thing.ThingTypeName",
    "iot:Connection.Thing.Attributes[envType]",
    "iot:Connection.Thing.Attributes[a.b,c@d/e:f#g-h_i]",
    "iot:Connection.Thing.IsAttached",
    "iot:Certificate.SerialNumber",  # CERTIFICATE
    *(
        f"iot:Certificate.{kind}.{name}{index}"
        for kind in ("Subject", "Issuer")
        for name in (*NAMES, *(f"AlternativeName.{each}" for each in ALTERNATIVES))
        for index in ("", ".1", ".4")
    ),
]


def allows(pattern: str, resource: str, dialect: Dialect = IOT, **values: str) -> bool:
    text = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": {"Effect": "Allow", "Action": "*", "Resource": pattern},
        }
    )
    named = {name.replace("_", ":"): (value,) for name, value in values.items()}
    policies = compile_policies([("p", parse(text, dialect))], named)
    return policies.evaluate("iot:Publish", resource).allowed


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_stands_for_its_value(name: str) -> None:
    for place in ("Resource", "Condition"):
        statement: dict[str, object] = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        if place == "Resource":
            statement["Resource"] = f"arn:aws:iot:r:a:topic/${{{name}}}/x"
        else:
            statement["Condition"] = {"StringEquals": {"k:key": f"${{{name}}}"}}
        parsed = parse(json.dumps({"Version": "2012-10-17", "Statement": statement}))
        assert parsed.variables == {name}
        for value, expected in (("v", True), ("w", False), ("*", False)):
            values = {name: (value,), "k:key": ("v",)}
            policies = compile_policies([("p", parsed)], values)
            decided = policies.evaluate("iot:Publish", "arn:aws:iot:r:a:topic/v/x").allowed
            assert decided is expected
        missing = compile_policies([("p", parsed)], {"k:key": ("v",)})
        assert not missing.evaluate("iot:Publish", "arn:aws:iot:r:a:topic/v/x").allowed
        assert missing.missing("iot:Publish") == [name]


# Variables and tags: "Key names are case-insensitive"; names of a thing's attributes are not.
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("aws:CurrentTime", "AWS:currenttime", True),
        ("iot:Certificate.Issuer.initials", "iot:Certificate.Issuer.Initials", True),
        ("iot:Connection.Thing.Attributes[a]", "IOT:connection.thing.attributes[a]", True),
        ("iot:Connection.Thing.Attributes[a]", "iot:Connection.Thing.Attributes[A]", False),
    ],
)
def test_names(one: str, other: str, same: bool) -> None:
    assert (fold(one) == fold(other)) is same


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("",)),
        ("a*b?", ("a", Wildcard.RUN, "b", Wildcard.ONE)),
        ("${*}${?}${$}", ("*", "?", "$")),
        ("a${k:x}", ("a", Variable("k:x", "k:x", None))),
        ("${aws:Username, 'anonymous'}", (Variable("aws:Username", "aws:username", "anonymous"),)),
        ("${k:x,''}", (Variable("k:x", "k:x", ""),)),
        ("${k:x, y}", (Variable("k:x, y", "k:x, y", None),)),
        ("$a{b}", ("$a{b}",)),
    ],
)
def test_a_text_is_split(text: str, parts: tuple[object, ...]) -> None:
    assert split(text, with_variables=True) == parts


# Variables and tags: before 2012-10-17 "variables like ${aws:username} are treated as literal
# strings".
def test_without_variables_they_are_text() -> None:
    assert "".join(map(str, split("a${k:x}${*}", with_variables=False))) == "a${k:x}${*}"


@pytest.mark.parametrize("text", ["${", "${}", "${a", "${a{b}}", "a${b${c}"])
def test_a_broken_variable_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape("has a `${` that is not a variable")):
        split(text, with_variables=True)


# Variables and tags: "Specifying default values"; "You cannot use a multivalued context key as a
# policy variable".
@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("${k:x, 'anonymous'}", {}, ["anonymous"]),
        ("${k:x, 'anonymous'}", {"k:x": ()}, ["anonymous"]),
        ("${k:x, 'anonymous'}", {"K:X": ("b",)}, ["b"]),
        ("${k:x, 'anonymous'}", {"k:x": ("b", "c")}, None),
        ("${k:x}", {"k:x": ("b", "c")}, None),
        ("${k:x}", {"k:x": ("",)}, None),
        ("${k:x}", {}, None),
        ("a${k:x}*", {"k:x": ("b",)}, ["a", "b", Wildcard.RUN]),
    ],
)
def test_substitution(
    text: str, values: dict[str, tuple[str, ...]], expected: list[object] | None
) -> None:
    assert substitute(split(text, with_variables=True), folded(values), None) == expected


# Limitations of X.509 variables: wildcards `* $ + ? #`, 1024 characters. IAM names may hold a `+`;
# there a value is text, whatever it holds.
@pytest.mark.parametrize("character", "*$+?#")
def test_special_characters_in_values(character: str) -> None:
    pattern, value = "arn:aws:iot:r:a:${k:x}", f"a{character}b"
    assert not allows(pattern, f"arn:aws:iot:r:a:{value}", k_x=value)
    assert allows(pattern, f"arn:aws:iot:r:a:{value}", IDENTITY, k_x=value)
    assert not allows(pattern, "arn:aws:iot:r:a:axb", IDENTITY, k_x=value)


@pytest.mark.parametrize(("length", "expected"), [(1024, True), (1025, False)])
def test_the_length_of_values(length: int, expected: bool) -> None:
    value = "v" * length
    assert allows("arn:aws:iot:r:a:${k:x}", f"arn:aws:iot:r:a:{value}", k_x=value) is expected

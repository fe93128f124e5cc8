"""Things and their certificates, exclusive or not.

Sources: AWS IoT API reference (AttachThingPrincipal, ListThingPrincipalsV2, ...), AWS IoT
Developer Guide, "Associating an AWS IoT thing to an MQTT client connection".
"""

import asyncio
from typing import Any

import pytest

from fleetgate.errors import InvalidRequestException, ResourceNotFoundException
from tests.operations.conftest import Registry

EXCLUSIVE, NON_EXCLUSIVE = "EXCLUSIVE_THING", "NON_EXCLUSIVE_THING"


@pytest.fixture
def principal(registry: Registry) -> str:
    """The ARN of a certificate; there are three things."""
    for name in ("a", "b", "c"):
        registry.call("CreateThing", thing_name=name)
    return str(registry.certificate()["certificateArn"])


def attach(registry: Registry, thing: str, principal: str, kind: str | None = None) -> None:
    more = {} if kind is None else {"thing_principal_type": kind}
    answer = registry.call("AttachThingPrincipal", thing_name=thing, principal=principal, **more)
    assert answer == {}


def things(registry: Registry, principal: str, kind: str | None = None) -> list[tuple[str, str]]:
    more = {} if kind is None else {"thing_principal_type": kind}
    answer = registry.call("ListPrincipalThingsV2", principal=principal, **more)
    return [(it["thingName"], it["thingPrincipalType"]) for it in answer["principalThingObjects"]]


def principals(registry: Registry, thing: str, kind: str | None = None) -> list[tuple[str, str]]:
    more = {} if kind is None else {"thing_principal_type": kind}
    answer = registry.call("ListThingPrincipalsV2", thing_name=thing, **more)
    return [(it["principal"], it["thingPrincipalType"]) for it in answer["thingPrincipalObjects"]]


def test_an_attachment_is_non_exclusive_unless_it_says_otherwise(
    registry: Registry, principal: str
) -> None:
    attach(registry, "a", principal)
    attach(registry, "b", principal, NON_EXCLUSIVE)
    assert things(registry, principal) == [("a", NON_EXCLUSIVE), ("b", NON_EXCLUSIVE)]
    assert things(registry, principal, NON_EXCLUSIVE) == things(registry, principal)
    assert things(registry, principal, EXCLUSIVE) == []
    assert registry.call("ListPrincipalThings", principal=principal)["things"] == ["a", "b"]


# Guide: "When a certificate is associated with an exclusive thing, this certificate can only be
# associated with other things if you detach it from the exclusive thing."
@pytest.mark.parametrize("kind", [None, EXCLUSIVE, NON_EXCLUSIVE])
@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
def test_an_exclusive_thing_is_the_only_one(
    registry: Registry, principal: str, kind: str | None, first: str, second: str
) -> None:
    attach(registry, first, principal, EXCLUSIVE)
    with pytest.raises(InvalidRequestException, match=f"to thing `{first}` exclusively"):
        attach(registry, second, principal, kind)
    assert things(registry, principal) == [(first, EXCLUSIVE)]
    registry.call("DetachThingPrincipal", thing_name=first, principal=principal)
    attach(registry, second, principal, kind)
    assert things(registry, principal) == [(second, kind or NON_EXCLUSIVE)]


def test_a_certificate_of_other_things_is_not_attached_exclusively(
    registry: Registry, principal: str
) -> None:
    attach(registry, "a", principal)
    attach(registry, "b", principal)
    with pytest.raises(InvalidRequestException, match="it cannot be attached to thing `c` excl"):
        attach(registry, "c", principal, EXCLUSIVE)
    assert [name for name, _ in things(registry, principal)] == ["a", "b"]


# The thing may have further certificates: the attachment is exclusive to the certificate.
def test_a_thing_may_have_several_exclusive_certificates(
    registry: Registry, principal: str
) -> None:
    other = registry.certificate()["certificateArn"]
    third = registry.certificate()["certificateArn"]
    attach(registry, "a", principal, EXCLUSIVE)
    attach(registry, "a", other, EXCLUSIVE)
    attach(registry, "a", third)
    kinds = {principal: EXCLUSIVE, other: EXCLUSIVE, third: NON_EXCLUSIVE}
    assert dict(principals(registry, "a")) == kinds
    assert set(dict(principals(registry, "a", EXCLUSIVE))) == {principal, other}
    assert principals(registry, "a", NON_EXCLUSIVE) == [(third, NON_EXCLUSIVE)]
    listed = registry.call("ListThingPrincipals", thing_name="a")["principals"]
    assert listed == sorted(kinds)
    first = registry.call("ListThingPrincipalsV2", thing_name="a", max_results=2)
    rest = registry.call("ListThingPrincipalsV2", thing_name="a", next_token=first["nextToken"])
    paged = [*first["thingPrincipalObjects"], *rest["thingPrincipalObjects"]]
    assert [each["principal"] for each in paged] == sorted(kinds)


@pytest.mark.parametrize("kind", [EXCLUSIVE, NON_EXCLUSIVE])
def test_the_same_attachment_again_changes_nothing_and_another_kind_is_refused(
    registry: Registry, principal: str, kind: str
) -> None:
    attach(registry, "a", principal, kind)
    attach(registry, "a", principal, kind)
    attach(registry, "a", principal)
    assert things(registry, principal) == [("a", kind)]
    other = EXCLUSIVE if kind == NON_EXCLUSIVE else NON_EXCLUSIVE
    with pytest.raises(InvalidRequestException, match="detach it first"):
        attach(registry, "a", principal, other)
    assert things(registry, principal) == [("a", kind)]


def test_what_is_attached_has_to_exist(registry: Registry, principal: str) -> None:
    unknown = registry.arn("cert/" + "0" * 64)
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("AttachThingPrincipal", {"thing_name": "none", "principal": principal}, "Thing none not"),
        ("AttachThingPrincipal", {"thing_name": "a", "principal": unknown}, unknown),
        ("DetachThingPrincipal", {"thing_name": "none", "principal": principal}, "Thing none not"),
        ("DetachThingPrincipal", {"thing_name": "a", "principal": principal}, "is not attached"),
        ("ListThingPrincipals", {"thing_name": "none"}, "Thing none not found"),
        ("ListThingPrincipalsV2", {"thing_name": "none"}, "Thing none not found"),
        ("ListPrincipalThings", {"principal": unknown}, unknown),
        ("ListPrincipalThingsV2", {"principal": unknown}, unknown),
    ]
    for operation, members, message in refused:
        with pytest.raises(ResourceNotFoundException, match=message):
            registry.call(operation, **members)
    for strange in ("arn:aws:iam::1:user/a", registry.arn("thing/a"), "eu-west-1:identity"):
        with pytest.raises(InvalidRequestException, match="is not the ARN of a certificate"):
            registry.call("AttachThingPrincipal", thing_name="a", principal=strange)


def test_of_many_exclusive_attachments_at_once_one_wins(registry: Registry, principal: str) -> None:
    async def race() -> list[Any]:
        attachments = [
            registry.start(
                "iot",
                "AttachThingPrincipal",
                {
                    "thing_name": name,
                    "principal": principal,
                    "thing_principal_type": EXCLUSIVE,
                },
            )
            for name in ("a", "b", "c") * 5
        ]
        return list(await asyncio.gather(*attachments, return_exceptions=True))

    outcomes = registry.runner.run(race())
    assert {type(outcome) for outcome in outcomes} == {dict, InvalidRequestException}
    assert len([outcome for outcome in outcomes if outcome == {}]) == 5
    assert [kind for _, kind in things(registry, principal)] == [EXCLUSIVE]

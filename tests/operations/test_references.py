"""The list of references is complete, and finds what is broken."""

from __future__ import annotations

import re

import pytest

from fleetgate.store.engine import Tx
from fleetgate.store.schema import MIGRATIONS
from tests.operations.conftest import ALLOW, Registry
from tests.operations.references import CHECKED, REMEMBERED, broken_references

_OWN = {
    # names and ids of the row itself, or nothing that has a row
    "generation_id": "made up for each change",
    "last_version_id": "a number, of a version that may be deleted",
    "version_id": "a number",
    "task_id": "the key of its own table",
    "thing_id": "made up",
    "thing_type_id": "made up",
    "thing_group_id": "made up",
    "billing_group_id": "made up",
    "revision_id": "made up for each change",
    "statement_id": "part of the key of its own table",
}
_KEYS = {
    ("certificate", "certificate_id"),
    ("provisioning_claim", "certificate_id"),
    ("ca_certificate", "certificate_id"),
    ("policy", "policy_name"),
    ("thing_type", "thing_type_name"),
    ("thing", "thing_name"),
    ("thing_group", "thing_group_name"),
    ("billing_group", "billing_group_name"),
    ("template", "template_name"),
    ("iam_user", "user_id"),
    ("iam_user", "user_name"),
    ("iam_access_key", "access_key_id"),
    ("iam_role", "role_id"),
    ("iam_role", "role_name"),
    ("iam_inline_policy", "policy_name"),
    ("iam_policy", "policy_id"),
    ("iam_policy", "policy_name"),
    ("role_alias", "role_alias"),
    ("lambda_function", "function_name"),
}
_LOOKS = re.compile(r".*_(id|name|arn)|target|principal|resource|role_alias|server_certificate")


def columns() -> set[tuple[str, str]]:
    """Every table and column of the schema."""
    found = set()
    for statement in (text for migration in MIGRATIONS for text in migration):
        if made := re.match(r"CREATE TABLE (\w+) \((.*)\)", statement, re.DOTALL):
            body = made[2].partition("PRIMARY KEY (")[0]
            found |= {
                (made[1], name) for name in re.findall(r"^\s*(\w+) [A-Z]", body, re.MULTILINE)
            }
        elif added := re.match(r"ALTER TABLE (\w+) ADD COLUMN (\w+)", statement):
            found.add((added[1], added[2]))
    return found


def test_every_column_that_names_something_is_known() -> None:
    every = columns()
    assert set(REMEMBERED) | CHECKED | _KEYS <= every
    looking = {each for each in every if _LOOKS.fullmatch(each[1]) and each[1] not in _OWN}
    assert looking - _KEYS == set(REMEMBERED) | CHECKED


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM policy", {"policy_version.policy_name", "policy_attachment.policy_name"}),
        (
            "DELETE FROM thing_group WHERE thing_group_name = 'top'",
            {"thing_group.parent_group_name"},
        ),
        ("DELETE FROM certificate", {"policy_attachment.target", "thing_principal.principal"}),
        ("DELETE FROM policy_version", {"the default version of an IoT policy"}),
        ("DELETE FROM billing_group", {"thing.billing_group_name", "tag.resource"}),
        (
            "UPDATE certificate SET status = 'PENDING_TRANSFER'",
            {"a certificate that is PENDING_TRANSFER without a transfer"},
        ),
    ],
)
def test_what_is_broken_is_found(registry: Registry, statement: str, what: set[str]) -> None:
    services = registry.services
    registry.call("CreatePolicy", policy_name="p", policy_document=ALLOW)
    registry.call("CreateBillingGroup", billing_group_name="b", tags=[{"Key": "k"}])
    registry.call("CreateThing", thing_name="t", billing_group_name="b")
    registry.call("CreateThingGroup", thing_group_name="top")
    registry.call("CreateThingGroup", thing_group_name="below", parent_group_name="top")
    arn = registry.certificate()["certificateArn"]
    registry.call("AttachPolicy", policy_name="p", target=arn)
    registry.call("AttachThingPrincipal", thing_name="t", principal=arn)
    look = broken_references(services.store, services.account)
    assert registry.runner.run(look) == []

    def damage(tx: Tx) -> None:
        tx.run(statement)

    registry.runner.run(services.store.write(damage))
    look = broken_references(services.store, services.account)
    assert {each for each, _ in registry.runner.run(look)} == what

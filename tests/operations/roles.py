"""IAM roles for tests of what takes the ARN of one."""

import json
from collections.abc import Mapping
from typing import Any

from fleetgate.store import iam_policies, iam_roles
from fleetgate.store.engine import Tx
from tests.operations.conftest import START, Registry


def add_role(
    registry: Registry,
    name: str,
    service: str = "iot.amazonaws.com",
    max_session_seconds: int = 3600,
) -> str:
    """A role that trusts a service and may do nothing; its ARN."""
    trust = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"Service": service},
            "Action": "sts:AssumeRole",
        },
    }
    role = iam_roles.Role(
        f"AROA{name.upper():X<16}", name, "/", json.dumps(trust), None, max_session_seconds, START
    )
    registry.runner.run(registry.services.store.write(iam_roles.add_role, role))
    return f"arn:aws:iam::{registry.services.account.id}:role/{name}"


REGISTRATION = "arn:aws:iam::aws:policy/service-role/AWSIoTThingsRegistration"


def add_provisioning_role(registry: Registry, name: str = "provisioning") -> str:
    """A role for templates, with the rights of AWS's managed policy for them; its ARN."""
    arn = add_role(registry, name)

    def attach(tx: Tx) -> None:
        role = iam_roles.find_role(tx, name)
        assert role is not None
        iam_policies.add_attached(tx, role.role_id, REGISTRATION)

    change(registry, attach)
    return arn


def set_rights(registry: Registry, name: str, *statements: Mapping[str, Any]) -> None:
    """Replaces all policies of a role by one with these statements."""
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})

    def replace(tx: Tx) -> None:
        role = iam_roles.find_role(tx, name)
        assert role is not None
        for arn in iam_policies.list_attached(tx, role.role_id):
            iam_policies.remove_attached(tx, role.role_id, arn)
        iam_policies.update_inline_policy(tx, role.role_id, "rights", document)

    change(registry, replace)


def change(registry: Registry, fn: Any) -> None:
    """A change of IAM behind the operations' back."""
    registry.runner.run(registry.services.store.write(fn))
    registry.services.iam_epoch += 1

"""What must not be left over: of a registration that failed, of a token that ended.

Source: AWS IoT Core developer guide, "Device provisioning MQTT API": a certificate that has not
been activated when its token expires is deleted. That a failed registration is undone as a whole is
ours (docs/divergences.md).
"""

from __future__ import annotations

import sqlite3

import psycopg
import pytest

from fleetgate.errors import AccessDeniedException
from fleetgate.operations.sweep import SWEEP_BATCH
from fleetgate.store import registration_answers
from fleetgate.store.engine import Tx
from fleetgate.store.registration_answers import RegistrationAnswer
from tests.operations.conftest import START, Registry
from tests.operations.roles import change, set_rights
from tests.operations.test_provisioning import (
    changed,
    create,
    register,
    set_up,
    status,
    swept,
    things,
)
from tests.operations.test_register_again import DENIED, HOUR, arn, picture, set_to


def test_answers_are_kept_no_longer_than_the_token(registry: Registry) -> None:
    set_up(registry)
    created = create(registry)
    register(registry, created)
    store = registry.services.store

    def kept() -> bool:
        find = registration_answers.find_registration_answer
        return registry.runner.run(store.read(find, created["certificateId"])) is not None

    swept(registry, START + HOUR - 1)
    assert kept()
    assert not swept(registry, START + HOUR).more
    assert not kept()
    assert status(registry, created) == "ACTIVE"


def test_a_sweep_says_when_there_is_more(registry: Registry) -> None:
    def fill(tx: Tx) -> None:
        for number in range(SWEEP_BATCH + 1):
            answer = RegistrationAnswer(str(number), "T", START, "p", "o", "ACTIVE", "{}", START)
            registration_answers.add_registration_answer(tx, answer)

    registry.runner.run(registry.services.store.write(fill))
    assert swept(registry, START).more
    assert not swept(registry, START).more


POLICY = {
    "PolicyDocument": {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}],
    }
}


def refuse_activation(tx: Tx) -> None:
    """From now on the database refuses the last step of a registration."""
    if "sqlite" in type(tx).__module__:
        tx.run(
            "CREATE TRIGGER full BEFORE UPDATE OF status ON certificate "
            "BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
        )
    else:
        tx.run("ALTER TABLE certificate ADD CONSTRAINT refused CHECK (status <> 'ACTIVE')")


def allow_activation(tx: Tx) -> None:
    if "sqlite" in type(tx).__module__:
        tx.run("DROP TRIGGER full")
    else:
        tx.run("ALTER TABLE certificate DROP CONSTRAINT refused")


@pytest.mark.parametrize("failing", ["right", "database"])
def test_a_registration_whose_last_step_fails_leaves_a_pending_certificate_alone(
    registry: Registry, failing: str
) -> None:
    set_up(registry, changed("policy.Properties", POLICY))
    created = create(registry)
    before = picture(registry)
    errors: tuple[type[Exception], ...]
    if failing == "right":
        allowed = ["iot:CreateThing", "iot:AddThingToThingGroup", "iot:CreatePolicy"]
        allowed += ["iot:AttachPolicy", "iot:AttachThingPrincipal"]
        set_rights(
            registry,
            "provisioning",
            {"Effect": "Allow", "Action": allowed, "Resource": "*"},
        )
        errors = (AccessDeniedException,)
    else:
        change(registry, refuse_activation)
        errors = (sqlite3.IntegrityError, psycopg.errors.CheckViolation)
    try:
        with pytest.raises(errors):
            register(registry, created)
        assert picture(registry) == before
        assert status(registry, created) == "PENDING_ACTIVATION"
    finally:
        if failing == "database":
            change(registry, allow_activation)
    # the next try is a first one
    set_rights(registry, "provisioning", {"Effect": "Allow", "Action": "iot:*", "Resource": "*"})
    assert register(registry, created)["thingName"] == "dev-1"


def test_what_nobody_registered_is_swept_with_all_that_hung_on_it(registry: Registry) -> None:
    """A policy or thing that an operator attached would be stuck to a certificate that is gone."""
    set_up(registry)
    created = create(registry)
    registry.call("CreateThing", thing_name="spare")
    registry.call("AttachPolicy", policy_name="device", target=arn(registry, created))
    registry.call("AttachThingPrincipal", thing_name="spare", principal=arn(registry, created))
    assert swept(registry, START + HOUR).certificates == [created["certificateId"]]
    assert registry.call("ListTargetsForPolicy", policy_name="device")["targets"] == []
    assert registry.call("ListThingPrincipals", thing_name="spare")["principals"] == []
    registry.call("DeletePolicy", policy_name="device")
    registry.call("DeleteThing", thing_name="spare")


@pytest.mark.parametrize("new_status", ["ACTIVE", "INACTIVE", "REVOKED"])
def test_what_an_operator_decided_on_before_is_not_swept(
    registry: Registry, new_status: str
) -> None:
    set_up(registry)
    created = create(registry)
    set_to(new_status)(registry, created)
    assert swept(registry, START + HOUR).certificates == []
    registry.clock.now = START + 1
    if new_status == "ACTIVE":
        assert register(registry, created)["thingName"] == "dev-1"
    else:
        with pytest.raises(DENIED, match=f"is {new_status}"):
            register(registry, created)
        assert things(registry) == []

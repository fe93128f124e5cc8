"""A thing that differs from the template: the same words at every door, and to whom what is told.

A device chooses the name of its thing, so over MQTT it does not hear what the registry knows of
it: that is for the log, and for callers and roles that may look the thing up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fleetgate.errors import ResourceRegistrationFailureException
from fleetgate.gateway.reserved import Reserved
from fleetgate.gateway.services import ProvisioningRequest
from fleetgate.operations.identity import Identity
from tests.operations.bulk import READ, BulkRegistry, line
from tests.operations.conftest import START, Registry
from tests.operations.roles import add_role, set_rights
from tests.operations.test_provisioning import create, set_up
from tests.operations.test_registration import ALLOW_ALL, NEEDED, as_user

TOPIC = "$aws/provisioning-templates/T/provision/json"
TOLD = (
    "Resources.thing.Properties.AttributePayload.site: thing `dev-1` exists with other attributes "
    "than the template's: `site` is to be `HQ`; there is no OverrideSettings.AttributePayload in "
    "the template (DO_NOTHING or REPLACE or MERGE would settle it)"
)
KNOWN = "the thing has `site` `secret-place`"


def other_thing(registry: Registry) -> None:
    """A thing of the name that a device is going to choose."""
    attributes = {"attributes": {"site": "secret-place"}}
    registry.call("CreateThing", thing_name="dev-1", attribute_payload=attributes)


def template() -> dict[str, Any]:
    properties = {"ThingName": "dev-1", "AttributePayload": {"site": "HQ"}}
    return {
        "Resources": {
            "thing": {"Type": "AWS::IoT::Thing", "Properties": properties},
            "certificate": {
                "Type": "AWS::IoT::Certificate",
                "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}},
            },
        }
    }


def inline() -> str:
    return json.dumps({"Resources": {"thing": template()["Resources"]["thing"]}})


def asked(registry: Registry, identity: Identity, payload: Mapping[str, Any]) -> dict[str, Any]:
    """What a device hears to RegisterThing."""
    reserved = Reserved(registry.services, registry.models["provisioning"])
    request = ProvisioningRequest(TOPIC, json.dumps(payload).encode(), "client", identity)
    reply = registry.runner.run(reserved.provision(request))
    found: dict[str, Any] = json.loads(reply.payload)
    return found


def test_a_device_does_not_hear_what_a_thing_is_like(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    set_up(registry, template())
    other_thing(registry)
    token = create(registry)["certificateOwnershipToken"]
    identity = Identity("c" * 64, None, START * 2)
    heard = asked(registry, identity, {"certificateOwnershipToken": token})
    assert heard == {
        "statusCode": 400,
        "errorCode": "ResourceRegistrationFailure",
        "errorMessage": TOLD,
    }
    [said] = [each for each in caplog.messages if "event=rejected" in each]
    assert f"{TOLD}; {KNOWN}" in said


def test_who_may_look_a_thing_up_is_told(registry: Registry) -> None:
    other_thing(registry)
    with pytest.raises(ResourceRegistrationFailureException) as caught:
        registry.call("RegisterThing", template_body=inline())
    assert caught.value.message == f"{TOLD}; {KNOWN}"
    with pytest.raises(ResourceRegistrationFailureException) as caught:
        as_user(registry, [ALLOW_ALL], inline())
    assert caught.value.message == f"{TOLD}; {KNOWN}"
    some = {"Effect": "Allow", "Action": NEEDED, "Resource": "*"}  # not its groups
    with pytest.raises(ResourceRegistrationFailureException) as caught:
        as_user(registry, [some], inline())
    assert caught.value.message == TOLD


@pytest.mark.parametrize(
    ("actions", "told"),
    [
        (["iot:DescribeThing", "iot:ListThingGroupsForThing"], f"{TOLD}; {KNOWN}"),
        (["iot:DescribeThing"], TOLD),
        (["iot:UpdateThing"], TOLD),
    ],
)
def test_a_report_tells_what_the_role_may_look_up(
    registry: Registry, tmp_path: Path, actions: list[str], told: str
) -> None:
    bulk = BulkRegistry(registry, tmp_path, add_role(registry, "bulk"))
    set_rights(registry, "bulk", READ, {"Effect": "Allow", "Action": actions, "Resource": "*"})
    other_thing(registry)
    ended = bulk.register(line("any"), template_body=inline())
    [error] = bulk.report(ended["taskId"], "ERRORS")
    assert error["errorCode"] == "ResourceRegistrationFailureException"
    assert error["errorMessage"] == told


def test_lines_about_a_claim_say_so(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    set_up(registry)
    claim = Identity("d" * 64, "T", START * 2)
    assert "errorCode" in asked(registry, claim, {})
    assert f"certificate={'d' * 64} claim-of=T request=" in caplog.messages[-1]
    caplog.clear()
    assert "errorCode" in asked(registry, Identity("d" * 64, None, START * 2), {})
    assert "claim-of" not in caplog.messages[-1]

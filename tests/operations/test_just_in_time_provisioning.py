"""Just-in-time provisioning: the template of a CA makes of a certificate a device, or says why not.

Source: AWS IoT Developer Guide, "Just-in-time provisioning": what is made and in which order, that
a certificate has to have all the properties the template declares, and the sample template.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from fleetgate.errors import InvalidRequestException, ServiceUnavailableException
from fleetgate.operations import just_in_time_provisioning
from fleetgate.operations.admission import NotActivated, NotAdmitted
from fleetgate.operations.identity import Peer
from fleetgate.operations.just_in_time import JustInTime
from fleetgate.store import certificates
from fleetgate.store.engine import Store
from tests.operations.arrivals import GATE, Door, Interrupted, der, id_of, open_to
from tests.operations.conftest import Registry, elsewhere
from tests.operations.foreign import ForeignAuthority, authority, name_of
from tests.operations.iam import TRUST, Iam
from tests.operations.roles import REGISTRATION, add_provisioning_role, set_rights

COMMON_NAME = {"Ref": "AWS::IoT::Certificate::CommonName"}
COUNTRY = {"Ref": "AWS::IoT::Certificate::Country"}
GUIDE: dict[str, Any] = {
    "Parameters": {
        "AWS::IoT::Certificate::CommonName": {"Type": "String"},
        "AWS::IoT::Certificate::SerialNumber": {"Type": "String"},
        "AWS::IoT::Certificate::Country": {"Type": "String"},
        "AWS::IoT::Certificate::Id": {"Type": "String"},
    },
    "Resources": {
        "thing": {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": COMMON_NAME,
                "AttributePayload": {
                    "version": "v1",
                    "serialNumber": {"Ref": "AWS::IoT::Certificate::SerialNumber"},
                },
                "ThingTypeName": "lightBulb-versionA",
                "ThingGroups": ["v1-lightbulbs", COUNTRY],
            },
            "OverrideSettings": {
                "AttributePayload": "MERGE",
                "ThingTypeName": "REPLACE",
                "ThingGroups": "DO_NOTHING",
            },
        },
        "certificate": {
            "Type": "AWS::IoT::Certificate",
            "Properties": {
                "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"},
                "Status": "ACTIVE",
            },
            "OverrideSettings": {"Status": "DO_NOTHING"},
        },
        "policy": {
            "Type": "AWS::IoT::Policy",
            "Properties": {
                "PolicyDocument": '{ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", '
                '"Action":["iot:Publish"], "Resource": '
                '["arn:aws:iot:us-east-1:123456789012:topic/foo/bar"] }] }'
            },
        },
    },
}
"""The sample of the guide, with its override settings."""


def subject(common_name: str = "lamp-1", **others: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            *(x509.NameAttribute(getattr(NameOID, oid), text) for oid, text in others.items()),
        ]
    )


LAMP = subject(SERIAL_NUMBER="S-1", COUNTRY_NAME="CH")


def body(**changes: Any) -> str:
    """The sample with other resources."""
    return json.dumps({**GUIDE, "Resources": {**GUIDE["Resources"], **changes}})


def of_certificate(status: str = "ACTIVE") -> dict[str, Any]:
    properties = {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": status}
    return {"Type": "AWS::IoT::Certificate", "Properties": properties}


def of_thing(**properties: Any) -> dict[str, Any]:
    properties = {"ThingName": COMMON_NAME, **properties}
    return {"Type": "AWS::IoT::Thing", "Properties": properties}


@pytest.fixture
def door(registry: Registry, caplog: pytest.LogCaptureFixture) -> Iterator[Door]:
    made = Door(registry, caplog)
    registry.call("CreateThingType", thing_type_name="lightBulb-versionA")
    for group in ("v1-lightbulbs", "CH"):
        registry.call("CreateThingGroup", thing_group_name=group)
    yield made
    registry.runner.run(made.just_in_time.provisioning.close(5.0))


@pytest.fixture
def foreign() -> ForeignAuthority:
    return authority()


def configure(registry: Registry, foreign: ForeignAuthority, text: str | None = None) -> str:
    """Registers the CA with an inline template and a role that has all rights; its id."""
    role = add_provisioning_role(registry)
    config = {"templateBody": text or body(), "roleArn": role}
    return open_to(registry, foreign, registration_config=config)


def template(registry: Registry, text: str, **params: Any) -> None:
    """A template `lamps` of type JITP, with a role of its own."""
    registry.call(
        "CreateProvisioningTemplate",
        template_name="lamps",
        template_body=text,
        provisioning_role_arn=add_provisioning_role(registry),
        **{"type": "JITP", "enabled": True, **params},
    )


def left(registry: Registry, leaf: str) -> dict[str, Any]:
    """What there is besides the certificate itself."""
    arn = registry.arn(f"cert/{id_of(leaf)}")
    return {
        "things": registry.call("ListThings")["things"],
        "policies": registry.call("ListPolicies")["policies"],
        "attached": registry.call("ListAttachedPolicies", target=arn)["policies"],
        "principal of": registry.call("ListPrincipalThings", principal=arn)["things"],
    }


NOTHING: dict[str, Any] = {"things": [], "policies": [], "attached": [], "principal of": []}


NO_GROUP = "step plan: Resources.thing.Properties.ThingGroups: thing group `DE` does not exist"


def fails(door: Door, leaf: str, reason: str) -> None:
    """The template fails for this reason, and leaves nothing but the certificate."""
    door.forget()
    assert isinstance(door.connect(leaf), NotActivated)
    assert door.describe(leaf)["status"] == "PENDING_ACTIVATION"
    assert left(door.registry, leaf) == NOTHING
    failed = [line for line in door.lines() if "event=provisioning-failed" in line]
    assert len(failed) == 1, door.lines()
    assert f"certificate={id_of(leaf)} " in failed[0]
    assert reason in failed[0]


# --- success -------------------------------------------------------------------------------------


def test_the_sample_of_the_guide(registry: Registry, door: Door, foreign: ForeignAuthority) -> None:
    ca_id = configure(registry, foreign)
    leaf = foreign.issue(LAMP)
    assert isinstance(door.connect(leaf), NotActivated)
    described = door.describe(leaf)
    assert (described["status"], described["caCertificateId"]) == ("ACTIVE", ca_id)
    thing = registry.call("DescribeThing", thing_name="lamp-1")
    assert thing["attributes"] == {"version": "v1", "serialNumber": "S-1"}
    assert thing["thingTypeName"] == "lightBulb-versionA"
    found = registry.call("ListThingGroupsForThing", thing_name="lamp-1")["thingGroups"]
    assert {group["groupName"] for group in found} == {"v1-lightbulbs", "CH"}
    after = left(registry, leaf)
    assert after["principal of"] == ["lamp-1"]
    assert len(after["attached"]) == len(after["policies"]) == 1
    assert door.connect(leaf) is None
    registered, provisioned = door.lines()
    assert registered.startswith("event=registered ")
    assert registered.endswith("template=inline")
    assert provisioned.startswith(
        f"event=provisioned certificate={id_of(leaf)} template=inline thing=lamp-1 status=ACTIVE "
    )


def test_the_event_is_published_with_a_template_too(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    ca_id = configure(registry, foreign)
    leaf = foreign.issue(LAMP)
    door.connect(leaf)
    door.connect(leaf)
    [(topic, event)] = door.events
    assert topic == f"$aws/events/certificates/registered/{ca_id}"
    assert event["certificateStatus"] == "PENDING_ACTIVATION"


def test_a_named_template_is_that_of_the_moment(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    template(registry, body())
    open_to(registry, foreign, registration_config={"templateName": "lamps"})
    door.connect(foreign.issue(LAMP))
    assert "template=lamps thing=lamp-1" in door.lines()[-1]
    registry.call(
        "CreateProvisioningTemplateVersion",
        template_name="lamps",
        template_body=body(thing=of_thing(AttributePayload={"version": "v2"})),
        set_as_default=True,
    )
    door.connect(foreign.issue(subject("lamp-2", SERIAL_NUMBER="S-2", COUNTRY_NAME="CH")))
    attributes = registry.call("DescribeThing", thing_name="lamp-2")["attributes"]
    assert attributes == {"version": "v2"}


def test_a_template_may_leave_the_certificate_inactive(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    configure(registry, foreign, body(certificate=of_certificate("INACTIVE")))
    leaf = foreign.issue(LAMP)
    door.connect(leaf)
    assert door.describe(leaf)["status"] == "INACTIVE"
    assert "status=INACTIVE" in door.lines()[-1]
    heard = door.connect(leaf)
    assert heard is not None
    assert heard.message.endswith("is INACTIVE, not ACTIVE")


def test_a_device_with_a_new_certificate_stays_the_same_thing(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    configure(registry, foreign)
    first, second = foreign.issue(LAMP), foreign.issue(LAMP)
    epoch = registry.services.policy_epoch
    door.connect(first)
    assert registry.services.policy_epoch == epoch  # nobody is connected who could notice
    door.connect(second)
    assert door.connect(second) is None
    principals = registry.call("ListThingPrincipals", thing_name="lamp-1")["principals"]
    arns = [registry.arn(f"cert/{id_of(each)}") for each in (first, second)]
    assert sorted(principals) == sorted(arns)


def test_registry_events_of_a_template_are_published(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    registry.call("UpdateEventConfigurations", event_configurations={"THING": {"Enabled": True}})
    configure(registry, foreign)
    door.connect(foreign.issue(LAMP))
    topics = [topic for topic, _ in door.events]
    assert "$aws/events/thing/lamp-1/created" in topics


@pytest.mark.parametrize("source", ["cacert", "provisioningtemplate"])
def test_the_role_is_assumed_for_what_names_it(
    registry: Registry, door: Door, foreign: ForeignAuthority, source: str
) -> None:
    """Developer guide, "Cross-service confused deputy prevention": `aws:SourceArn`."""
    iam = Iam(registry)
    trust = json.loads(TRUST)
    pattern = registry.arn(f"{source}/*")
    trust["Statement"][0]["Condition"] = {"ArnLike": {"aws:SourceArn": pattern}}
    role = iam("CreateRole", RoleName="bound", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    iam("AttachRolePolicy", RoleName="bound", PolicyArn=REGISTRATION)
    if source == "cacert":
        config = {"templateBody": body(), "roleArn": role["Arn"]}
    else:
        registry.call(
            "CreateProvisioningTemplate",
            template_name="bound",
            template_body=body(),
            provisioning_role_arn=role["Arn"],
            type="JITP",
            enabled=True,
        )
        config = {"templateName": "bound"}
    open_to(registry, foreign, registration_config=config)
    leaf = foreign.issue(LAMP)
    door.connect(leaf)
    assert door.describe(leaf)["status"] == "ACTIVE"


# --- failure -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (name_of("lamp-1"), "step template: Parameters.AWS::IoT::Certificate::SerialNumber: "),
        (
            subject(SERIAL_NUMBER="S-1"),
            "Cannot resolve reference value: AWS::IoT::Certificate::Country",
        ),
        (
            subject("a=b", SERIAL_NUMBER="S-1", COUNTRY_NAME="CH"),
            r"step template: Resources.thing.Properties.ThingName: thing name `a\\=b`",
        ),
        (
            subject(SERIAL_NUMBER="S-1", COUNTRY_NAME="DE"),
            NO_GROUP,
        ),
    ],
)
def test_the_subject_has_to_have_what_the_template_wants(
    registry: Registry, door: Door, foreign: ForeignAuthority, name: x509.Name, reason: str
) -> None:
    configure(registry, foreign)
    fails(door, foreign.issue(name), reason)


def reason_of(registry: Registry, leaf: str) -> tuple[str | None, str | None]:
    """The provisioning state of a certificate, and the reason that is kept with it."""
    store = registry.services.store
    found = registry.runner.run(store.read(certificates.find_certificate, id_of(leaf)))
    assert found is not None
    return found.provisioning_state, found.provisioning_failure


@pytest.mark.parametrize(
    ("common_name", "shown"),
    [
        ("a\0b", r"a\u0000b"),
        ("a\r\nevent provisioned", r"a\u000d\u000aevent provisioned"),
        ("a\x7f\x85\u2028b", r"a\u007f\u0085\u2028b"),
        ("\0" * 64, r"\u0000" * 64),
    ],
)
def test_a_subject_that_no_database_takes_fails_for_good(
    registry: Registry, door: Door, foreign: ForeignAuthority, common_name: str, shown: str
) -> None:
    configure(registry, foreign)
    leaf = foreign.issue(subject(common_name, SERIAL_NUMBER="S-1", COUNTRY_NAME="CH"))
    fails(door, leaf, "step template: Resources.thing.Properties.ThingName: thing name")
    state, reason = reason_of(registry, leaf)
    assert state == "FAILED"
    assert reason is not None
    assert f"`{shown}`" in reason
    assert not any("event=defect" in line for line in door.lines())
    door.forget()
    door.connect(leaf)
    assert not any("cause" in line and "event=not-provisioned" in line for line in door.lines())
    assert reason_of(registry, leaf) == (state, reason)


class Defective:
    """A store in which the first write meets a defect of ours."""

    def __init__(self, store: Store, error: Exception) -> None:
        self.store = store
        self.errors = [error]
        self.read = store.read

    async def write(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        if self.errors and fn.__name__ == "_carry_out":
            raise self.errors.pop()
        return await self.store.write(fn, *args, **kwargs)


@pytest.mark.parametrize(
    "error", [LookupError("gone"), InvalidRequestException("U+0000"), RecursionError()]
)
def test_a_defect_ends_in_a_reason_too_and_is_logged_once(
    registry: Registry,
    door: Door,
    foreign: ForeignAuthority,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    configure(registry, foreign)
    leaf = foreign.issue(LAMP)
    registry.services.store = Defective(registry.services.store, error)  # type: ignore[assignment]
    assert isinstance(door.connect(leaf), NotActivated)
    [defect] = [each for each in caplog.records if "event=defect" in each.getMessage()]
    assert defect.exc_info is not None
    assert defect.exc_info[1] is error
    state, reason = reason_of(registry, leaf)
    assert state == "FAILED"
    assert reason is not None
    request = reason.rpartition(" ")[2]
    assert reason == f"internal error; the server's log has more, request {request}"
    assert f"certificate={id_of(leaf)} request={request}" in defect.getMessage()
    door.forget()
    door.connect(leaf)  # it is for good: nothing is tried again
    door.start_again()
    door.connect(leaf)
    assert not any("event=defect" in line for line in door.lines())
    assert reason_of(registry, leaf) == (state, reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {
                "certificate": {
                    "Type": "AWS::IoT::Certificate",
                    "Properties": {"CertificateId": COMMON_NAME},
                }
            },
            "step template: ",
        ),
        (
            {"thing": of_thing(ThingTypeName="other")},
            "Resources.thing.Properties.ThingTypeName: thing type `other` does not exist",
        ),
        (
            {"policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "none"}}},
            "step plan: Resources.policy.Properties.PolicyName: policy `none` does not exist",
        ),
        (
            {"thing": of_thing(AttributePayload={str(number): "x" for number in range(4)})},
            "step plan: Resources.thing.Properties.AttributePayload: a thing without a thing type",
        ),
    ],
)
def test_the_template_has_to_fit_the_registry(
    registry: Registry, door: Door, foreign: ForeignAuthority, changes: dict[str, Any], reason: str
) -> None:
    configure(registry, foreign, body(**changes))
    fails(door, foreign.issue(LAMP), reason)


def test_the_log_has_what_a_thing_that_differs_is_like(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    attributes = {"attributes": {"site": "seattle"}}
    registry.call("CreateThing", thing_name="lamp-1", attribute_payload=attributes)
    configure(registry, foreign, body(thing=of_thing(AttributePayload={"site": "dublin"})))
    leaf = foreign.issue(LAMP)
    assert isinstance(door.connect(leaf), NotActivated)
    [line] = [line for line in door.lines() if "event=provisioning-failed" in line]
    assert "step plan: Resources.thing.Properties.AttributePayload.site: thing `lamp-1` " in line
    assert "`site` is to be `dublin`; there is no OverrideSettings.AttributePayload" in line
    assert "; the thing has `site` `seattle`" in line


def test_the_role_has_to_have_the_rights(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    configure(registry, foreign)
    statement = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}
    without = {"Effect": "Deny", "Action": "iot:AttachThingPrincipal", "Resource": "*"}
    set_rights(registry, "provisioning", statement, without)
    leaf = foreign.issue(LAMP)
    fails(door, leaf, "step role: the provisioning role of the template is not authorized")
    [line] = [line for line in door.lines() if "provisioning-failed" in line]
    assert "iot:AttachThingPrincipal" in line
    assert "role/provisioning" in line


def test_the_role_has_to_be_there(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    configure(registry, foreign)
    iam = Iam(registry)
    iam("DetachRolePolicy", RoleName="provisioning", PolicyArn=REGISTRATION)
    iam("DeleteRole", RoleName="provisioning")
    fails(door, foreign.issue(LAMP), "step role: the provisioning role of the template cannot be")


def test_a_disabled_template_is_not_used(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    template(registry, body(), enabled=False)
    open_to(registry, foreign, registration_config={"templateName": "lamps"})
    fails(door, foreign.issue(LAMP), "step configuration: template `lamps` is disabled")


def test_a_failure_is_for_good_until_the_certificate_is_deleted(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    configure(registry, foreign)
    leaf = foreign.issue(subject(SERIAL_NUMBER="S-1", COUNTRY_NAME="DE"))
    fails(door, leaf, NO_GROUP)
    registry.call("CreateThingGroup", thing_group_name="DE")
    door.forget()
    door.start_again()
    for _ in range(2):
        assert isinstance(door.connect(leaf), NotActivated)
        assert left(registry, leaf) == NOTHING
    for line in door.lines():
        assert line.startswith(f"event=not-activated certificate={id_of(leaf)} ")
        assert NO_GROUP in line
        assert "DeleteCertificate lets the device try again" in line
    assert len(door.events) == 3
    registry.call("DeleteCertificate", certificate_id=id_of(leaf))
    assert isinstance(door.connect(leaf), NotActivated)
    assert door.connect(leaf) is None
    assert left(registry, leaf)["principal of"] == ["lamp-1"]


def test_an_operator_may_activate_what_failed(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    configure(registry, foreign)
    leaf = foreign.issue(name_of("lamp-1"))
    fails(door, leaf, "step template")
    registry.call("UpdateCertificate", certificate_id=id_of(leaf), new_status="ACTIVE")
    assert door.connect(leaf) is None
    assert left(registry, leaf) == NOTHING


# --- crashes, and the end of the server ----------------------------------------------------------


def waiting(registry: Registry, door: Door, foreign: ForeignAuthority, count: int = 1) -> list[str]:
    """Certificates that were registered before a crash, and not provisioned."""
    crashed = JustInTime(registry.services)
    registry.runner.run(crashed.provisioning.close(0.0))
    leaves = [
        foreign.issue(subject(f"lamp-{number}", SERIAL_NUMBER="S", COUNTRY_NAME="CH"))
        for number in range(1, count + 1)
    ]
    for leaf in leaves:
        with pytest.raises(NotAdmitted):
            registry.runner.run(crashed.admit(Peer("192.0.2.7", GATE, der(leaf))))
        assert door.describe(leaf)["status"] == "PENDING_ACTIVATION"
    return leaves


def resume(registry: Registry, door: Door) -> None:
    async def start() -> None:
        door.just_in_time.provisioning.start()
        await door.just_in_time.provisioning.settled()

    door.start_again()
    registry.runner.run(start())


def test_what_a_crash_left_is_taken_up_when_the_server_starts(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    configure(registry, foreign)
    leaves = waiting(registry, door, foreign, 3)
    resume(registry, door)
    assert [door.describe(leaf)["status"] for leaf in leaves] == ["ACTIVE"] * 3
    assert "event=resumed certificates=3" in door.lines()
    door.forget()
    resume(registry, door)
    assert door.lines() == []


def test_or_when_the_device_connects_again(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    configure(registry, foreign)
    [leaf] = waiting(registry, door, foreign)
    assert isinstance(door.connect(leaf), NotActivated)
    assert "its template is being carried out" in "".join(door.lines())
    assert door.connect(leaf) is None


def test_it_is_done_once(registry: Registry, door: Door, foreign: ForeignAuthority) -> None:
    configure(registry, foreign)
    [leaf] = waiting(registry, door, foreign)
    others = [JustInTime(registry.services).provisioning for _ in range(3)]

    async def all_at_once() -> None:
        for each in others:
            each.start()
            each.add(id_of(leaf))
            each.add(id_of(leaf))
        for each in others:
            await each.settled()

    registry.runner.run(all_at_once())
    assert sum("event=provisioned" in line for line in door.lines()) == 1
    assert registry.call("DescribeThing", thing_name="lamp-1")["version"] == 1


@pytest.mark.parametrize(
    ("operation", "params"),
    [
        ("DeleteCertificate", {}),
        ("UpdateCertificate", {"new_status": "ACTIVE"}),
        ("UpdateCertificate", {"new_status": "REVOKED"}),
    ],
)
def test_an_operator_who_decides_first_is_not_overruled(
    registry: Registry, door: Door, foreign: ForeignAuthority, operation: str, params: Any
) -> None:
    configure(registry, foreign)
    [leaf] = waiting(registry, door, foreign)
    registry.call(operation, certificate_id=id_of(leaf), **params)
    resume(registry, door)
    assert registry.call("ListThings")["things"] == []
    assert door.lines()[1:] == []
    assert door.listed() == ([id_of(leaf)] if params else [])
    if params:
        assert door.describe(leaf)["status"] == params["new_status"]


@pytest.mark.parametrize(
    ("operations", "reason"),
    [
        (
            [("UpdateCACertificate", {"remove_auto_registration": True})],
            "step configuration: CA certificate {} has no registration configuration any more",
        ),
        (
            [
                ("UpdateCACertificate", {"new_status": "INACTIVE"}),
                ("DeleteCACertificate", {}),
            ],
            "step configuration: CA certificate {} has been deleted",
        ),
        ([("UpdateCACertificate", {"new_status": "INACTIVE"})], ""),
        ([("UpdateCACertificate", {"new_auto_registration_status": "DISABLE"})], ""),
    ],
)
def test_the_ca_changes_between_registration_and_template(
    registry: Registry,
    door: Door,
    foreign: ForeignAuthority,
    operations: list[tuple[str, dict[str, Any]]],
    reason: str,
) -> None:
    """A CA that is switched off stops what would be registered, not what is."""
    ca_id = configure(registry, foreign)
    [leaf] = waiting(registry, door, foreign)
    for operation, params in operations:
        registry.call(operation, certificate_id=ca_id, **params)
    resume(registry, door)
    status = door.describe(leaf)["status"]
    assert status == ("PENDING_ACTIVATION" if reason else "ACTIVE")
    assert reason.format(ca_id) in "".join(door.lines())


def test_a_store_that_is_away_is_no_failure(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    configure(registry, foreign)
    [leaf] = waiting(registry, door, foreign)

    async def away() -> None:
        raise ServiceUnavailableException("the database is away")

    store = Interrupted(registry.services.store, away)
    door.just_in_time = JustInTime(elsewhere(registry.services, store=store))
    assert isinstance(door.connect(leaf), NotActivated)
    [line] = [line for line in door.lines() if "not-provisioned" in line]
    assert "the database is away; it will be tried at the next connect" in line
    door.start_again()
    door.connect(leaf)
    assert door.connect(leaf) is None


def test_the_end_of_the_server_leaves_the_rest_waiting(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    """What has been begun is finished, or is done by the next run."""
    configure(registry, foreign)
    count = just_in_time_provisioning.AT_ONCE + 4
    leaves = waiting(registry, door, foreign, count)

    async def stop_in_the_middle() -> None:
        begun = asyncio.Event()
        go_on = asyncio.Event()

        async def before() -> None:
            begun.set()
            await go_on.wait()

        store = Interrupted(registry.services.store, before)
        provisioning = JustInTime(elsewhere(registry.services, store=store)).provisioning
        for leaf in leaves:
            provisioning.add(id_of(leaf))
        await begun.wait()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        await provisioning.close(5.0)
        provisioning.add(id_of(leaves[-1]))
        await provisioning.settled()

    registry.runner.run(stop_in_the_middle())
    statuses = [door.describe(leaf)["status"] for leaf in leaves]
    assert statuses == ["ACTIVE"] * (count - 4) + ["PENDING_ACTIVATION"] * 4
    resume(registry, door)
    assert {door.describe(leaf)["status"] for leaf in leaves} == {"ACTIVE"}


def test_the_end_does_not_wait_for_ever(
    registry: Registry, door: Door, foreign: ForeignAuthority
) -> None:
    configure(registry, foreign)
    [leaf] = waiting(registry, door, foreign)

    async def stop() -> None:
        store = Interrupted(registry.services.store, asyncio.Event().wait)
        provisioning = JustInTime(elsewhere(registry.services, store=store)).provisioning
        provisioning.add(id_of(leaf))
        await asyncio.sleep(0)
        await provisioning.close(0.01)

    registry.runner.run(stop())
    resume(registry, door)
    assert door.describe(leaf)["status"] == "ACTIVE"

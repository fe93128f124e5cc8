"""The steps of a provisioning plan, and what IAM has to allow for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fleetgate.names import Account


@dataclass(frozen=True, slots=True)
class IssueCertificate:
    """Register the certificate that was issued for the template's signing request."""

    certificate_id: str
    status: Literal["ACTIVE", "INACTIVE"]


@dataclass(frozen=True, slots=True)
class RegisterCertificate:
    """Register the certificate that the template holds."""

    certificate_id: str
    status: Literal["ACTIVE", "INACTIVE"]


@dataclass(frozen=True, slots=True)
class CreateThing:
    """Create a thing that does not exist."""

    thing_name: str
    type_name: str | None
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class UpdateThing:
    """Type and attributes as they are to be, all of them."""

    thing_name: str
    type_name: str | None
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RemoveThingFromGroup:
    """Take a thing out of a thing group."""

    thing_name: str
    group_name: str


@dataclass(frozen=True, slots=True)
class AddThingToGroup:
    """Put a thing into a thing group that exists."""

    thing_name: str
    group_name: str


@dataclass(frozen=True, slots=True)
class AddThingToBillingGroup:
    """Put a thing, which is in none, into a billing group."""

    thing_name: str
    billing_group_name: str


@dataclass(frozen=True, slots=True)
class CreatePolicy:
    """Create a policy with its first, default version."""

    policy_name: str
    document: str


@dataclass(frozen=True, slots=True)
class AttachPolicy:
    """Attach a policy to the certificate."""

    policy_name: str
    certificate_id: str


@dataclass(frozen=True, slots=True)
class AttachThingPrincipal:
    """Attach the certificate to the thing; `exclusive`: and to no other, ever."""

    thing_name: str
    certificate_id: str
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class UpdateCertificateStatus:
    """Set the status of the certificate."""

    certificate_id: str
    status: Literal["ACTIVE", "INACTIVE"]


Step = (
    IssueCertificate
    | RegisterCertificate
    | CreateThing
    | UpdateThing
    | RemoveThingFromGroup
    | AddThingToGroup
    | AddThingToBillingGroup
    | CreatePolicy
    | AttachPolicy
    | AttachThingPrincipal
    | UpdateCertificateStatus
)


def rights(step: Step, account: Account) -> tuple[tuple[str, str], ...]:
    """What IAM has to allow for a step: actions and the ARNs they are on, all of them.

    Only what changes something: what AWS reads meanwhile is not asked for. The actions are those
    of the managed policy AWSIoTThingsRegistration; each resource is a type that the Service
    Authorization Reference lists for its action, ``*`` where it lists none.
    """
    arn = account.arn
    match step:
        case IssueCertificate():
            return (("iot:CreateCertificateFromCsr", "*"),)
        case RegisterCertificate():
            return (("iot:RegisterCertificate", "*"),)
        case CreateThing(name):
            return (("iot:CreateThing", arn(f"thing/{name}")),)
        case UpdateThing(name):
            return (("iot:UpdateThing", arn(f"thing/{name}")),)
        case AddThingToGroup(name, group):
            return (
                ("iot:AddThingToThingGroup", arn(f"thing/{name}")),
                ("iot:AddThingToThingGroup", arn(f"thinggroup/{group}")),
            )
        case RemoveThingFromGroup(name, group):
            return (
                ("iot:RemoveThingFromThingGroup", arn(f"thing/{name}")),
                ("iot:RemoveThingFromThingGroup", arn(f"thinggroup/{group}")),
            )
        case AddThingToBillingGroup(name, group):
            return (
                ("iot:AddThingToBillingGroup", arn(f"thing/{name}")),
                ("iot:AddThingToBillingGroup", arn(f"billinggroup/{group}")),
            )
        case CreatePolicy(name):
            return (("iot:CreatePolicy", arn(f"policy/{name}")),)
        case AttachPolicy(_, certificate_id):
            return (("iot:AttachPolicy", arn(f"cert/{certificate_id}")),)
        case AttachThingPrincipal(_, certificate_id):
            return (("iot:AttachThingPrincipal", arn(f"cert/{certificate_id}")),)
        case UpdateCertificateStatus(certificate_id):
            return (("iot:UpdateCertificate", arn(f"cert/{certificate_id}")),)


def condition_keys(step: Step, account: Account) -> Mapping[str, tuple[str, ...]]:
    """The condition keys a step fills, by the same reference."""
    if isinstance(step, AttachThingPrincipal):
        return {"iot:thingArn": (account.arn(f"thing/{step.thing_name}"),)}
    return {}

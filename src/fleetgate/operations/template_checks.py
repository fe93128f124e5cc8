"""What can be said of a template without touching anything: for the command line and over HTTP.

`problems` are those of `domain.template_lint` and replies that exceed a device's buffer;
`resources_for` and `shown` are what one device would get; `missing` is what the registry lacks.

Sources: AWS IoT Developer Guide, "Provisioning templates" and "Device provisioning MQTT API"; MQTT
3.1.1 section 3.3 (the size of a PUBLISH); the buffers of AWS's C demos.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from fleetgate.domain.resources import Certificate, Policy, Resources, Thing
from fleetgate.domain.template import CERTIFICATE_ID, PSEUDO_PARAMETERS, Kind, Template, render
from fleetgate.domain.template_constants import SOME_ID, Named
from fleetgate.domain.template_lint import MOST, Finding, Linted
from fleetgate.errors import AccessDeniedException, InvalidRequestException
from fleetgate.names import certificate_id
from fleetgate.operations.authorization import require
from fleetgate.operations.call import Call
from fleetgate.pki import csr, pem
from fleetgate.pki.subject_parameters import subject_parameters
from fleetgate.store import billing_groups, groups, policies, things
from fleetgate.store.engine import Tx
from fleetgate.wire import payload

TYPES: Final[Mapping[str, Kind]] = {
    "fleet": Kind.FLEET,
    "jitp": Kind.JITP,
    "inline": Kind.INLINE,
    "bulk": Kind.INLINE,
}
"""What people call the kinds; the lines of a bulk registration are given to an inline template."""

BUFFERS: Final = (2048, 4096)
"""Bytes of the MQTT buffers of AWS's C demos, which hold a whole packet."""

_MAX_NAME = 128  # of a type, a group, a policy
_NAME = "T" * 36
"""The longest name a template can have."""

ACTIONS: Final = {
    "thingtype": "iot:DescribeThingType",
    "thinggroup": "iot:DescribeThingGroup",
    "billinggroup": "iot:DescribeBillingGroup",
    "policy": "iot:GetPolicy",
}
"""The right that looking up a name takes, by the resource type of its ARN."""

WORDS: Final = {
    "thingtype": "thing type",
    "thinggroup": "thing group",
    "billinggroup": "billing group",
    "policy": "policy",
}
"""What the resource types are called in messages."""


def kind_called(name: str) -> Kind:
    """The kind of that name, or of AWS's; raises InvalidRequestException."""
    try:
        return TYPES.get(name) or Kind(name)
    except ValueError:
        known = ", ".join(f"`{each}`" for each in TYPES)
        raise InvalidRequestException(
            f"`{name[:80]}` is no type of template; there are {known}"
        ) from None


# --- the reply of RegisterThing ------------------------------------------------------------------


def reply_sizes(
    thing_name: str | None, configuration: Mapping[str, str], template_name: str = _NAME
) -> dict[str, dict[str, int]]:
    """Bytes of the accepted reply of RegisterThing by format: the payload, the MQTT packet.

    Without its name the template is taken to have the longest one: it is in the topic.
    """
    reply = {"deviceConfiguration": dict(configuration), "thingName": thing_name}
    sizes: dict[str, dict[str, int]] = {}
    for form in payload.FORMATS:
        size = len(payload.encode(form, reply))
        topic = f"$aws/provisioning-templates/{template_name}/provision/{form}/accepted"
        rest = 2 + len(topic) + 2 + size  # length of topic, packet identifier: QoS 1
        length = next(n for n in range(1, 5) if rest < 1 << 7 * n)
        sizes[form] = {"payload": size, "packet": 1 + length + rest}
    return sizes


def too_large(linted: Linted, device_buffer: int, template_name: str = _NAME) -> Iterator[Finding]:
    """Replies that a device with a buffer of so many bytes could not take."""
    if not linted.readable:
        return
    sizes = reply_sizes(linted.thing_name, linted.device_configuration, template_name)
    over = [form for form, size in sizes.items() if size["packet"] > device_buffer]
    for form in over:
        said = (
            f"the reply of RegisterThing as {form.upper()} is an MQTT packet of "
            f"{sizes[form]['packet']} bytes, even without what devices bring; the device's buffer "
            f"has {device_buffer}"
        )
        if len(over) < len(sizes):
            fits = next(each for each in sizes if each not in over)
            yield Finding("warning", "DeviceConfiguration", f"{said}, as {fits.upper()} it fits")
        else:
            yield Finding("error", "DeviceConfiguration", said)


# --- what one device gets ------------------------------------------------------------------------


def resources_for(
    template: Template,
    parameters: Mapping[str, str],
    csr_pem: str | None = None,
    certificate_pem: str | None = None,
) -> Resources:
    """What a template makes for one device.

    `csr_pem` is the device's signing request: its certificate does not exist, so that an id
    stands in for its own. `certificate_pem` is a certificate the device has, whose subject brings
    the pseudo parameters of just-in-time provisioning. To an inline template both are parameters,
    by the names they have in AWS's examples, unless `parameters` have these. Raises
    InvalidTemplate, and InvalidRequestException for a certificate that cannot be read.
    """
    pseudo: dict[str, str] = {}
    if certificate_pem is not None:
        try:
            pseudo = subject_parameters(pem.decode(certificate_pem, "CERTIFICATE"))
        except ValueError as error:
            raise _unreadable(error) from None
    if template.kind is Kind.INLINE:
        named = {
            "CSR": csr_pem,
            "CertificatePem": certificate_pem,
            "CertificateId": pseudo.get(CERTIFICATE_ID),
        }
        given = {name: value for name, value in named.items() if value is not None}
        return render(template, {**given, **parameters})
    if certificate_pem is not None:  # then nothing else tells of it
        others = {
            name: value
            for name, value in parameters.items()
            if name not in PSEUDO_PARAMETERS[Kind.JITP]
        }
        return render(template, {**others, **pseudo})
    return render(template, {**parameters, CERTIFICATE_ID: SOME_ID})


def shown(
    kind: Kind, resources: Resources, csr_pem: str | None = None, template_name: str = _NAME
) -> dict[str, Any]:
    """The resources of one device as JSON, and for fleet provisioning the size of the reply.

    Raises InvalidCsr, and InvalidRequestException for a certificate that cannot be read.
    """
    request = None if csr_pem is None else request_facts(csr_pem)
    members: dict[str, Any] = {
        "thing": None if resources.thing is None else _thing(resources.thing),
        "certificate": None,
        "policies": [_policy(each) for each in resources.policies],
    }
    if resources.certificate is not None:
        members["certificate"] = _certificate(resources.certificate, request)
    if kind is Kind.FLEET:
        members["deviceConfiguration"] = dict(resources.device_configuration)
        thing_name = None if resources.thing is None else resources.thing.name
        sizes = reply_sizes(thing_name, resources.device_configuration, template_name)
        members["reply"] = {
            "bytes": sizes,
            "fits": {
                str(buffer): {form: size["packet"] <= buffer for form, size in sizes.items()}
                for buffer in BUFFERS
            },
        }
    return members


def request_facts(text: str) -> dict[str, str]:
    """Subject (RFC 4514) and key of a signing request; raises InvalidCsr."""
    request = csr.parse(text)
    key = request.public_key
    named = "RSA" if isinstance(key, RSAPublicKey) else key.curve.name
    return {"subject": request.subject.rfc4514_string(), "key": f"{named}, {key.key_size} bits"}


def _unreadable(error: ValueError) -> InvalidRequestException:
    return InvalidRequestException(f"the certificate cannot be read: {error}")


def _thing(thing: Thing) -> dict[str, Any]:
    overrides = {name: value for name, value in asdict(thing.overrides).items() if value}
    spelled = {"attributes": "AttributePayload", "type_name": "ThingTypeName"}
    return _without_none(
        {
            "thingName": thing.name,
            "thingTypeName": thing.type_name,
            "attributes": thing.attributes,
            "thingGroups": None if thing.groups is None else list(thing.groups),
            "billingGroup": thing.billing_group,
            "overrideSettings": {
                spelled.get(name, "ThingGroups"): str(value) for name, value in overrides.items()
            }
            or None,
        }
    )


def _certificate(certificate: Certificate, request: Mapping[str, str] | None) -> dict[str, Any]:
    found, stands_in = certificate.certificate_id, False
    if certificate.csr is not None:
        request = request_facts(certificate.csr)
    if certificate.pem is not None:
        try:
            found = certificate_id(pem.decode(certificate.pem, "CERTIFICATE"))
        except ValueError as error:
            raise _unreadable(error) from None
    if found is None or found == SOME_ID:
        found, stands_in = SOME_ID, True
    return _without_none(
        {
            "certificateId": found,
            "certificateIdStandsIn": stands_in or None,
            "status": certificate.status,
            "thingPrincipalType": certificate.principal_type,
            "signingRequest": request,
        }
    )


def _policy(policy: Policy) -> dict[str, Any]:
    document = None if policy.document is None else json.loads(policy.document)
    return _without_none({"policyName": policy.name, "policyDocument": document})


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


# --- what the registry has -----------------------------------------------------------------------


def names(template: Template, resources: Resources) -> Iterator[Named]:
    """What has to exist for one device's resources."""
    thing = resources.thing
    if template.thing is not None and thing is not None:
        path = template.thing.path
        if thing.type_name is not None:
            yield Named("thingtype", thing.type_name, f"{path}.ThingTypeName")
        for name in thing.groups or ():
            yield Named("thinggroup", name, f"{path}.ThingGroups")
        if thing.billing_group is not None:
            yield Named("billinggroup", thing.billing_group, f"{path}.BillingGroup")
    paths = {each.logical_id: each.path for each in template.policies}
    for policy in resources.policies:
        if policy.document is None:
            yield Named("policy", policy.name, f"{paths[policy.logical_id]}.PolicyName")


def missing(tx: Tx, call: Call, wanted: Collection[Named]) -> list[Finding]:
    """What of all that is not there; each is looked up only if the caller may look it up.

    Of the names that can be names at all, MOST are looked up.
    """
    ask = require(tx, call)
    findings: list[Finding] = []
    names = [each for each in wanted if len(each.name) <= _MAX_NAME]
    if len(names) > MOST:
        rule = f"{len(names) - MOST} of the {len(names)} names in it were not looked up"
        findings.append(Finding("warning", "", rule))
    for each in names[:MOST]:
        what = f"{WORDS[each.type]} `{each.name}`"
        try:
            ask(ACTIONS[each.type], call.account.arn(f"{each.type}/{each.name}"), {})
        except AccessDeniedException as error:
            said = f"{what} was not looked up: {error.message}"
            findings.append(Finding("warning", each.path, said))
            continue
        if (lack := _found(tx, each)) is not None:
            findings.append(Finding("error", each.path, f"{what} {lack}"))
    return findings


def _found(tx: Tx, named: Named) -> str | None:
    """Why something cannot be used, None when it can."""
    if named.type == "thingtype":
        found = things.find_thing_type(tx, named.name)
        if found is not None and found.deprecated_at is not None:
            return "is deprecated"
        there = found is not None
    elif named.type == "thinggroup":
        there = groups.find_thing_group(tx, named.name) is not None
    elif named.type == "billinggroup":
        there = billing_groups.find_billing_group(tx, named.name) is not None
    else:
        there = policies.find_default_document(tx, named.name) is not None
    return None if there else "does not exist"

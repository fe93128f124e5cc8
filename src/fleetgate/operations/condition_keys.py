"""The condition keys of IAM policies: what a call, its members, a principal and a resource fill.

Sources: IAM User Guide, "AWS global condition context keys"; Service Authorization Reference,
"Actions, resources, and condition keys" of each service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from fleetgate.domain.policy import Policies
from fleetgate.names import Account, unqualified
from fleetgate.operations.call import Call
from fleetgate.operations.required_rights import Params, Rights
from fleetgate.store import tags
from fleetgate.store.engine import Tx

GLOBAL_REGION = "us-east-1"
"""Where IAM and STS are, which have no region of their own (``aws-global`` in SDKs)."""

RESOURCE_TAGS = ("aws:ResourceTag/", "iam:ResourceTag/")
"""What the condition keys for tags of resources begin with."""

Values = Mapping[str, tuple[str, ...]]


def of_call(call: Call, service: str) -> dict[str, tuple[str, ...]]:
    """What every request has: the time, the region of the service, and whatever came with it."""
    region = call.account.region if service in ("iot", "lambda") else GLOBAL_REGION
    return {
        **call.conditions,
        "aws:CurrentTime": (datetime.fromtimestamp(call.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),),
        "aws:EpochTime": (str(int(call.now)),),
        "aws:RequestedRegion": (region,),
    }


def of_members(account: Account, rights: Rights, params: Params) -> dict[str, tuple[str, ...]]:
    """What the members of a request fill: its tags, and the keys of its row of rights."""
    values: dict[str, tuple[str, ...]] = {}
    for key, member in rights.keys:
        if "{" in member:
            values[key] = (account.arn(member.format_map(params)),)
        elif (value := params.get(member)) is not None:
            values[key] = (str(value),)
    given: Sequence[Mapping[str, str]] | Mapping[str, str] = params.get("tags") or ()
    if isinstance(given, Mapping):  # as Lambda has them
        pairs = list(given.items())
    else:
        pairs = [(tag.get("Key", ""), tag.get("Value") or "") for tag in given]
    values |= _by_key("aws:RequestTag/", pairs)
    if keys := (*(params.get("tag_keys") or ()), *(key for key, _ in pairs)):
        values["aws:TagKeys"] = keys
    return values


def of_principal(
    account: Account, arn: str, kind: str, found: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Who asks: the ARN of a user or role, its `kind` (``User``, ``AssumedRole``) and its tags."""
    return {
        "aws:PrincipalArn": (arn,),
        "aws:PrincipalAccount": (account.id,),
        "aws:PrincipalType": (kind,),
        "aws:PrincipalIsAWSService": ("false",),
        "aws:ViaAWSService": ("false",),
        **_by_key("aws:PrincipalTag/", found.items()),
    }


def of_resource(tx: Tx, arn: str) -> dict[str, tuple[str, ...]]:
    """The tags of a resource; none for one that is not there."""
    found = tags.list_tags(tx, unqualified(arn)).items()
    return {key: value for tag in RESOURCE_TAGS for key, value in _by_key(tag, found).items()}


def of_step(tx: Tx, asked: Iterable[Policies], arn: str, keys: Values) -> Values:
    """What is known of one action on one resource beside its call: `keys`, and its tags.

    Tags are read when one of the policies that are `asked` looks at some.
    """
    if not looks_at_tags(asked):
        return keys
    return {**of_resource(tx, arn), **keys}


def looks_at_tags(asked: Iterable[Policies]) -> bool:
    """Whether one of the policies has a condition or variable about tags of resources."""
    return any(policies.mentions(tag) for policies in asked for tag in RESOURCE_TAGS)


def _by_key(prefix: str, pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """A key for each tag; one that is given twice has both values."""
    values: dict[str, tuple[str, ...]] = {}
    for key, value in pairs:
        values[prefix + key] = (*values.get(prefix + key, ()), value)
    return values

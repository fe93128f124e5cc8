"""Tags of everything in the registry that takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fleetgate.errors import (
    InvalidRequestException,
    LimitExceededException,
    ResourceNotFoundException,
    ServiceError,
)
from fleetgate.names import Account
from fleetgate.operations import pages
from fleetgate.operations.call import Call
from fleetgate.store import (
    billing_groups,
    ca_certificates,
    certificate_providers,
    domain_configurations,
    groups,
    policies,
    role_aliases,
    tags,
    templates,
    things,
)
from fleetgate.store.engine import Tx

Tags = Sequence[Mapping[str, str]]
"""Tags as the API has them: ``{"Key": ..., "Value": ...}``, the value may be left out."""

RESERVED_PREFIX = "aws:"
"""Nobody but AWS gives tags with it (AWS IoT Developer Guide, "Tag restrictions")."""

TAGGABLE: Mapping[str, Callable[[Tx, str], object | None]] = {
    "billinggroup": billing_groups.find_billing_group,
    "cacert": ca_certificates.find_ca_certificate,
    "certificateprovider": certificate_providers.find_certificate_provider_named,
    "domainconfiguration": domain_configurations.find_domain_configuration_at,
    "policy": policies.find_policy,
    "provisioningtemplate": templates.find_template,
    "rolealias": role_aliases.find_role_alias,
    "thinggroup": groups.find_thing_group,
    "thingtype": things.find_thing_type,
}
"""Kinds of resources that take tags: the word in the ARN, and how to find one by what follows
the first slash (None: there is none). Source: Service Authorization Reference, "Resource types
defined by AWS IoT" (those with the condition key ``aws:ResourceTag``). Things and certificates
take none."""


async def tag_resource(call: Call, resource_arn: str, tags: Tags) -> dict[str, Any]:
    """TagResource: a key the resource has already gets the new value."""
    checked = checked_tags(call, tags, LimitExceededException)
    resource_arn = call.account.known_as(resource_arn)

    def change(tx: Tx) -> None:
        require_taggable(tx, call.account, resource_arn)
        add_tags(tx, call, resource_arn, checked)

    await call.write(change)
    return {}


async def untag_resource(call: Call, resource_arn: str, tag_keys: Sequence[str]) -> dict[str, Any]:
    """UntagResource: keys the resource does not have are passed over."""
    resource_arn = call.account.known_as(resource_arn)
    for key in tag_keys:
        _check_not_reserved(key)

    def change(tx: Tx) -> None:
        require_taggable(tx, call.account, resource_arn)
        tags.remove_tags(tx, resource_arn, tag_keys)

    await call.write(change)
    return {}


async def list_tags_for_resource(
    call: Call, resource_arn: str, next_token: str | None = None
) -> dict[str, Any]:
    """ListTagsForResource: by key, all on one page."""
    pages.start(call, "ListTagsForResource", next_token)
    resource_arn = call.account.known_as(resource_arn)

    def find(tx: Tx) -> dict[str, str]:
        require_taggable(tx, call.account, resource_arn)
        return tags.list_tags(tx, resource_arn)

    found = await call.read(find)
    return {"tags": [{"Key": key, "Value": value} for key, value in found.items()]}


def checked_tags(
    call: Call,
    given: Tags | None,
    too_many: type[ServiceError] = InvalidRequestException,
) -> dict[str, str]:
    """The tags of a request as key to value; None is none.

    Raises InvalidRequestException for a key given twice or one with AWS's prefix, and `too_many`
    (not every operation declares LimitExceededException) for more tags than a resource may have.
    Lengths and characters are the model's constraints.
    """
    checked: dict[str, str] = {}
    for tag in given or ():
        key = tag["Key"]
        _check_not_reserved(key)
        if key in checked:
            raise InvalidRequestException(f"tag key `{key}` is given twice")
        checked[key] = tag.get("Value") or ""
    limit = call.services.limits.tags_per_resource
    if len(checked) > limit:
        raise too_many(f"a resource has at most {limit} tags, not {len(checked)}")
    return checked


def add_tags(tx: Tx, call: Call, arn: str, checked: Mapping[str, str]) -> None:
    """Gives a resource the tags that `checked_tags` returned, beside those it has.

    Raises LimitExceededException when it would have too many; a new resource never has.
    """
    if not checked:
        return
    current = tags.list_tags(tx, arn)
    limit = call.services.limits.tags_per_resource
    if current and len({*current, *checked}) > limit:
        raise LimitExceededException(
            f"{arn} would have {len({*current, *checked})} tags; the limit is {limit}"
        )
    tags.update_tags(tx, arn, checked)


def require_taggable(tx: Tx, account: Account, arn: str) -> None:
    """Raises unless `arn` names a resource that is there and takes tags.

    InvalidRequestException for an ARN of another account or region, or of a kind that takes no
    tags; ResourceNotFoundException when there is no such resource.
    """
    prefix = account.arn("")
    if not arn.startswith(prefix):
        raise InvalidRequestException(
            f"`{arn}` is not the ARN of a resource of account {account.id} in {account.region} "
            f"({prefix}...)"
        )
    kind, _, name = arn[len(prefix) :].partition("/")
    find = TAGGABLE.get(kind)
    if find is None or not name:
        raise InvalidRequestException(
            f"`{arn}` is not the ARN of a resource that takes tags: {', '.join(sorted(TAGGABLE))}"
        )
    if find(tx, name) is None:
        raise ResourceNotFoundException(f"Resource not found (arn={arn})")


def _check_not_reserved(key: str) -> None:
    if key.lower().startswith(RESERVED_PREFIX):
        raise InvalidRequestException(
            f"tag key `{key}` begins with `{RESERVED_PREFIX}`, which is reserved for AWS"
        )

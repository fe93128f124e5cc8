"""The resources a call is about, as IAM names them: from its members, and from the store.

Sources: Service Authorization Reference, "Resource types defined by" each service; for the names
in refusals what AWS is seen to answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any

from fleetgate.errors import InvalidRequestException, ServiceError
from fleetgate.names import Account
from fleetgate.operations import condition_keys, function_names
from fleetgate.operations.call import Call
from fleetgate.operations.caller import Caller
from fleetgate.operations.condition_keys import Values
from fleetgate.operations.required_rights import Params, Resource, Rights
from fleetgate.store import domain_configurations, iam_roles, iam_users
from fleetgate.store.engine import Tx

MAX_NAMED = 100
"""Resources, or tags, that one list of a call may name. No quota of AWS lets a call do more."""

MAX_ARN = 2048
"""Characters of an ARN (``arnType`` of the IAM model)."""

WITH_PATHS = frozenset({"user", "role", "key", "domainconfiguration"})
"""Kinds whose ARNs have a part that only the store knows: see `with_paths`."""

_LISTED = {"users": "user", "roles": "role", "policies": "policy path "}
_TAGS = ("tags", "tag_keys")


@dataclass(frozen=True, slots=True)
class Asked:
    """A resource that is asked for, with its condition keys.

    `shown` is its name in a refusal when the ARN has parts the caller did not say: what is in
    the store is not told to those who may not see it.
    """

    arn: str
    shown: str = ""
    keys: Values = field(default_factory=dict)


def refuse_many(call: Call, rights: Rights, params: Params) -> None:
    """Raises InvalidRequestException for lists and ARNs beyond all bounds, before any is asked."""
    limits = call.services.limits
    lists = {each.member: limits.groups_per_thing for each in rights.resources if each.each}
    for member, quota in (lists | dict.fromkeys(_TAGS, limits.tags_per_resource)).items():
        given, most = params.get(member), max(MAX_NAMED, quota)
        if isinstance(given, Sized) and len(given) > most:
            raise InvalidRequestException(
                f"`{_as_in_model(member)}` of {rights.action} names {len(given)} at once; "
                f"the limit is {most}"
            )
    for resource in rights.resources:
        arn = params.get(resource.arn_member if resource.kind else resource.member)
        if isinstance(arn, str) and len(arn) > MAX_ARN:
            raise InvalidRequestException(
                f"the ARN `{arn[:80]}...` has {len(arn)} characters; the limit is {MAX_ARN}"
            )


def _as_in_model(member: str) -> str:
    first, *others = member.split("_")
    return first + "".join(map(str.capitalize, others))


def named(account: Account, rights: Rights, params: Params) -> list[Asked]:
    """The resources a call names, as far as its members tell; ``*`` when it names none."""
    return list(_named(account, rights, params)) or [Asked("*")]


def _named(account: Account, rights: Rights, params: Params) -> Iterator[Asked]:
    for resource in rights.resources:
        value = params.get(resource.member)
        if resource.kind in _LISTED:
            # what AWS names when it refuses, though the reference knows no resource type
            path = value or "/"
            listed = _LISTED[resource.kind] + path
            yield Asked(listed if " " in listed else account.iam_arn(listed))
            continue
        by_arn = params.get(resource.arn_member) if resource.arn_member else None
        if by_arn is not None:
            yield Asked(by_arn)
            if value is None:
                continue
        if value is None:
            if resource.required:
                yield Asked("*")
        elif resource.each:
            yield from (Asked(_arn(account, rights, resource, params, name)) for name in value)
        else:
            yield Asked(_arn(account, rights, resource, params, value))


def _arn(account: Account, rights: Rights, resource: Resource, params: Params, name: str) -> str:
    if not resource.kind:
        return account.known_as(name)
    if rights.action.startswith("iam:"):
        return account.iam_arn(f"{resource.kind}{params.get('path') or '/'}{name}")
    if resource.kind == "function":
        return _function_arn(account, name, params.get("qualifier"))
    return account.arn(f"{resource.kind}/{name}")


def _function_arn(account: Account, name: str, qualifier: str | None) -> str:
    """A function by any of its names; what is none of this account's is refused by nobody else."""
    try:
        found = function_names.parse(account, name, qualifier)
    except ServiceError:
        return name
    return account.lambda_arn(found.qualified)


def with_paths(
    tx: Tx, account: Account, caller: Caller, rights: Rights, params: Params
) -> Iterator[Asked]:
    """Resources whose ARN has a part that only the store knows."""
    creates = rights.action in ("iam:CreateUser", "iam:CreateRole")
    for resource in rights.resources:
        name = params.get(resource.member)
        match resource.kind:
            case "user" if name is None:
                own = caller.principal_arn
                yield Asked(own, f"user {own.rpartition('/')[2]}")
            case "user" | "role" if name is not None and creates:
                yield Asked(_arn(account, rights, resource, params, name))
            case "user" | "role" if name is not None:
                path = _path(tx, resource.kind, name)
                yield Asked(
                    account.iam_arn(f"{resource.kind}{path}{name}"), f"{resource.kind} {name}"
                )
                if rights.action == "iam:UpdateUser":
                    yield from _renamed(tx, account, path, name, params)
            case "key":
                key = iam_users.find_access_key(tx, str(name))
                arn = "*"
                if key is not None:
                    arn = account.iam_arn(f"user{key.user_path}{key.user_name}")
                yield Asked(arn, f"access key {name}")
            case "domainconfiguration":
                found = domain_configurations.find_domain_configuration(tx, str(name))
                suffix = "*" if found is None else found.suffix
                prefix = account.arn(f"domainconfiguration/{name}/")
                yield Asked(prefix + suffix, f"{prefix}*")


def _renamed(tx: Tx, account: Account, path: str, name: str, params: Params) -> Iterator[Asked]:
    """What a user becomes, which has the tags the user has.

    Source: IAM API Reference, "UpdateUser": "the appropriate permissions on both the source
    object and the target object".
    """
    new_path, new_name = params.get("new_path"), params.get("new_user_name")
    if new_path is None and new_name is None:
        return
    target = account.iam_arn(f"user{new_path or path}{new_name or name}")
    shown = f"user {new_name or name}" if new_path is None else ""
    keys = condition_keys.of_resource(tx, account.iam_arn(f"user{path}{name}"))
    yield Asked(target, shown, keys)


def _path(tx: Tx, kind: str, name: str) -> str:
    found: iam_users.User | iam_roles.Role | None
    if kind == "user":
        found = iam_users.find_user_of_any_case(tx, name)
    else:
        found = iam_roles.find_role_of_any_case(tx, name)
    return "/" if found is None else found.path


def passed_roles(rights: Rights, params: Params) -> Iterator[tuple[str, str]]:
    """The ARNs of the roles a call hands on, and the services they are handed to."""
    for passed in rights.passes:
        value: Any = params
        for part in passed.member.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value:
            yield value, passed.service

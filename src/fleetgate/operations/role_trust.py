"""Trust policies of roles: whom they name, and whom they let in.

A trust policy names users, roles and sessions by ARN; what is kept names them by their ids, which
are given once. So a user made anew under the name of one who was trusted is not trusted, and one
who is renamed stays it; whoever asks for the policy sees the ARN of today, or the id of who is
gone. Accounts, services and what belongs to other accounts are kept as they are written.

Source: IAM User Guide, "AWS JSON policy elements: Principal" (how IAM turns ARNs to unique ids).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from fleetgate.domain import document as json_document
from fleetgate.domain.policy import TRUST, Principal, characters, evaluate_trust, parse
from fleetgate.domain.policy_principals import InvalidPrincipal
from fleetgate.errors import LimitExceeded, MalformedPolicyDocument
from fleetgate.names import Account
from fleetgate.operations import iam_names
from fleetgate.operations.call import Call
from fleetgate.operations.caller import Caller
from fleetgate.store import iam_roles, iam_users
from fleetgate.store.engine import Tx

trust_document = lru_cache(maxsize=1024)(lambda text: parse(text, TRUST))
"""The parsed form of a trust policy as it is kept, by its text."""


_SESSION = re.compile(r"[\w+=,.@-]{1,64}")  # RoleSessionName of the STS model


def check(call: Call, text: str) -> None:
    """Raises MalformedPolicyDocument for a text that is no trust policy, or LimitExceeded."""
    limit = call.services.limits.iam_trust_policy_characters
    if characters(text) > limit:
        raise LimitExceeded(f"Cannot exceed quota for ACLSizePerRole: {limit}")
    parse(text, TRUST)


def bound(tx: Tx, account: Account, text: str) -> str:
    """A trust policy as it is kept. Raises MalformedPolicyDocument for somebody who is not there.

    Clients (Terraform) wait for a new user or role as long as they read AWS's words.
    """
    kept = _renamed(text, lambda name: _id_of(tx, account, name))
    trust_document(kept)
    return kept


def shown(tx: Tx, account: Account, text: str) -> str:
    """A trust policy that is kept, as it is answered."""
    if '"AIDA' not in text and '"AROA' not in text:
        return text
    return _renamed(text, lambda name: _arn_of(tx, account, name))


def lets_in(
    text: str,
    caller: Caller,
    account: Account,
    action: str,
    values: Mapping[str, tuple[str, ...]],
    *,
    in_person: bool = False,
) -> bool:
    """Whether a trust policy that is kept lets the caller in.

    `values` are the condition keys of the request, those of the caller come along. `in_person`
    asks for one that names the caller and not only the account, which leaves it to the caller's
    own policies (IAM User Guide, "Policy evaluation logic", resource-based policies).
    """
    names = [caller.user_id.partition(":")[0]]
    if not in_person:
        names += [account.id, account.iam_arn("root")]
    principal = Principal("AWS", caller.user_id, tuple(names))
    known = {**caller.values, **values}
    return evaluate_trust(trust_document(text), principal, action, known).allowed


def _renamed(text: str, name_of: Callable[[str], str]) -> str:
    """The policy with other names for its principals; the same text when none changes."""
    root = json_document.read(text, max_depth=16)
    statements = root["Statement"] if isinstance(root["Statement"], list) else [root["Statement"]]
    changed = False
    for statement in statements:
        principals: Any = statement.get("Principal")
        if not isinstance(principals, dict) or "AWS" not in principals:
            continue
        given = principals["AWS"]
        named = [name_of(name) for name in given] if isinstance(given, list) else name_of(given)
        changed = changed or named != given
        principals["AWS"] = named
    return json_document.minified(root) if changed else text


def _id_of(tx: Tx, account: Account, name: str) -> str:
    """What is kept for the name of a principal of kind AWS."""
    if name.startswith("A"):  # an id
        if _arn_of(tx, account, name) == name:
            raise _nobody(name)
        return name
    iam, sts = account.iam_arn(""), iam_names.session_arn(account, "")
    kind, _, path = name.removeprefix(iam).removeprefix(sts).partition("/")
    last = path.rpartition("/")[2]
    if name == account.iam_arn("root") or not name.startswith((iam, sts)):
        return name
    if name.startswith(sts) and kind == "assumed-role":
        role_name, _, session = path.partition("/")
        role = iam_roles.find_role(tx, role_name)
        if role is not None and _SESSION.fullmatch(session):
            return f"{role.role_id}:{session}"
    elif name.startswith(iam) and kind == "role":
        role = iam_roles.find_role(tx, last)
        if role is not None and iam_names.role_arn(account, role) == name:
            return role.role_id
    elif name.startswith(iam) and kind == "user":
        user = iam_users.find_user(tx, last)
        if user is not None and iam_names.user_arn(account, user) == name:
            return user.user_id
    raise _nobody(name)


def _arn_of(tx: Tx, account: Account, name: str) -> str:
    """The ARN of today for an id that is kept; the id when nobody has it any more."""
    unique, _, session = name.partition(":")
    if unique.startswith("AIDA"):
        user = iam_users.find_user_of_id(tx, unique)
        return name if user is None or session else iam_names.user_arn(account, user)
    if unique.startswith("AROA"):
        role = iam_roles.find_role_of_id(tx, unique)
        if role is not None and session:
            return iam_names.session_arn(account, f"assumed-role/{role.role_name}/{session}")
        return name if role is None else iam_names.role_arn(account, role)
    return name


def _nobody(name: str) -> MalformedPolicyDocument:
    return MalformedPolicyDocument(str(InvalidPrincipal("AWS", name)))

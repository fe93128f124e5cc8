"""Principals in policies: whom a statement of a trust or resource policy is about.

Source: IAM User Guide, "AWS JSON policy elements: Principal" and "NotPrincipal".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleetgate.domain.document import quoted

_KINDS: Final = {"AWS", "Service", "Federated", "CanonicalUser"}
_FORMS: Final = {
    # everybody, an account, an ARN, or the id of a user or role, which a session of it adds to
    "AWS": re.compile(
        r"\*|[0-9]{12}|arn:[a-z-]+:(iam|sts)::[0-9]{12}:[^*?]+|A[A-Z0-9]{15,}(:[\w+=,.@-]+)?"
    ),
    # services are many and come and go: it is the domain that tells one
    "Service": re.compile(
        r"[a-z0-9-]+(\.[a-z0-9-]+)*\.(amazonaws\.com(\.cn)?|amazon\.com|aws\.internal)"
    ),
}
_OTHER: Final = re.compile(r"[^*?\s]+")


class InvalidPrincipal(ValueError):
    """A name that is no principal's, told in IAM's words."""

    def __init__(self, kind: str, name: str) -> None:
        shown = "SERVICE" if kind == "Service" else kind
        super().__init__(f'Invalid principal in policy: "{shown}":"{name[:200]}"')


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks a resource or a role: the kind (``AWS``, ``Service``, ``Federated``) and name.

    `also` are further names a policy may call it by. That of a user is its id, that of a session
    of a role ``AROA...:session``; the role's id and, where they stand for everybody in them, the
    account and the ARN of its root are others. ``*`` is anybody of the kind AWS.
    """

    kind: str
    name: str
    also: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """All names a policy may call it by."""
        return {self.name, *self.also, *(("*",) if self.kind == "AWS" else ())}


@dataclass(frozen=True, slots=True)
class Principals:
    """Whom a statement is about: names by kind, ``{"Service": {"iot.amazonaws.com"}}``."""

    named: Mapping[str, frozenset[str]]
    negated: bool

    def include(self, principal: Principal) -> bool:
        """Is the statement about `principal`?"""
        listed = self.named.get(principal.kind, frozenset())
        return listed.isdisjoint(principal.names) is self.negated


def parse_principals(value: Any, *, negated: bool) -> Principals:
    """The value of Principal, or of NotPrincipal when `negated`.

    Raises InvalidPrincipal for a name that is none, else ValueError with a rule to show.
    """
    listed = {"AWS": "*"} if value == "*" else value
    if not isinstance(listed, dict) or not listed:
        raise ValueError("it must be `*` or a JSON object")
    named = {}
    for kind, given in listed.items():
        names = [given] if isinstance(given, str) else given
        if kind not in _KINDS or not isinstance(names, list) or not names:
            raise ValueError(f"{quoted(kind)} names no principals")
        form = _FORMS.get(kind, _OTHER)
        for name in names:
            if not isinstance(name, str) or not form.fullmatch(name):
                raise InvalidPrincipal(kind, str(name))
        named[kind] = frozenset(names)
    return Principals(named, negated)

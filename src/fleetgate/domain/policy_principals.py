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
_AWS: Final = re.compile(r"\*|[0-9]{12}|arn:[a-z-]+:(iam|sts)::[0-9]{12}:[^*?]+|A[A-Z0-9]{15,}")
_OTHER: Final = re.compile(r"[^*?\s]+")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks a resource or a role: the kind (``AWS``, ``Service``, ``Federated``) and name.

    The name of a kind AWS is an ARN; `also` are further ARNs it goes by, such as that of the role
    behind an assumed-role session.
    """

    kind: str
    name: str
    also: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """All names a policy may call it by.

        An account stands for everybody in it, by number or by the ARN of its root; ``*`` is
        anybody of the kind AWS.
        """
        names = {self.name, *self.also}
        if self.kind == "AWS":
            names.add("*")
            for arn in (self.name, *self.also):
                parts = arn.split(":", 5)
                if len(parts) == 6:
                    names |= {parts[4], f"{parts[0]}:{parts[1]}:iam::{parts[4]}:root"}
        return names


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

    Raises ValueError with a rule to show. A name that is none is told in IAM's words.
    """
    listed = {"AWS": "*"} if value == "*" else value
    if not isinstance(listed, dict) or not listed:
        raise ValueError("it must be `*` or a JSON object")
    named = {}
    for kind, given in listed.items():
        names = [given] if isinstance(given, str) else given
        if kind not in _KINDS or not isinstance(names, list) or not names:
            raise ValueError(f"{quoted(kind)} names no principals")
        form = _AWS if kind == "AWS" else _OTHER
        for name in names:
            if not isinstance(name, str) or not form.fullmatch(name):
                raise ValueError(f'Invalid principal in policy: "{kind}":"{quoted(name)[1:-1]}"')
        named[kind] = frozenset(names)
    return Principals(named, negated)

"""Who makes a call over HTTP, and what their IAM policies say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleetgate.domain.policy import Policies


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal behind a signature.

    `arn` and `user_id` are what GetCallerIdentity answers: ``arn:aws:iam::A:root``,
    ``arn:aws:iam::A:user/N`` or ``arn:aws:sts::A:assumed-role/R/S``. `policies` are the identity
    policies, compiled for this caller; None is the root user, who may do everything. `session`
    are the policies of the session, when it was given some: what they do not allow is denied,
    whatever the others say. `values` are the condition keys the principal brings along
    (``aws:username``, ``aws:PrincipalArn``, ...); the policies are compiled with them.
    `principal_arn` is the IAM ARN of the user or role, ``aws:PrincipalArn``. `session_kind` is the
    principal's kind when it came with a session token: ``user`` after GetSessionToken, ``role``
    after AssumeRole, else empty. `characters` are those of the documents of the policies.
    """

    account_id: str
    arn: str
    user_id: str
    access_key_id: str
    policies: Policies | None = None
    session: Policies | None = None
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    principal_arn: str = ""
    session_kind: str = ""
    characters: int = 0

    @property
    def is_root(self) -> bool:
        """The root user of the account: no policy applies."""
        return self.policies is None

    @property
    def held(self) -> tuple[Policies, ...]:
        """All its policies, those of the session too."""
        return tuple(each for each in (self.policies, self.session) if each is not None)

    @property
    def asks_for_values(self) -> bool:
        """Whether some policy has a condition or a variable at all."""
        return any(each.mentions("") for each in self.held)

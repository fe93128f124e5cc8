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
    (``aws:username``, ``aws:PrincipalArn``, ...).
    """

    account_id: str
    arn: str
    user_id: str
    access_key_id: str
    policies: Policies | None = None
    session: Policies | None = None
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_root(self) -> bool:
        """The root user of the account: no policy applies."""
        return self.policies is None

"""Deleting what has ended: certificates nobody registered, answers kept, temporary claims."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.names import Account
from fleetgate.operations.certificates import certificate_arn
from fleetgate.store import certificates, policies, registration_answers, things
from fleetgate.store.engine import Tx

SWEEP_BATCH = 500
"""Certificates, and answers kept for devices that ask again, one sweep deletes in a transaction."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep deleted: ids of certificates; `more`: there is more to be deleted at once."""

    certificates: list[str]
    more: bool


def sweep(tx: Tx, account: Account, now: float) -> Swept:
    """Deletes what has ended: certificates whose token did so unused, answers, claims.

    What an operator attached to such a certificate goes with it: nobody could detach it later.
    """
    certificates.remove_ended_provisioning_claims(tx, now)
    answers = registration_answers.remove_ended_registration_answers(tx, now, SWEEP_BATCH)
    removed = certificates.remove_pending_certificates(tx, now, SWEEP_BATCH)
    for certificate_id in removed:
        arn = certificate_arn(account, certificate_id)
        policies.remove_policy_attachments(tx, arn)
        things.remove_principal_attachments(tx, arn)
    return Swept(removed, more=max(answers, len(removed)) >= SWEEP_BATCH)

"""What RegisterThing answered, kept for the device that lost it.

The answer is kept with the token's certificate, in the transaction of everything it tells of, and
deleted when the token ends (operations/sweep.py). A device that asks again hears it word for word,
as long as it is true.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from fleetgate.domain.resources import Resources
from fleetgate.errors import (
    AccessDeniedException,
    InvalidCertificateOwnershipTokenException,
    InvalidParametersException,
)
from fleetgate.operations.call import Call
from fleetgate.operations.certificates import certificate_arn
from fleetgate.store import registration_answers, things
from fleetgate.store.certificates import Certificate
from fleetgate.store.engine import Tx
from fleetgate.store.registration_answers import RegistrationAnswer
from fleetgate.store.templates import InForce

Rendered = Callable[[Mapping[str, str]], Resources]
"""What the template in force makes of a request under the overrides of its hook; raises
InvalidParametersException."""


def keep(
    tx: Tx,
    certificate_id: str,
    template_name: str,
    found: InForce,
    parameters: Mapping[str, str],
    overrides: Mapping[str, str],
    resources: Resources,
    status: str,
    answer: Mapping[str, Any],
    until: float,
) -> None:
    """Keeps an answer until a moment; `status` is that of the certificate it was given for."""
    kept = RegistrationAnswer(
        *(certificate_id, template_name, found.created_at),
        *(_digest(parameters), _digest(resources), status),
        *(msgspec.json.encode(answer).decode(), until, msgspec.json.encode(overrides).decode()),
    )
    registration_answers.add_registration_answer(tx, kept)


def find(
    tx: Tx,
    call: Call,
    template_name: str,
    found: InForce,
    certificate: Certificate,
    parameters: Mapping[str, str],
    rendered: Rendered,
) -> dict[str, Any]:
    """The answer the token's registration had, if this request is the same and it is still true.

    Nothing is changed. Raises InvalidCertificateOwnershipTokenException for another template or
    parameters that ask for something else, and AccessDeniedException when an operator has taken
    back what was registered: a device does not overrule that.
    """
    certificate_id, thing_name = certificate.certificate_id, certificate.thing_name
    kept = registration_answers.find_registration_answer(tx, certificate_id)
    # a template that was deleted and made again under its name is another one
    if kept is None or (kept.template_name, kept.template_created_at) != (
        template_name,
        found.created_at,
    ):
        raise _used(certificate)
    if kept.parameters != _digest(parameters):
        # what makes no difference, a time of day, may differ
        try:
            outcome = _digest(rendered(msgspec.json.decode(kept.overrides)))
        except InvalidParametersException:
            outcome = ""
        if outcome != kept.outcome:
            raise _used(certificate, "with other parameters")
    if certificate.status not in ("ACTIVE", kept.status):
        raise not_to_be_used(certificate)
    if thing_name is not None:
        arn = certificate_arn(call.account, certificate_id)
        if not things.find_attachment(tx, thing_name, arn):
            raise AccessDeniedException(
                f"certificate {certificate_id} has been registered for thing `{thing_name}` and "
                "was detached from it afterwards"
            )
    answer: dict[str, Any] = msgspec.json.decode(kept.body)
    return answer


def not_to_be_used(certificate: Certificate) -> AccessDeniedException:
    """What a device hears of a certificate an operator has decided on since."""
    return AccessDeniedException(
        f"certificate {certificate.certificate_id} is {certificate.status}"
    )


def _used(certificate: Certificate, how: str = "") -> InvalidCertificateOwnershipTokenException:
    return InvalidCertificateOwnershipTokenException(
        f"the token has been used already{how and f' {how}'}: it registered "
        f"thing `{certificate.thing_name}` by template `{certificate.template_name}`"
    )


def _digest(value: object) -> str:
    """A short text that is the same for equal values alone."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()

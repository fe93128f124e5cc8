"""Certificates that the account's certificate provider signs, for devices that send a CSR.

Theory of operation. The signing request has been checked as for the server's own authority, so
that what is weak or forged never reaches the provider. Its function is asked outside of any
transaction, with Services.hook_seconds for everything. What it answers is checked
(`pki.provider_certificate`), and stored as PENDING_ACTIVATION, its own content included: neither
the certificate nor the same one with another signature may be registered already. From there on it
is a certificate like any other: it is swept when its token ends unused, and admitted by its id,
whoever signed it. A device whose rights were taken back meanwhile gets none.

Whatever fails, nothing is stored; the log says what did, the device hears `NOT_ISSUED` and may
try again: none of it is the fault of its request.

Source: AWS IoT Developer Guide, "Self-managed certificate signing using AWS IoT Core certificate
provider".
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

from fleetgate.domain.document import printable
from fleetgate.errors import (
    AccessDeniedException,
    CertificateValidationException,
    InternalErrorException,
    ServiceError,
)
from fleetgate.functions.target import Failure, FunctionError
from fleetgate.operations import admission, invocation
from fleetgate.operations.call import Call
from fleetgate.operations.certificate_providers import provider_arn
from fleetgate.operations.invocation import Invoked
from fleetgate.pki import provider_certificate, registration
from fleetgate.pki.csr import SigningRequest
from fleetgate.pki.registration import ForeignCertificate
from fleetgate.pki.trust import CertificateFacts
from fleetgate.store import ca_certificates, certificates
from fleetgate.store.certificate_providers import CertificateProvider
from fleetgate.store.certificates import Certificate
from fleetgate.store.engine import Tx

log = logging.getLogger("fleetgate.certificate_providers")

NOT_ISSUED: Final[type[ServiceError]] = InternalErrorException
"""What a device hears when its provider has not issued a certificate, for whatever reason. AWS
does not document its answer. The request was right, and asking again may help: a 5xx."""

MESSAGE: Final = "the certificate provider has not issued a certificate"

REFUSED: Final = "refused-certificate"
"""The kind of a failure when there was an answer, whose certificate cannot be used; the other kinds
but NOT_ALLOWED are those of functions (`Failure`)."""

NOT_ALLOWED: Final = "not-allowed"
"""The kind of a failure when the device may not ask any more."""

MAX_REASON: Final = 2000
"""Characters of a reason in the log."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate a provider issued; `pem` is what it answered, word for word, for the device."""

    facts: CertificateFacts
    pem: str
    content: str
    ca_certificate_id: str | None
    provider: CertificateProvider
    invoked: Invoked


async def sign(
    call: Call, provider: CertificateProvider, request: SigningRequest, text: str
) -> Signed:
    """Has the provider sign a request, whose PEM is `text`; nothing is stored yet.

    Raises NOT_ISSUED; its notes say why.
    """
    began = monotonic()
    try:
        invoked = await invocation.invoke_for_iot(
            call,
            provider.function_arn,
            provider_arn(call.account, provider.name),
            payload(call, text),
            seconds=call.services.hook_seconds,
        )
    except FunctionError as error:
        raise _failed(call, provider, error.target, began, error.kind, error.message) from None
    try:
        return await checked(call, provider, request, invoked)
    except FunctionError as error:
        raise _failed(call, provider, invoked.target, began, error.kind, error.message) from None
    except CertificateValidationException as error:
        raise _failed(call, provider, invoked.target, began, REFUSED, error.message) from None


def payload(call: Call, text: str) -> dict[str, Any]:
    """The input of a provider for a request, whose PEM is `text`."""
    return {
        "certificateSigningRequest": text,
        "principalId": call.identity.certificate_id if call.identity is not None else "",
        "clientId": call.client_id,
    }


async def checked(
    call: Call, provider: CertificateProvider, request: SigningRequest, invoked: Invoked
) -> Signed:
    """The certificate a provider answered.

    Raises FunctionError(MALFORMED) when there is none, CertificateValidationException for one that
    cannot be used.
    """
    pem = _pem(invoked)
    now = datetime.fromtimestamp(call.services.now(), UTC)
    leaf = provider_certificate.read(pem, request, now).leaf
    ca_certificate_id = await _registered_authority(call, leaf)
    return Signed(leaf.facts, pem, leaf.content, ca_certificate_id, provider, invoked)


async def register(call: Call, signed: Signed, certificate: Certificate) -> None:
    """Stores a certificate that a provider signed, as `certificate` has it.

    Raises NOT_ISSUED when it is registered already, or is a temporary provisioning claim, and
    AccessDeniedException for a device that may not ask for it any more.
    """

    def change(tx: Tx) -> None:
        admission.require_standing(tx, call)
        add(tx, signed, certificate)

    target, began = signed.invoked.target, monotonic() - signed.invoked.seconds
    try:
        await call.read(admission.require_still, call)
        await call.write(change)
    except CertificateValidationException as error:
        raise _failed(call, signed.provider, target, began, REFUSED, error.message) from None
    except AccessDeniedException as error:
        # the authority has signed it all the same: that one has to be found
        reason = f"{error.message}; signed was {certificate.certificate_id}"
        _failed(call, signed.provider, target, began, NOT_ALLOWED, reason)
        raise
    log.info(
        "event=provider-signed provider=%s function=%s target=%r seconds=%.3f certificate=%s "
        "ca=%s not_after=%s client=%r request=%s",
        *(signed.provider.name, signed.provider.function_arn, signed.invoked.target),
        *(signed.invoked.seconds, certificate.certificate_id, signed.ca_certificate_id),
        f"{signed.facts.not_after:%Y-%m-%dT%H:%M:%SZ}",
        *(call.client_id, call.request_id),
    )


def _pem(invoked: Invoked) -> str:
    """``certificatePem`` of the answer; raises FunctionError(MALFORMED)."""
    found: Any = invoked.value.get("certificatePem")
    if isinstance(found, str):
        return found
    rule = (
        f"`certificatePem` must be a string, not {type(found).__name__}"
        if "certificatePem" in invoked.value
        else f"it has no `certificatePem` among its {len(invoked.value)} members"
    )
    raise FunctionError(Failure.MALFORMED, f"the answer of {invoked.target} cannot be used: {rule}")


async def _registered_authority(call: Call, leaf: ForeignCertificate) -> str | None:
    """The id of the registered CA certificate whose key signed it, None without one."""
    found = await call.read(ca_certificates.list_ca_certificates_of_subject, leaf.issuer)
    for each in found:
        try:
            registration.check_signed(leaf, registration.read(each.pem))
        except CertificateValidationException:
            continue
        return each.certificate_id
    return None


def add(tx: Tx, signed: Signed, certificate: Certificate) -> None:
    """Stores it; raises CertificateValidationException when it is registered already."""
    certificate = replace(
        certificate, content=signed.content, ca_certificate_id=signed.ca_certificate_id
    )
    certificate_id = certificate.certificate_id
    if certificates.find_provisioning_claim(tx, certificate_id) is not None:
        raise CertificateValidationException(
            f"the certificate cannot be used: {certificate_id} is a temporary provisioning claim"
        )
    if not certificates.add_certificate(tx, certificate):
        found = certificates.find_registered(tx, certificate_id, certificate.content or "")
        again = "" if found == certificate_id else f" with another signature, as {found}"
        raise CertificateValidationException(
            f"the certificate cannot be used: {certificate_id} is registered already{again}"
        )


def _failed(
    call: Call, provider: CertificateProvider, target: str, began: float, kind: str, reason: str
) -> ServiceError:
    """Logs why there is no certificate, asked for at `began`; what the device is to hear."""
    reason = printable(reason, MAX_REASON)
    log.warning(
        "event=provider-failed provider=%s function=%s target=%r kind=%s seconds=%.3f reason=%r "
        "client=%r request=%s",
        *(provider.name, provider.function_arn, target or "none", kind, monotonic() - began),
        *(reason, call.client_id, call.request_id),
    )
    error = NOT_ISSUED(MESSAGE)
    error.add_note(f"{kind}: {reason}")
    return error

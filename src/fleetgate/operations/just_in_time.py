"""Certificates that register themselves: what becomes of a client whose certificate is not known.

When the issuer of an unknown certificate is a registered CA that is ACTIVE, has auto registration
on (ENABLE) and is inside its validity, and its key verifies the signature, then the certificate is
registered as PENDING_ACTIVATION and the connection ends. That is just-in-time registration: whoever
listens to the event ``$aws/events/certificates/registered/{caCertificateId}`` activates the
certificate, and the next connect succeeds. A CA with a registration configuration does that by
itself, by the template it names: just-in-time provisioning, see `just_in_time_provisioning`.

A client that cannot be registered hears what it would have heard without all this; the log tells
the step that failed, and why.

Anybody may present a certificate that names a registered CA as its issuer, and make the server
verify its signature. So the cheapest questions come first, a signature is verified only when all
others are answered, and both the signatures of a second and the registrations at a time have a
bound. Certificates that are known pay nothing.

Sources: AWS IoT Developer Guide, "Register a client certificate when the client connects to AWS IoT
just-in-time registration (JITR)", "Just-in-time provisioning", "Transport security in AWS IoT Core"
(who has to send a server name) and "Deactivate a CA certificate".
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

from fleetgate.errors import (
    CertificateStateException,
    CertificateValidationException,
    Error,
    ResourceAlreadyExistsException,
)
from fleetgate.names import certificate_id
from fleetgate.operations import admission, certificate_registration
from fleetgate.operations.admission import NotActivated, NotRegistered
from fleetgate.operations.call import Call, Services
from fleetgate.operations.certificate_registration import Registration
from fleetgate.operations.identity import Identity, Peer
from fleetgate.operations.just_in_time_provisioning import Provisioning
from fleetgate.pki import registration
from fleetgate.pki.registration import ForeignCertificate
from fleetgate.store import ca_certificates, certificates
from fleetgate.store.ca_certificates import CaCertificate
from fleetgate.store.certificates import Certificate
from fleetgate.store.engine import Tx

log = logging.getLogger("fleetgate.just_in_time")

SIGNATURES: Final = 500
"""Signatures of unknown certificates that are verified in a second: 0.06 s of work for keys on
P-256, 0.34 s for the slowest ones."""

AT_ONCE: Final = 64
"""Registrations that are under way at a time."""

EVENT: Final = "$aws/events/certificates/registered/"
"""What the topic of the event begins with; the id of the CA certificate follows."""

_PENDING: Final = "PENDING_ACTIVATION"

# CA certificates are read again and again, and never change.
_authority = lru_cache(maxsize=256)(registration.read)


class _Refused(Error):
    """The certificate is not registered; `step` is what failed."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step = step


class Allowance:
    """So many of something in a second, a second's worth of which may be saved up."""

    __slots__ = ("_at", "_left", "per_second")

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._left = float(per_second)
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Takes one, if one is left at `now` (seconds)."""
        gained = max(0.0, now - self._at) * self.per_second
        self._at = now
        self._left = min(float(self.per_second), self._left + gained)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class JustInTime:
    """Admission, with registration of those who come for the first time.

    `provisioning` carries out the templates. One for each server. `signatures` bounds those of
    unknown certificates that are verified in a second, `at_once` the registrations under way.
    """

    __slots__ = ("_at_once", "_services", "_signatures", "_under_way", "provisioning")

    def __init__(
        self, services: Services, *, signatures: int = SIGNATURES, at_once: int = AT_ONCE
    ) -> None:
        self._services = services
        self._signatures = Allowance(signatures)
        self._at_once = at_once
        self._under_way = 0
        self.provisioning = Provisioning(services)

    async def admit(self, peer: Peer) -> Identity:
        """The identity behind a client that connects.

        Raises NotAdmitted as `admission.admit` does, and when its certificate has been registered
        just now.
        """
        try:
            return await admission.admit(self._services, peer)
        except NotRegistered:
            if not await self._register(peer):
                raise
            raise NotActivated(
                f"certificate {certificate_id(peer.certificate)} has been registered just now "
                f"and is {_PENDING}"
            ) from None
        except NotActivated:
            await self._arrived_again(certificate_id(peer.certificate))
            raise

    # --- the first time --------------------------------------------------------------------------

    async def _register(self, peer: Peer) -> bool:
        """Registers the certificate of the peer, if that is to be; is it registered now?"""
        self._under_way += 1
        try:
            await self._try(peer)
        except _Refused as refused:
            log.info(
                "event=not-registered certificate=%s peer=%s step=%s cause=%r",
                *(certificate_id(peer.certificate), peer.address, refused.step, refused.message),
            )
            return False
        finally:
            self._under_way -= 1
        return True

    async def _try(self, peer: Peer) -> None:
        """Raises _Refused, in the order of the costs."""
        if self._under_way > self._at_once:
            raise _Refused(
                "load",
                f"{self._at_once} certificates are being registered; the client may try again",
            )
        services = self._services
        call = Call(services, services.new_id(), services.now(), source_ip=peer.address)
        try:
            leaf = registration.read(peer.certificate)
        except CertificateValidationException as error:
            raise _Refused("certificate", error.message) from None
        found = await call.read(ca_certificates.list_ca_certificates_of_subject, leaf.issuer)
        if not found:
            raise _Refused(
                "issuer",
                "no registered CA certificate has the subject "
                f"`{leaf.certificate.issuer.rfc4514_string()[:200]}`",
            )
        if reason := _out_of_validity(call, leaf):
            raise _Refused("validity", f"it {reason}")
        signer = self._signer(call, peer, leaf, found)
        try:
            certificate = await call.write(_add, call, leaf, signer.certificate_id)
        except ResourceAlreadyExistsException as error:
            there = error.members["resourceId"]
            if there != leaf.facts.certificate_id:
                # or a device whose certificate was revoked would come back with another id
                raise _Refused(
                    "certificate", f"certificate {there} is the same with another signature"
                ) from None
            await self._arrived_again(there)  # another connection of the device was faster
            return
        except CertificateStateException as error:  # the CA was changed meanwhile
            raise _Refused("issuer", error.message) from None
        except CertificateValidationException as error:
            raise _Refused("certificate", error.message) from None
        log.info(
            "event=registered certificate=%s ca=%s mode=%s peer=%s subject=%r template=%s",
            *(certificate.certificate_id, signer.certificate_id, certificate.mode, peer.address),
            leaf.certificate.subject.rfc4514_string()[:200],
            signer.template_name or ("inline" if signer.template_body else "none"),
        )
        self._publish(certificate)
        if certificate.provisioning_state is not None:
            self.provisioning.add(certificate.certificate_id)

    def _signer(
        self, call: Call, peer: Peer, leaf: ForeignCertificate, found: list[CaCertificate]
    ) -> CaCertificate:
        """The CA certificate, of those with the name of the issuer, under which it is registered.

        Its key verifies the signature. Of several with one key it is one that the client has sent,
        or else the oldest.
        """
        sent = frozenset(certificate_id(der) for der in peer.chain)
        found = sorted(found, key=lambda each: each.certificate_id not in sent)
        reasons: list[tuple[str, str]] = []
        for each in found:
            step, reason = "issuer", _unusable(call, each)
            if reason is None:
                step, reason = "server-name", _unnamed(peer, each, each.certificate_id in sent)
            if reason is None:
                if not self._signatures.take(call.now):
                    raise _Refused(
                        "load",
                        f"{self._signatures.per_second} signatures of unknown certificates have "
                        "been verified in the last second; the client may try again",
                    )
                try:
                    registration.check_signed(leaf, _authority(each.pem))
                except CertificateValidationException as error:
                    step, reason = "signature", error.message
                else:
                    return each
            reasons.append((step, f"CA certificate {each.certificate_id}: {reason}"))
        raise _Refused(reasons[-1][0], "; ".join(reason for _, reason in reasons))

    # --- again -----------------------------------------------------------------------------------

    async def _arrived_again(self, name: str) -> None:
        """A client came with a certificate that is PENDING_ACTIVATION."""
        found = await self._services.store.read(certificates.find_certificate, name)
        if found is None or found.status != _PENDING or found.ca_certificate_id is None:
            return
        self._publish(found)
        if found.provisioning_state == certificates.WAITING:
            self.provisioning.add(name)
            cause = "its template is being carried out"
        elif found.provisioning_state == certificates.FAILED:
            cause = (
                f"just-in-time provisioning failed: {found.provisioning_failure}. "
                "DeleteCertificate lets the device try again, UpdateCertificate activates it as "
                "it is"
            )
        else:
            cause = "nobody has activated it (UpdateCertificate)"
        log.info(
            "event=not-activated certificate=%s ca=%s cause=%r",
            *(name, found.ca_certificate_id, cause),
        )

    def _publish(self, found: Certificate) -> None:
        """The event of a certificate that is to be activated.

        Source: AWS IoT Developer Guide, "Configure the first connection by a client for automatic
        registration": one of the two times is a number, the other one a string.
        """
        payload = {
            "certificateId": found.certificate_id,
            "caCertificateId": found.ca_certificate_id,
            "timestamp": int(self._services.now() * 1000),
            "certificateStatus": found.status,
            "awsAccountId": self._services.account.id,
            "certificateRegistrationTimestamp": str(int(found.created_at * 1000)),
        }
        self._services.publish(f"{EVENT}{found.ca_certificate_id}", msgspec.json.encode(payload))


def _add(tx: Tx, call: Call, leaf: ForeignCertificate, ca_certificate_id: str) -> Certificate:
    """Registers a verified certificate, unless its CA has changed since it was looked up.

    Raises CertificateStateException, ResourceAlreadyExistsException.
    """
    found = ca_certificates.find_ca_certificate(tx, ca_certificate_id)
    reason = "it has been deleted" if found is None else _unusable(call, found)
    if found is None or reason is not None:
        raise CertificateStateException(f"CA certificate {ca_certificate_id}: {reason}")
    state = None if found.registration_config is None else certificates.WAITING
    prepared = Registration(leaf.facts, leaf.content, found.mode, ca_certificate_id)
    return certificate_registration.add(tx, call, prepared, _PENDING, state)


def _unusable(call: Call, found: CaCertificate) -> str | None:
    """Why nothing is registered under a CA certificate, None when it may be."""
    if found.status != "ACTIVE":
        return f"it is {found.status}, not ACTIVE"
    if found.auto_registration != "ENABLE":
        return f"its auto registration is {found.auto_registration}, not ENABLE"
    if call.now < found.not_before:
        return f"it is not valid before {_text(found.not_before)}"
    if call.now >= found.not_after:
        return f"it expired at {_text(found.not_after)}"
    return None


def _unnamed(peer: Peer, found: CaCertificate, sent: bool) -> str | None:
    """What is missing of a client that does not say which server it wants; None: nothing."""
    if peer.server_name:
        return None
    if found.mode == "SNI_ONLY":
        return "it is SNI_ONLY, and the client has sent no server name (TLS SNI)"
    if not sent:
        return "the client has sent neither a server name (TLS SNI) nor this CA certificate"
    return None


def _out_of_validity(call: Call, leaf: ForeignCertificate) -> str | None:
    start, end = leaf.facts.not_before.timestamp(), leaf.facts.not_after.timestamp()
    if call.now < start:
        return f"is not valid before {_text(start)}"
    return f"expired at {_text(end)}" if call.now >= end else None


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

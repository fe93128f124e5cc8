"""The keys of certificates that an older release stored: looked at after the start, in batches.

Devices are served meanwhile. What needs the keys of all certificates
(operations/key_reuse_audit.py) asks the store whether any is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from fleetgate.errors import CertificateValidationException, ServiceUnavailableException
from fleetgate.operations.call import Services
from fleetgate.pki import keys, trust
from fleetgate.store import certificates, public_keys
from fleetgate.store.engine import Tx

log = logging.getLogger("fleetgate.functions")

BATCH = 200
"""Certificates of one transaction."""

UNREADABLE = ""
"""What a certificate has as its key when that cannot be read."""

_AGAIN = 30.0


def key_of(certificate_id: str, pem: str) -> str:
    """What tells the key of a certificate apart, UNREADABLE when it cannot be read."""
    try:
        return keys.key_id(trust.inspect(pem).public_key)
    except CertificateValidationException as error:
        log.warning("event=key-unreadable certificate=%s cause=%r", certificate_id, error.message)
        return UNREADABLE


def remember(tx: Tx, certificate: certificates.Certificate, now: float) -> None:
    """Keeps the key of a certificate that is going to be deleted, unless nobody ever had it."""
    if certificate.status == "PENDING_ACTIVATION" and certificate.pending_until is not None:
        return
    key = certificate.public_key
    if key is None:
        key = key_of(certificate.certificate_id, certificate.pem)
    if key != UNREADABLE:
        public_keys.add_deleted_key(
            tx, key, certificate.certificate_id, certificate.thing_name, now
        )


async def look(services: Services) -> int:
    """Looks at all certificates whose key is not known; returns how many there were."""
    seen = 0
    while found := await services.store.read(public_keys.list_unknown, BATCH):
        looked = await asyncio.to_thread(_looked_at, found)
        await services.store.write(_note, looked)
        seen += len(found)
    if seen:
        log.info("event=keys-looked-at certificates=%d", seen)
    return seen


async def look_until_done(services: Services) -> None:
    """The same, again later when the store does not answer."""
    while True:
        try:
            await look(services)
        except ServiceUnavailableException as error:
            log.error("event=keys-not-looked-at cause=%r", error.message)
            await asyncio.sleep(_AGAIN)
        else:
            return


def _looked_at(found: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(certificate_id, key_of(certificate_id, pem)) for certificate_id, pem in found]


def _note(tx: Tx, looked: Sequence[tuple[str, str]]) -> None:
    for certificate_id, key in looked:
        public_keys.update_public_key(tx, certificate_id, key)

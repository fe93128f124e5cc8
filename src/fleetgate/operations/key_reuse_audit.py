"""``key-reuse-audit``: no two devices with one key.

Theory of operation. Every certificate is stored with what tells its public key apart
(`pki.keys.key_id`), whichever way it came in; what an older release stored is looked at after the
start (operations/public_keys.py), and until that is done this function lets nobody in. A key that
another certificate has is a key that two devices have, or that one device has used twice. What
tells these apart is the thing: with ``same_thing = "allow"`` a device that keeps its key and
provisions again for its own thing is no reuse.

What counts as another certificate: every one that is registered, in any state, temporary claims
while they are known, and those that were deleted. What does not: a certificate that was given out
for a signing request and has not been registered yet. A device that lost the answer asks for a
further one with the same key, and only one of them is going to be used.

The decision is made inside the registration's transaction (`settle`), of which the databases run
two with one key one after the other: the second one sees what the first one did.

Sources: AWS IoT developer guide, "Device provisioning" ("We recommend that you use unique private
keys and certificates for each device"), Device Defender's audit check "Device certificate shared".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetgate.domain.resources import Resources
from fleetgate.errors import AccessDeniedException, CertificateValidationException
from fleetgate.functions.options import Options
from fleetgate.operations.built_in import Answer
from fleetgate.operations.call import Call
from fleetgate.operations.certificates import certificate_arn
from fleetgate.pki import keys, trust
from fleetgate.store import certificates, public_keys
from fleetgate.store.engine import Tx
from fleetgate.store.public_keys import Holder

log = logging.getLogger("fleetgate.functions")

SHOWN = 10
"""Certificates with the key that are told of."""

MAX_DEACTIVATED = 1000
"""Certificates that one registration makes INACTIVE at most; the next one goes on."""


@dataclass(slots=True)
class KeyReuseAudit:
    """What is done about a key that another certificate has.

    `refuses` says whether the registration is refused or only told of; `deactivates` whether the
    older certificates become INACTIVE when it is not refused; `same_thing` whether a certificate
    of the same thing may have the key; `counts_deleted` whether deleted certificates count.
    """

    name: str
    refuses: bool = True
    deactivates: bool = False
    same_thing: bool = True
    counts_deleted: bool = True
    _complete: bool = field(default=False, init=False, repr=False)

    @classmethod
    def from_options(
        cls,
        name: str,
        options: Mapping[str, object],
        directory: Path,
    ) -> KeyReuseAudit:
        """Raises ValueError, naming option, rule and value."""
        given = Options(options, directory)
        refuses = _choice(given, "action", "refuse", "flag") == "refuse"
        deactivates = given.flag("deactivate")
        same_thing = _choice(given, "same_thing", "allow", "refuse") == "allow"
        counts_deleted = _choice(given, "deleted", "count", "ignore") == "count"
        given.finished()
        if refuses and deactivates and not same_thing:
            raise ValueError(
                "`deactivate`: nothing is done when a registration is refused, and with `action` "
                'and `same_thing` "refuse" every one is; false is expected, not true'
            )
        return cls(name, refuses, deactivates, same_thing, counts_deleted)

    @property
    def description(self) -> str:
        """``builtin:key-reuse-audit refuse``."""
        return f"builtin:key-reuse-audit {'refuse' if self.refuses else 'flag'}"

    async def answer(self, call: Call, event: Mapping[str, Any]) -> Answer:
        """Says no when it is no for every thing; else `settle` decides."""
        certificate_id = str(event.get("certificateId") or "")
        pem = str(event.get("certificatePem") or "")
        if not await self._ready(call):
            return _no(
                "the keys of certificates that an older release stored are still being looked at"
            )
        try:
            key = keys.key_id(trust.inspect(pem).public_key)
        except CertificateValidationException as error:
            return _no(f"`certificatePem` cannot be read: {error.message}")
        found = await call.read(self.holders, call, key, certificate_id, "")
        if not found:
            reason = "no other certificate has the key"
        else:
            reason = f"the key is that of {_listed(found)}"
            things = {thing for holder in found for thing in holder.things}
            one_thing = len(things) == 1 and all(holder.things for holder in found)
            if self.refuses and not (self.same_thing and one_thing):
                return _no(reason)
            if self.refuses:
                reason += ": allowed for this thing alone"
        audited = _Audited(self)
        value = {"allowProvisioning": True}
        return Answer(value, audited.settle, reason, audited.announce)

    async def _ready(self, call: Call) -> bool:
        """Whether the keys of all certificates are known; once they are they stay so."""
        if not self._complete:
            self._complete = not await call.read(public_keys.list_unknown, 1)
        return self._complete

    def holders(
        self, tx: Tx, call: Call, key: str, certificate_id: str, thing_name: str
    ) -> Sequence[Holder]:
        """The other certificates with the key that are not those of the thing alone."""
        return public_keys.list_holders(
            tx,
            key,
            certificate_id,
            thing_name,
            certificate_arn(call.account, ""),
            SHOWN,
            deleted=self.counts_deleted,
        )


@dataclass(slots=True)
class _Audited:
    """The decision on one registration, as the transaction that was stored made it."""

    audit: KeyReuseAudit
    certificate_id: str = ""
    thing_name: str = ""
    key: str = ""
    found: Sequence[Holder] = ()
    strange: bool = False
    ended: Sequence[str] = ()

    def settle(
        self, tx: Tx, call: Call, certificate_id: str, resources: Resources
    ) -> Sequence[str]:
        """Refuses with AccessDeniedException, or returns the certificates it made INACTIVE."""
        audit = self.audit
        certificate = certificates.find_certificate(tx, certificate_id)
        if certificate is None or not certificate.public_key:
            raise AccessDeniedException(f"the key of certificate {certificate_id} is not known")
        self.certificate_id, self.key = certificate_id, certificate.public_key
        self.thing_name = "" if resources.thing is None else resources.thing.name
        self.ended, self.strange = (), False
        self.found = audit.holders(tx, call, self.key, certificate_id, "")
        if not self.found:
            return ()
        strangers = self.found
        if audit.same_thing and self.thing_name:
            strangers = audit.holders(tx, call, self.key, certificate_id, self.thing_name)
        if strangers:
            self.found, self.strange = strangers, True
            if audit.refuses:
                raise AccessDeniedException(f"the key is that of {_listed(strangers)}")
        if audit.deactivates:
            # the certificate the device is connected by may be the claim of a whole fleet
            claim = "" if call.identity is None else call.identity.certificate_id
            active = public_keys.list_active(tx, self.key, certificate_id, MAX_DEACTIVATED)
            self.ended = [each for each in active if each != claim]
            for each in self.ended:
                certificates.update_certificate_status(tx, each, "INACTIVE", call.now)
        return self.ended

    def announce(self, call: Call) -> None:
        """Tells of a key that was used before."""
        if not self.found:
            return
        log.log(
            logging.WARNING if self.strange else logging.INFO,
            "event=key-reused function=%s verdict=%s certificate=%s thing=%s others=%s "
            "deactivated=%s key=%s request=%s",
            *(self.audit.name, "flagged" if self.strange else "same-thing", self.certificate_id),
            *(self.thing_name or None, ",".join(map(_short, self.found))),
            *(",".join(self.ended) or None, self.key, call.request_id),
        )


def _choice(given: Options, name: str, first: str, other: str) -> str:
    rule = f"{first} or {other} is expected"
    return given.text(name, first, pattern=f"{first}|{other}", rule=rule)


def _no(reason: str) -> Answer:
    return Answer({"allowProvisioning": False}, reason=reason)


def _listed(found: Sequence[Holder]) -> str:
    told = [
        f"certificate {each.certificate_id} ({each.status}"
        + (f", thing {' and '.join(f'`{name}`' for name in each.things)})" if each.things else ")")
        for each in found
    ]
    return ", ".join(told) + (" and perhaps more" if len(found) >= SHOWN else "")


def _short(holder: Holder) -> str:
    return f"{holder.certificate_id}:{holder.status}:{'+'.join(holder.things) or '-'}"

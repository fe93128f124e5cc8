"""Temporary claims: certificates of five minutes that may provision by one template.

Source: AWS IoT developer guide, "Provisioning by trusted user".
"""

from __future__ import annotations

import logging
from typing import Any

from fleetgate.domain.template import Kind
from fleetgate.errors import InvalidRequestException
from fleetgate.operations.call import Call
from fleetgate.operations.certificates import issue_certificate, load_public_key
from fleetgate.operations.templates import require_template
from fleetgate.pki import keys
from fleetgate.store import certificates
from fleetgate.store.engine import Tx

log = logging.getLogger("fleetgate.provisioning")


async def create_provisioning_claim(call: Call, template_name: str) -> dict[str, Any]:
    """CreateProvisioningClaim: a temporary certificate that may provision by one template."""
    services = call.services
    await call.read(_require_fleet_template, template_name)
    pair = await services.rsa_keys.take()
    public_key = load_public_key(pair.public_der)
    facts = issue_certificate(call, services.claim_profile, public_key)
    # kept to the second the certificate itself says, so that answer, registry and X.509 agree
    not_after = facts.not_after.timestamp()

    def change(tx: Tx) -> None:
        _require_fleet_template(tx, template_name)
        certificates.add_provisioning_claim(
            tx,
            facts.certificate_id,
            template_name,
            facts.not_before.timestamp(),
            not_after,
            keys.key_id(public_key),
        )

    await call.write(change)
    log.info(
        "event=claim-created template=%s certificate=%s caller=%s expires=%s request=%s",
        *(template_name, facts.certificate_id, call.caller and call.caller.arn),
        *(facts.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"), call.request_id),
    )
    return {
        "certificateId": facts.certificate_id,
        "certificatePem": facts.pem,
        "keyPair": {"PublicKey": keys.public_pem(public_key), "PrivateKey": pair.private_pem},
        "expiration": not_after,
    }


def _require_fleet_template(tx: Tx, template_name: str) -> None:
    template = require_template(tx, template_name)
    if template.kind is not Kind.FLEET:
        raise InvalidRequestException(
            f"template {template_name} is of type {template.kind}; "
            "provisioning claims are for templates of type FLEET_PROVISIONING"
        )

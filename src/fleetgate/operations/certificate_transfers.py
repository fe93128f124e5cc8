"""Certificates on their way to another account.

A server serves one account, so it is the sender of every transfer it knows: a transfer begins and
is cancelled here, and whoever would accept or reject it has another account. Accepting and
rejecting are there for the sake of their answers: nothing is ever transferred *to* this account.

Source: AWS IoT Core Developer Guide, "Transfer a certificate to another account".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

from fleetgate.errors import (
    CertificateStateException,
    InvalidRequestException,
    ResourceNotFoundException,
    TransferConflictException,
)
from fleetgate.names import Account
from fleetgate.operations import pages
from fleetgate.operations.call import Call
from fleetgate.operations.certificates import (
    PENDING_TRANSFER,
    certificate_arn,
    require_certificate,
)
from fleetgate.store import certificates, policies, things
from fleetgate.store.engine import Tx


async def transfer_certificate(
    call: Call,
    certificate_id: str,
    target_aws_account: str,
    transfer_message: str | None = None,
) -> dict[str, Any]:
    """TransferCertificate: one that is not ACTIVE and has no policy and no thing attached."""
    account = call.account
    if target_aws_account == account.id:
        raise InvalidRequestException(
            f"A certificate cannot be transferred to the account that owns it ({account.id})"
        )

    def change(tx: Tx) -> None:
        certificate = require_certificate(tx, certificate_id)
        if certificate.status in ("ACTIVE", "PENDING_ACTIVATION", PENDING_TRANSFER):
            raise CertificateStateException(
                f"A certificate that is {certificate.status} cannot be transferred "
                f"(certificateId={certificate_id})"
            )
        arn = certificate_arn(account, certificate_id)
        if policies.list_attached_policies(tx, arn, "", 1):
            raise TransferConflictException(
                f"Certificate policies must be detached before a transfer (arn: {arn})"
            )
        if things.list_principal_things(tx, arn, "", 1):
            raise TransferConflictException(
                f"Things must be detached before a transfer (arn: {arn})"
            )
        certificates.update_certificate_status(tx, certificate_id, PENDING_TRANSFER, call.now)
        transfer = certificates.Transfer(
            certificate_id, target_aws_account, transfer_message, call.now, certificate.created_at
        )
        certificates.add_transfer(tx, transfer)

    await call.write(change)
    return {"transferredCertificateArn": _arn_there(account, target_aws_account, certificate_id)}


async def cancel_certificate_transfer(call: Call, certificate_id: str) -> dict[str, Any]:
    """CancelCertificateTransfer: the certificate is INACTIVE again."""

    def change(tx: Tx) -> None:
        require_certificate(tx, certificate_id)
        if certificates.find_transfer(tx, certificate_id) is None:
            raise InvalidRequestException(
                f"The certificate is not being transferred (certificateId={certificate_id})"
            )
        certificates.remove_transfer(tx, certificate_id)
        certificates.update_certificate_status(tx, certificate_id, "INACTIVE", call.now)

    await call.write(change)
    return {}


async def accept_certificate_transfer(
    call: Call,
    certificate_id: str,
    set_as_active: bool = False,  # noqa: ARG001 - nothing is transferred to this account
) -> dict[str, Any]:
    """AcceptCertificateTransfer: refused, since nothing is transferred to this account."""
    await call.read(_refuse, call.account, certificate_id)


async def reject_certificate_transfer(
    call: Call,
    certificate_id: str,
    reject_reason: str | None = None,  # noqa: ARG001 - nothing is transferred to this account
) -> dict[str, Any]:
    """RejectCertificateTransfer: refused, since nothing is transferred to this account."""
    await call.read(_refuse, call.account, certificate_id)


async def list_outgoing_certificates(
    call: Call,
    page_size: int = pages.PAGE,
    marker: str | None = None,
    ascending_order: bool = False,
) -> dict[str, Any]:
    """ListOutgoingCertificates: by the certificates' age, newest first unless `ascending_order`."""
    after = pages.start(call, "ListOutgoingCertificates", marker)
    found = await call.read(
        certificates.list_transfers,
        None if after is None else (float(after[0]), str(after[1])),
        page_size + 1,
        ascending=ascending_order,
    )
    items, following = pages.page(
        call,
        "ListOutgoingCertificates",
        found,
        page_size,
        lambda item: (item.created_at, item.certificate_id),
    )
    return {
        "outgoingCertificates": [
            {
                "certificateArn": _arn_there(
                    call.account, item.transferred_to, item.certificate_id
                ),
                "certificateId": item.certificate_id,
                "transferredTo": item.transferred_to,
                "transferDate": item.transferred_at,
                "transferMessage": item.message,
                "creationDate": item.created_at,
            }
            for item in items
        ],
        "nextMarker": following,
    }


def _refuse(tx: Tx, account: Account, certificate_id: str) -> NoReturn:
    if certificates.find_certificate(tx, certificate_id) is None:
        raise ResourceNotFoundException(f"The certificate does not exist (id={certificate_id})")
    raise InvalidRequestException(
        f"The certificate is account {account.id}'s own and not being transferred to it; only "
        f"the account a transfer goes to accepts or rejects it (certificateId={certificate_id})"
    )


def _arn_there(account: Account, target: str, certificate_id: str) -> str:
    """The ARN the certificate has in the account it goes to, as AWS answers it."""
    return certificate_arn(replace(account, id=target), certificate_id)

"""Certificates, their transfers to other accounts, and temporary provisioning claims."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx


@dataclass(frozen=True, slots=True)
class Certificate:
    """A registered device certificate; times are seconds since the epoch.

    `pending_until` is set while the certificate is PENDING_ACTIVATION and has an ownership token:
    the moment that ends. `template_name` and `thing_name` are those of the RegisterThing that
    activated it. `ca_certificate_id` is the id of the CA certificate under which it was registered.
    `provisioning_state` is set while just-in-time provisioning has not activated it: WAITING, or
    FAILED with the reason in `provisioning_failure`. `content` tells what was signed by others, as
    ``pki.registration.ForeignCertificate`` does; no two certificates have the same. `public_key`
    is ``pki.keys.key_id`` of its key: None when an older release stored it and nobody has looked
    at it since, empty when it cannot be read.
    """

    certificate_id: str
    status: str
    pem: str
    mode: str
    not_before: float
    not_after: float
    created_at: float
    modified_at: float
    customer_version: int
    generation_id: str
    pending_until: float | None = None
    template_name: str | None = None
    thing_name: str | None = None
    ca_certificate_id: str | None = None
    provisioning_state: str | None = None
    provisioning_failure: str | None = None
    content: str | None = None
    public_key: str | None = None


WAITING = "WAITING"
"""The provisioning state of a certificate whose template is still to be carried out."""
FAILED = "FAILED"
"""The provisioning state of a certificate whose template could not be carried out."""

_COLUMNS = (
    "certificate_id, status, pem, mode, not_before, not_after, created_at, modified_at, "
    "customer_version, generation_id, pending_until, template_name, thing_name, ca_certificate_id, "
    "provisioning_state, provisioning_failure, content, public_key"
)
_INSERT = (
    f"INSERT INTO certificate ({_COLUMNS}) VALUES (:{_COLUMNS.replace(', ', ', :')}) "
    "ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class Transfer:
    """A certificate on its way to another account, not accepted yet.

    `created_at` is when the certificate was created, `transferred_at` when the transfer began.
    """

    certificate_id: str
    transferred_to: str
    message: str | None
    transferred_at: float
    created_at: float


_TRANSFER = "certificate_id, transferred_to, message, transferred_at, created_at"


@dataclass(frozen=True, slots=True)
class Standing:
    """What admission needs to know of a certificate."""

    status: str
    not_before: float
    not_after: float
    template_name: str | None
    mode: str = "DEFAULT"
    exclusive_thing: str | None = None


def find_certificate(tx: Tx, certificate_id: str) -> Certificate | None:
    """The certificate of this id (64 lower-case hex digits), or None."""
    row = tx.one(
        f"SELECT {_COLUMNS} FROM certificate WHERE certificate_id = :id",
        id=certificate_id,
    )
    return None if row is None else Certificate(*row)


def find_standing(tx: Tx, certificate_id: str, certificate_arn: str = "") -> Standing | None:
    """How a certificate stands, whether registered or a temporary claim (status ``ACTIVE``).

    Its ARN is what it is attached to things by.
    """
    row = tx.one(
        "SELECT status, not_before, not_after, NULL, mode, (SELECT MIN(thing_name) "
        "FROM thing_principal WHERE principal = :arn AND exclusive = 1) "
        "FROM certificate WHERE certificate_id = :id "
        "UNION ALL SELECT 'ACTIVE', not_before, not_after, template_name, 'DEFAULT', NULL "
        "FROM provisioning_claim WHERE certificate_id = :id AND template_name <> ''",
        id=certificate_id,
        arn=certificate_arn,
    )
    return None if row is None else Standing(*row)


def find_registered(tx: Tx, certificate_id: str, content: str) -> str | None:
    """The id of the certificate that has this id or this content, None when there is none."""
    row = tx.one(
        "SELECT certificate_id FROM certificate WHERE certificate_id = :id "
        "UNION ALL SELECT certificate_id FROM certificate WHERE content = :content",
        id=certificate_id,
        content=content,
    )
    return None if row is None else str(row[0])


def list_certificates(
    tx: Tx, after: tuple[float, str] | None, limit: int, *, ascending: bool
) -> list[Certificate]:
    """Certificates by age, behind the position `after` = (created_at, certificate_id)."""
    direction, compare = ("ASC", ">") if ascending else ("DESC", "<")
    where = f"WHERE (created_at, certificate_id) {compare} (:at, :id)" if after else ""
    at, certificate_id = after or (0.0, "")
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM certificate {where} "
        f"ORDER BY created_at {direction}, certificate_id {direction} LIMIT :limit",
        **({"at": at, "id": certificate_id} if after else {}),
        limit=limit,
    )
    return [Certificate(*row) for row in rows]


def list_certificates_of_ca(
    tx: Tx, ca_certificate_id: str, after: tuple[float, str] | None, limit: int, *, ascending: bool
) -> list[Certificate]:
    """The same for the certificates registered under one CA certificate."""
    direction, compare = ("ASC", ">") if ascending else ("DESC", "<")
    where = f"AND (created_at, certificate_id) {compare} (:at, :id) " if after else ""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM certificate WHERE ca_certificate_id = :ca {where}"
        f"ORDER BY created_at {direction}, certificate_id {direction} LIMIT :limit",
        ca=ca_certificate_id,
        **({"at": after[0], "id": after[1]} if after else {}),
        limit=limit,
    )
    return [Certificate(*row) for row in rows]


def add_certificate(tx: Tx, certificate: Certificate) -> bool:
    """Stores a new certificate; False when its id, or its content, is there already."""
    values = {name: getattr(certificate, name) for name in Certificate.__slots__}
    return tx.run(_INSERT, **values) == 1


def update_certificate_status(tx: Tx, certificate_id: str, status: str, now: float) -> None:
    """Sets the status; a certificate that leaves PENDING_ACTIVATION is no longer swept.

    Nor is it provisioned any more: whoever set the status has decided.
    """
    tx.send(
        "UPDATE certificate SET status = :status, modified_at = :now, pending_until = NULL, "
        "provisioning_state = NULL, provisioning_failure = NULL, "
        "customer_version = customer_version + 1 WHERE certificate_id = :id",
        id=certificate_id,
        status=status,
        now=now,
    )


def update_certificate_registration(
    tx: Tx, certificate_id: str, template_name: str, thing_name: str | None
) -> None:
    """Remembers the RegisterThing that used the certificate's ownership token."""
    tx.send(
        "UPDATE certificate SET template_name = :template, thing_name = :thing "
        "WHERE certificate_id = :id",
        id=certificate_id,
        template=template_name,
        thing=thing_name,
    )


def update_provisioning_failure(tx: Tx, certificate_id: str, failure: str) -> bool:
    """Notes why the template of a WAITING certificate failed; False when it waits no more."""
    changed = tx.run(
        "UPDATE certificate SET provisioning_state = :failed, provisioning_failure = :failure "
        "WHERE certificate_id = :id AND provisioning_state = :waiting",
        id=certificate_id,
        failure=failure,
        failed=FAILED,
        waiting=WAITING,
    )
    return changed == 1


def list_waiting_certificates(tx: Tx, after: str, limit: int) -> list[str]:
    """The ids of WAITING certificates, behind the id `after`."""
    rows = tx.all(
        "SELECT certificate_id FROM certificate WHERE provisioning_state = :waiting "
        "AND certificate_id > :after ORDER BY certificate_id LIMIT :limit",
        waiting=WAITING,
        after=after,
        limit=limit,
    )
    return [row[0] for row in rows]


def remove_certificate(tx: Tx, certificate_id: str) -> None:
    """Deletes a certificate."""
    tx.send("DELETE FROM certificate WHERE certificate_id = :id", id=certificate_id)


def find_transfer(tx: Tx, certificate_id: str) -> Transfer | None:
    """The transfer a certificate is in, or None."""
    row = tx.one(
        f"SELECT {_TRANSFER} FROM certificate_transfer WHERE certificate_id = :id",
        id=certificate_id,
    )
    return None if row is None else Transfer(*row)


def list_transfers(
    tx: Tx, after: tuple[float, str] | None, limit: int, *, ascending: bool
) -> list[Transfer]:
    """Transfers by the certificates' age, behind `after` = (created_at, certificate_id)."""
    direction, compare = ("ASC", ">") if ascending else ("DESC", "<")
    where = f"WHERE (created_at, certificate_id) {compare} (:at, :id) " if after else ""
    rows = tx.all(
        f"SELECT {_TRANSFER} FROM certificate_transfer {where}"
        f"ORDER BY created_at {direction}, certificate_id {direction} LIMIT :limit",
        **({"at": after[0], "id": after[1]} if after else {}),
        limit=limit,
    )
    return [Transfer(*row) for row in rows]


def add_transfer(tx: Tx, transfer: Transfer) -> None:
    """Stores a transfer that begins; the certificate has none."""
    tx.send(
        f"INSERT INTO certificate_transfer ({_TRANSFER}) "
        f"VALUES (:{_TRANSFER.replace(', ', ', :')})",
        **{name: getattr(transfer, name) for name in Transfer.__slots__},
    )


def remove_transfer(tx: Tx, certificate_id: str) -> None:
    """Ends a transfer."""
    tx.send("DELETE FROM certificate_transfer WHERE certificate_id = :id", id=certificate_id)


def remove_pending_certificates(tx: Tx, now: float, limit: int) -> list[str]:
    """Deletes certificates still PENDING_ACTIVATION at the end of their token; returns ids."""
    rows = tx.all(
        "SELECT certificate_id FROM certificate WHERE pending_until <= :now "
        "ORDER BY pending_until LIMIT :limit",
        now=now,
        limit=limit,
    )
    for (certificate_id,) in rows:
        remove_certificate(tx, certificate_id)
    return [row[0] for row in rows]


def add_provisioning_claim(
    tx: Tx,
    certificate_id: str,
    template_name: str,
    not_before: float,
    not_after: float,
    public_key: str,
) -> None:
    """Stores a temporary claim for one template; `public_key` as certificates have it."""
    tx.send(
        "INSERT INTO provisioning_claim "
        "(certificate_id, template_name, not_before, not_after, public_key) "
        "VALUES (:id, :template, :not_before, :not_after, :public_key)",
        id=certificate_id,
        template=template_name,
        not_before=not_before,
        not_after=not_after,
        public_key=public_key,
    )


def find_provisioning_claim(tx: Tx, certificate_id: str) -> str | None:
    """The name of the template a temporary claim is for, None when the id is of no such claim.

    It is empty when that template was deleted.
    """
    row = tx.one(
        "SELECT template_name FROM provisioning_claim WHERE certificate_id = :id",
        id=certificate_id,
    )
    return None if row is None else str(row[0])


def remove_ended_provisioning_claims(tx: Tx, now: float) -> int:
    """Deletes temporary claims that have ended; returns how many."""
    return tx.run("DELETE FROM provisioning_claim WHERE not_after <= :now", now=now)


def update_claims_of_deleted_template(tx: Tx, template_name: str) -> list[str]:
    """Takes their template from temporary claims; returns their certificate ids.

    Until their notAfter they stay known as claims, so that none becomes something else.
    """
    rows = tx.all(
        "SELECT certificate_id FROM provisioning_claim WHERE template_name = :template",
        template=template_name,
    )
    tx.send(
        "UPDATE provisioning_claim SET template_name = '' WHERE template_name = :template",
        template=template_name,
    )
    return [row[0] for row in rows]

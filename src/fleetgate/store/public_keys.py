"""Which certificates have a public key: those that are there, and those that were."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx

CLAIM, DELETED = "TEMPORARY_CLAIM", "DELETED"


@dataclass(frozen=True, slots=True)
class Holder:
    """A certificate with a certain key.

    `status` is AWS's, or CLAIM for a temporary provisioning claim, or DELETED. `things` are the
    one it was registered for and the first and last it is attached to, as far as there are any.
    """

    certificate_id: str
    status: str
    things: tuple[str, ...]


def list_holders(
    tx: Tx,
    public_key: str,
    other_than: str,
    thing_name: str,
    arn_prefix: str,
    limit: int,
    *,
    deleted: bool,
) -> list[Holder]:
    """The certificates with this key that are not those of one thing and nothing else.

    Left out are the one with the id `other_than`, those of the thing alone (of none when the name
    is empty), those whose ownership token was not used, and unless `deleted` those that were
    deleted. `arn_prefix` is what a certificate's ARN has before its id.
    """
    rows = tx.all(
        "SELECT c.certificate_id, c.status, c.thing_name, "
        "(SELECT MIN(p.thing_name) FROM thing_principal p "
        "WHERE p.principal = CAST(:arn AS TEXT) || c.certificate_id), "
        "(SELECT MAX(p.thing_name) FROM thing_principal p "
        "WHERE p.principal = CAST(:arn AS TEXT) || c.certificate_id) FROM certificate c "
        "WHERE c.public_key = :key AND c.certificate_id <> :id "
        "AND (c.status <> 'PENDING_ACTIVATION' OR c.pending_until IS NULL) "
        "AND (c.thing_name <> :thing OR EXISTS (SELECT 1 FROM thing_principal p "
        "WHERE p.principal = CAST(:arn AS TEXT) || c.certificate_id AND p.thing_name <> :thing) "
        "OR (c.thing_name IS NULL AND NOT EXISTS (SELECT 1 FROM thing_principal p "
        "WHERE p.principal = CAST(:arn AS TEXT) || c.certificate_id))) "
        "ORDER BY c.certificate_id LIMIT :limit",
        key=public_key,
        id=other_than,
        thing=thing_name,
        arn=arn_prefix,
        limit=limit,
    )
    rows += tx.all(
        f"SELECT certificate_id, '{CLAIM}', NULL, NULL FROM provisioning_claim "
        "WHERE public_key = :key AND certificate_id <> :id ORDER BY certificate_id LIMIT :limit",
        key=public_key,
        id=other_than,
        limit=limit,
    )
    if deleted:
        rows += tx.all(
            f"SELECT certificate_id, '{DELETED}', thing_name, NULL FROM deleted_key "
            "WHERE public_key = :key AND certificate_id <> :id "
            "AND (thing_name IS NULL OR thing_name <> :thing) "
            "ORDER BY certificate_id LIMIT :limit",
            key=public_key,
            id=other_than,
            thing=thing_name,
            limit=limit,
        )
    return [
        Holder(id_, status, tuple(dict.fromkeys(name for name in names if name is not None)))
        for id_, status, *names in rows[:limit]
    ]


def list_active(tx: Tx, public_key: str, other_than: str, limit: int) -> list[str]:
    """The ids of the ACTIVE certificates with this key, but for one."""
    rows = tx.all(
        "SELECT certificate_id FROM certificate WHERE public_key = :key AND status = 'ACTIVE' "
        "AND certificate_id <> :id ORDER BY certificate_id LIMIT :limit",
        key=public_key,
        id=other_than,
        limit=limit,
    )
    return [row[0] for row in rows]


def list_unknown(tx: Tx, limit: int) -> list[tuple[str, str]]:
    """Certificates whose key nobody has looked at yet: id and PEM."""
    rows = tx.all(
        "SELECT certificate_id, pem FROM certificate WHERE public_key IS NULL "
        "ORDER BY certificate_id LIMIT :limit",
        limit=limit,
    )
    return [(row[0], row[1]) for row in rows]


def update_public_key(tx: Tx, certificate_id: str, public_key: str) -> None:
    """Notes the key of a certificate."""
    tx.send(
        "UPDATE certificate SET public_key = :key WHERE certificate_id = :id",
        id=certificate_id,
        key=public_key,
    )


def add_deleted_key(
    tx: Tx, public_key: str, certificate_id: str, thing_name: str | None, now: float
) -> None:
    """Remembers the key of a certificate that is deleted."""
    tx.send(
        "INSERT INTO deleted_key (public_key, certificate_id, thing_name, deleted_at) "
        "VALUES (:key, :id, :thing, :now) ON CONFLICT (public_key, certificate_id) "
        "DO UPDATE SET thing_name = excluded.thing_name, deleted_at = excluded.deleted_at",
        key=public_key,
        id=certificate_id,
        thing=thing_name,
        now=now,
    )

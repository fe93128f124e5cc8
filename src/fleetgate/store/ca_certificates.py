"""CA certificates of other authorities, and the code by which they are registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleetgate.store.engine import Tx


@dataclass(frozen=True, slots=True)
class CaCertificate:
    """A registered CA certificate; times are seconds since the epoch.

    `subject` is the key of its subject (``pki.registration.ForeignCertificate``), `status`
    ``ACTIVE`` or ``INACTIVE``, `auto_registration` ``ENABLE`` or ``DISABLE``, `mode` ``DEFAULT``
    or ``SNI_ONLY``. The last three are its registration configuration, all None without one.
    """

    certificate_id: str
    status: str
    auto_registration: str
    pem: str
    subject: str
    mode: str
    not_before: float
    not_after: float
    created_at: float
    modified_at: float
    customer_version: int
    generation_id: str
    template_body: str | None = None
    template_name: str | None = None
    role_arn: str | None = None

    @property
    def registration_config(self) -> Mapping[str, str] | None:
        """The registration configuration as the API has it, None without one."""
        members = {
            "templateBody": self.template_body,
            "templateName": self.template_name,
            "roleArn": self.role_arn,
        }
        return {name: value for name, value in members.items() if value is not None} or None


_COLUMNS = (
    "certificate_id, status, auto_registration, pem, subject, mode, not_before, not_after, "
    "created_at, modified_at, customer_version, generation_id, template_body, template_name, "
    "role_arn"
)


def find_ca_certificate(tx: Tx, certificate_id: str) -> CaCertificate | None:
    """The CA certificate of this id (64 lower-case hex digits), or None."""
    row = tx.one(
        f"SELECT {_COLUMNS} FROM ca_certificate WHERE certificate_id = :id", id=certificate_id
    )
    return None if row is None else CaCertificate(*row)


def list_ca_certificates_of_subject(tx: Tx, subject: str) -> list[CaCertificate]:
    """The CA certificates that have this key of a subject, oldest first (there are few)."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM ca_certificate WHERE subject = :subject "
        "ORDER BY created_at, certificate_id",
        subject=subject,
    )
    return [CaCertificate(*row) for row in rows]


def list_ca_certificates(
    tx: Tx,
    template_name: str | None,
    after: tuple[float, str] | None,
    limit: int,
    *,
    ascending: bool,
) -> list[CaCertificate]:
    """CA certificates by age, behind `after` = (created_at, certificate_id).

    With a `template_name` only those whose registration configuration names it.
    """
    direction, compare = ("ASC", ">") if ascending else ("DESC", "<")
    conditions: list[str] = []
    values: dict[str, str | float] = {}
    if template_name is not None:
        conditions.append("template_name = :template")
        values["template"] = template_name
    if after is not None:
        conditions.append(f"(created_at, certificate_id) {compare} (:at, :id)")
        values["at"], values["id"] = after
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM ca_certificate {where}"
        f"ORDER BY created_at {direction}, certificate_id {direction} LIMIT :limit",
        **values,
        limit=limit,
    )
    return [CaCertificate(*row) for row in rows]


def add_ca_certificate(tx: Tx, ca_certificate: CaCertificate) -> bool:
    """Stores a new CA certificate; False when its id is there already."""
    values = {name: getattr(ca_certificate, name) for name in CaCertificate.__slots__}
    return (
        tx.run(
            f"INSERT INTO ca_certificate ({_COLUMNS}) VALUES "
            f"(:{_COLUMNS.replace(', ', ', :')}) ON CONFLICT DO NOTHING",
            **values,
        )
        == 1
    )


def update_ca_certificate(tx: Tx, ca_certificate: CaCertificate) -> None:
    """Writes what may change: statuses, registration configuration, version, modified_at."""
    tx.send(
        "UPDATE ca_certificate SET status = :status, auto_registration = :auto_registration, "
        "template_body = :template_body, template_name = :template_name, role_arn = :role_arn, "
        "modified_at = :modified_at, customer_version = :customer_version "
        "WHERE certificate_id = :id",
        id=ca_certificate.certificate_id,
        status=ca_certificate.status,
        auto_registration=ca_certificate.auto_registration,
        template_body=ca_certificate.template_body,
        template_name=ca_certificate.template_name,
        role_arn=ca_certificate.role_arn,
        modified_at=ca_certificate.modified_at,
        customer_version=ca_certificate.customer_version,
    )


def remove_ca_certificate(tx: Tx, certificate_id: str) -> None:
    """Deletes a CA certificate; the certificates registered under it stay."""
    tx.send("DELETE FROM ca_certificate WHERE certificate_id = :id", id=certificate_id)


_SLOT = 1  # there is one registration code; its row always has this key


def find_registration_code(tx: Tx) -> str | None:
    """The registration code of the account, or None."""
    row = tx.one("SELECT code FROM registration_code WHERE slot = :slot", slot=_SLOT)
    return None if row is None else str(row[0])


def add_registration_code(tx: Tx, code: str) -> None:
    """Stores a registration code, unless there is one."""
    tx.send(
        "INSERT INTO registration_code (slot, code) VALUES (:slot, :code) ON CONFLICT DO NOTHING",
        slot=_SLOT,
        code=code,
    )


def remove_registration_code(tx: Tx) -> bool:
    """Deletes the registration code; False when there is none."""
    return tx.run("DELETE FROM registration_code WHERE slot = :slot", slot=_SLOT) > 0

"""Domain configurations that were created; those of the default endpoints are not stored."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx


@dataclass(frozen=True, slots=True)
class DomainConfiguration:
    """A domain configuration. `suffix` is the random end of its ARN.

    `server_certificate` is the JSON text of the model's ServerCertificateConfig, or None.
    """

    name: str
    suffix: str
    service_type: str
    status: str
    status_changed_at: float
    security_policy: str
    authentication_type: str
    application_protocol: str
    server_certificate: str | None


_COLUMNS = (
    "name, suffix, service_type, status, status_changed_at, security_policy, "
    "authentication_type, application_protocol, server_certificate"
)


def find_domain_configuration(tx: Tx, name: str) -> DomainConfiguration | None:
    """The domain configuration of this name, or None."""
    row = tx.one(f"SELECT {_COLUMNS} FROM domain_configuration WHERE name = :name", name=name)
    return None if row is None else DomainConfiguration(*row)


def find_domain_configuration_at(tx: Tx, name_and_suffix: str) -> DomainConfiguration | None:
    """The one whose ARN ends in ``name/suffix``, or None."""
    name, _, suffix = name_and_suffix.partition("/")
    found = find_domain_configuration(tx, name)
    return found if found is not None and found.suffix == suffix else None


def list_domain_configurations(
    tx: Tx, service_type: str | None, after: str, limit: int
) -> list[DomainConfiguration]:
    """Domain configurations by name, behind the name `after`; of one service unless None."""
    where = "AND service_type = :service_type " if service_type is not None else ""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM domain_configuration WHERE name > :after {where}"
        "ORDER BY name LIMIT :limit",
        after=after,
        limit=limit,
        **({"service_type": service_type} if service_type is not None else {}),
    )
    return [DomainConfiguration(*row) for row in rows]


def count_domain_configurations(tx: Tx) -> int:
    """How many domain configurations were created."""
    row = tx.one("SELECT count(*) FROM domain_configuration")
    return 0 if row is None else int(row[0])


def add_domain_configuration(tx: Tx, configuration: DomainConfiguration) -> None:
    """Stores a new domain configuration."""
    tx.send(
        f"INSERT INTO domain_configuration ({_COLUMNS}) VALUES (:name, :suffix, :service_type, "
        ":status, :status_changed_at, :security_policy, :authentication_type, "
        ":application_protocol, :server_certificate)",
        suffix=configuration.suffix,
        service_type=configuration.service_type,
        **_changeable(configuration),
    )


def update_domain_configuration(tx: Tx, configuration: DomainConfiguration) -> None:
    """Stores everything but name, ARN and service type anew."""
    tx.send(
        "UPDATE domain_configuration SET status = :status, "
        "status_changed_at = :status_changed_at, security_policy = :security_policy, "
        "authentication_type = :authentication_type, "
        "application_protocol = :application_protocol, "
        "server_certificate = :server_certificate WHERE name = :name",
        **_changeable(configuration),
    )


def remove_domain_configuration(tx: Tx, name: str) -> None:
    """Deletes a domain configuration."""
    tx.send("DELETE FROM domain_configuration WHERE name = :name", name=name)


def _changeable(configuration: DomainConfiguration) -> dict[str, object]:
    return {
        "name": configuration.name,
        "status": configuration.status,
        "status_changed_at": configuration.status_changed_at,
        "security_policy": configuration.security_policy,
        "authentication_type": configuration.authentication_type,
        "application_protocol": configuration.application_protocol,
        "server_certificate": configuration.server_certificate,
    }

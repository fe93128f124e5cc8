"""Certificate providers: whose function signs instead of the server."""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx


@dataclass(frozen=True, slots=True)
class CertificateProvider:
    """The certificate provider of the account; times are seconds since the epoch.

    `client_token` is that of the request which created it, and `request` a digest of what that
    request said: by both a request is known that is sent again.
    """

    name: str
    function_arn: str
    client_token: str | None
    request: str
    created_at: float
    modified_at: float


_COLUMNS = "name, function_arn, client_token, request, created_at, modified_at"


def find_certificate_provider(tx: Tx) -> CertificateProvider | None:
    """The certificate provider of the account, which has one at most."""
    row = tx.one(f"SELECT {_COLUMNS} FROM certificate_provider ORDER BY name LIMIT 1")
    return None if row is None else CertificateProvider(*row)


def find_certificate_provider_named(tx: Tx, name: str) -> CertificateProvider | None:
    """The certificate provider if it has this name, else None."""
    row = tx.one(f"SELECT {_COLUMNS} FROM certificate_provider WHERE name = :name", name=name)
    return None if row is None else CertificateProvider(*row)


def add_certificate_provider(tx: Tx, provider: CertificateProvider) -> None:
    """Stores a new certificate provider."""
    tx.send(
        f"INSERT INTO certificate_provider ({_COLUMNS}) VALUES (:{_COLUMNS.replace(', ', ', :')})",
        **{name: getattr(provider, name) for name in CertificateProvider.__slots__},
    )


def update_certificate_provider(tx: Tx, provider: CertificateProvider) -> None:
    """Stores the function and the modification time anew."""
    tx.send(
        "UPDATE certificate_provider SET function_arn = :function_arn, "
        "modified_at = :modified_at WHERE name = :name",
        name=provider.name,
        function_arn=provider.function_arn,
        modified_at=provider.modified_at,
    )


def remove_certificate_provider(tx: Tx, name: str) -> None:
    """Deletes a certificate provider."""
    tx.send("DELETE FROM certificate_provider WHERE name = :name", name=name)

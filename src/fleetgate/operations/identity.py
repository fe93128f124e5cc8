"""The identity behind a connection, and where the connection comes from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Identity:
    """An admitted certificate.

    `template_name` is set for a temporary provisioning claim: the one template it may be used
    for. `not_after` is the end of its validity, seconds since the epoch.
    """

    certificate_id: str
    template_name: str | None
    not_after: float

    @property
    def is_temporary_claim(self) -> bool:
        """Made by CreateProvisioningClaim, for a device that has no certificate of its own yet."""
        return self.template_name is not None


@dataclass(frozen=True, slots=True)
class Peer:
    """What the network shows of a client.

    `address` is its IP address, `server_name` the name it wants to talk to (TLS server name
    indication, empty when it does not say), `certificate` its certificate in DER form.
    """

    address: str
    server_name: str
    certificate: bytes = field(repr=False)

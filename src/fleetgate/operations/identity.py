"""The identity behind a connection, and where the connection comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Identity:
    """An admitted certificate.

    `template_name` is set for a temporary provisioning claim: the one template it may be used
    for. `not_after` is the end of its validity, seconds since the epoch. `exclusive_thing` is the
    thing that it was attached to exclusively at the time, None when there was none.
    """

    certificate_id: str
    template_name: str | None
    not_after: float
    exclusive_thing: str | None = None

    @property
    def is_temporary_claim(self) -> bool:
        """Made by CreateProvisioningClaim, for a device that has no certificate of its own yet."""
        return self.template_name is not None

    @property
    def logged(self) -> str:
        """The certificate id as the log has it; of a temporary claim with its template."""
        if self.template_name is None:
            return self.certificate_id
        return f"{self.certificate_id} claim-of={self.template_name}"


@dataclass(frozen=True, slots=True)
class Peer:
    """What the network shows of a client.

    `address` is its IP address, `server_name` the name it wants to talk to (TLS server name
    indication, empty when it does not say), `certificate` its certificate in DER form.
    `read_chain` gives what `chain` returns, and keeps the connection in memory: `settled` is the
    same peer without it.
    """

    address: str
    server_name: str
    certificate: bytes = field(repr=False)
    read_chain: Callable[[], tuple[bytes, ...]] = field(default=tuple, repr=False, compare=False)

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificates (DER) that the client has sent behind its own.

        They prove nothing by themselves. To be asked for when its own is not known only: most
        clients are, and reading the chain takes time.
        """
        return self.read_chain()

    def settled(self) -> Peer:
        """The peer once it is known who it is: without its chain."""
        return Peer(self.address, self.server_name, self.certificate)

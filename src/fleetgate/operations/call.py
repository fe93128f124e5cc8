"""What an operation is given: the services of the server and the facts of one call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from fleetgate.domain.limits import Limits
from fleetgate.domain.policy import Policies
from fleetgate.errors import ServiceUnavailableException
from fleetgate.functions.runner import Functions
from fleetgate.names import Account
from fleetgate.operations.background import Background
from fleetgate.operations.bulk import Bulk
from fleetgate.operations.caller import Caller
from fleetgate.operations.identity import Identity, Peer
from fleetgate.operations.rsa_keys import RsaKeys
from fleetgate.pki.issue import Profile
from fleetgate.pki.trust import Authority
from fleetgate.store.certificate_providers import CertificateProvider
from fleetgate.store.engine import OutcomeUnknown, Store, Tx

if TYPE_CHECKING:
    from fleetgate.operations.built_in import BuiltInFunction

DEFAULT_LIMITS = Limits()

_SPARE = 64
"""Ids that are drawn at a time."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class Services:
    """What all calls share. Time and randomness come in here and nowhere else.

    `host_names` are the names under which the server is reached, the first being the one to tell.
    `now` returns seconds since the epoch, `random_bytes(n)` n unpredictable bytes.
    `limits` are the quotas of the account. `certificate_changed(certificate_id)` is called after
    a certificate lost its right to be connected. `policy_epoch` grows whenever any policy or
    attachment changed: what was compiled from policies at an older epoch is stale.
    `publish(topic, payload)` hands a message of the service itself (``$aws/events/...``) to the
    broker; it never waits and never fails. `enabled_events` are the types of registry events that
    are switched on (UpdateEventConfigurations, which holds `events_lock` meanwhile, so that it is
    what was stored last). `certificate_provider` is who signs for devices instead of the server,
    kept in the same way. `bulk` is what bulk registration works with,
    `functions` runs hooks and certificate providers; `built_in` are the functions of the
    configuration that look into the registry, by name. A hook or a certificate provider has
    `hook_seconds` for its answer, waiting for its turn included (AWS IoT developer guide,
    "Pre-provisioning hooks").
    `iam_epoch` is
    the same for IAM users, roles, access keys and policies; `role_rights` keeps what the policies
    of roles were compiled to (operations/authorization.py).
    """

    account: Account
    store: Store
    authority: Authority
    device_profile: Profile
    claim_profile: Profile
    token_key: bytes
    rsa_keys: RsaKeys
    host_names: tuple[str, ...]
    now: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    limits: Limits = DEFAULT_LIMITS
    ownership_token_seconds: float = 3600.0
    certificate_changed: Callable[[str], None] = lambda _: None
    publish: Callable[[str, bytes], None] = lambda _topic, _payload: None
    enabled_events: frozenset[str] = frozenset()
    events_lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    certificate_provider: CertificateProvider | None = None
    certificate_provider_lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    bulk: Bulk = field(default_factory=Bulk)
    functions: Functions = field(default_factory=Functions)
    background: Background = field(default_factory=Background, repr=False)
    built_in: dict[str, BuiltInFunction] = field(default_factory=dict)
    hook_seconds: float = 5.0
    policy_epoch: int = 0
    _spare: list[bytes] = field(default_factory=list, init=False, repr=False)
    iam_epoch: int = 0
    role_rights: dict[tuple[str, str], tuple[int, Policies]] = field(default_factory=dict)

    def new_id(self) -> str:
        """A random UUID, as AWS gives things, groups and generations."""
        try:
            chosen = self._spare.pop()  # atomic: writer threads call this too
        except IndexError:
            # asking the system for 16 bytes costs more than anything else done with them
            more = self.random_bytes(16 * _SPARE)
            chosen, *others = (more[at : at + 16] for at in range(0, len(more), 16))
            self._spare.extend(others)
        digits = chosen.hex()
        variant = "89ab"[chosen[8] & 3]  # RFC 9562 section 5.4
        return (
            f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
        )

    def new_serial(self) -> int:
        """A positive 160-bit certificate serial number (RFC 5280 section 4.1.2.2)."""
        return int.from_bytes(self.random_bytes(20), "big") >> 1 | 1


@dataclass(frozen=True, slots=True)
class Call:
    """One call: when, by whom, over which door.

    Over MQTT `client_id` is the MQTT client id and `identity` the certificate of the connection,
    `peer` what the network shows of it and `topic` that of the request; over HTTP all of them are
    empty, and `caller` is who signed the request. `source_ip` is the address of the peer;
    `conditions` are the condition keys for IAM policies the request came with
    (``aws:SourceIp``, ...). `base_url` is how an HTTP caller reached the server
    (``http://host:port``). `iam_epoch` is that of the services when the call began. `listing` is
    what a listing was asked for, which its page tokens are bound to. `aside()` is entered around
    a wait for code that is not ours: meanwhile the call takes nobody else's turn.
    """

    services: Services
    request_id: str
    now: float
    client_id: str = ""
    identity: Identity | None = None
    caller: Caller | None = None
    source_ip: str = ""
    conditions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    listing: bytes = b""
    base_url: str = ""
    topic: str = ""
    peer: Peer | None = None
    aside: Callable[[], AbstractAsyncContextManager[object]] = field(
        default=nullcontext, repr=False
    )
    iam_epoch: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "iam_epoch", self.services.iam_epoch)

    @property
    def account(self) -> Account:
        """The account the server serves."""
        return self.services.account

    async def read(
        self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `fn(tx, ...)` on a consistent view of the store."""
        return await self.services.store.read(fn, *args, **kwargs)

    async def write(
        self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Runs `fn(tx, ...)` as one durable, all-or-nothing transaction."""
        try:
            return await self.services.store.write(fn, *args, **kwargs)
        except ServiceUnavailableException as error:
            if isinstance(error.__cause__, OutcomeUnknown):
                self.policies_changed()
                self.iam_changed()
            raise

    def policies_changed(self) -> None:
        """Tells open connections that their compiled policies are stale."""
        self.services.policy_epoch += 1

    def iam_changed(self) -> None:
        """Makes stale what was compiled from IAM users, roles, access keys and policies.

        To be called after the change is in the store, never before.
        """
        self.services.iam_epoch += 1

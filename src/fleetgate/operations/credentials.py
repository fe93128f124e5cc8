"""Access keys: who is behind one, and how temporary ones are made.

A `Keyring` looks an access key up: the root user's key is that of the data directory, users' keys
are in the store, temporary ones come with a session token (operations/session_tokens.py). What
was found, with the policies compiled for the caller, is kept until something in IAM changes, so
that a call costs a look in a dictionary.

Sources: IAM User Guide, "Manage access keys for IAM users", "Temporary security credentials",
"AWS global condition context keys"; STS API Reference, "AssumeRole", "GetSessionToken".
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from fleetgate.domain.policy import compile_policies
from fleetgate.errors import (
    ExpiredTokenException,
    InvalidToken,
    PackedPolicyTooLarge,
    ServiceError,
)
from fleetgate.operations import access_keys, condition_keys, iam_names, session_tokens
from fleetgate.operations.authorization import identity_document
from fleetgate.operations.call import Call, Services
from fleetgate.operations.caller import Caller
from fleetgate.operations.kept import Kept
from fleetgate.operations.session_tokens import Claims
from fleetgate.store import iam_roles, iam_users, tags
from fleetgate.store.engine import Tx

log = logging.getLogger("fleetgate.credentials")

MAX_KEPT = 1_000_000
"""Characters of policy documents of the callers that are kept compiled."""

MAX_NOTED = 4096
"""Access keys whose use is noted once in a while."""

USE_NOTED_AFTER = 900.0
"""Seconds between two notes of when an access key was used; AWS's own lag behind as well."""

Documents = Iterable[tuple[str, str]]
Values = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Session:
    """Temporary credentials; `expiration` is in seconds since the epoch."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expiration: float


def issue_session(
    call: Call,
    *,
    principal_arn: str,
    principal_id: str,
    session_name: str = "",
    session_policies: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    duration: float,
) -> Session:
    """Temporary credentials of a principal, valid for `duration` seconds from now.

    `principal_arn` is the IAM ARN of a role (then `session_name` is needed), of a user, or of the
    root user (``arn:aws:iam::A:root``); `principal_id` its role id, user id, or the account id.
    `session_policies` are documents, inline or of managed policies: what none of them allows is
    denied. The principal's own policies are those at the time of each call.

    Raises PackedPolicyTooLarge when policies and tags do not fit into a token.
    """
    services = call.services
    unique = base64.b32encode(services.random_bytes(10)).decode("ascii")
    claims = session_tokens.Claims(
        access_key_id=f"ASIA{unique}",
        principal_arn=principal_arn,
        principal_id=principal_id,
        session_name=session_name,
        policies=tuple(session_policies),
        tags=dict(tags or {}),
        issued_at=call.now,
        expires_at=call.now + duration,
    )
    try:
        secret, token = session_tokens.seal(
            services.token_key, claims, services.random_bytes(session_tokens.NONCE_BYTES)
        )
    except ValueError:
        raise PackedPolicyTooLarge(
            "the session policies and tags are too large for a session token of "
            f"{session_tokens.MAX_CHARACTERS} characters"
        ) from None
    return Session(claims.access_key_id, secret, token, claims.expires_at)


@dataclass(frozen=True, slots=True)
class Found:
    """An access key that may sign: its secret and who that is. Not verified, only known."""

    secret_access_key: str = field(repr=False)
    caller: Caller
    expires_at: float | None = None


@dataclass(slots=True)
class Keyring:
    """All access keys there are. `root_key` is the root user's access key id, with its secret."""

    services: Services
    root_key: str
    root_secret: str = field(repr=False)
    _kept: Kept[tuple[str, str | None], tuple[int, Found]] = field(
        default_factory=lambda: Kept(MAX_KEPT)
    )
    _noted: dict[str, float] = field(default_factory=dict)
    _root: Caller = field(init=False)

    def __post_init__(self) -> None:
        account = self.services.account
        arn = account.iam_arn("root")
        values = {
            "aws:PrincipalArn": (arn,),
            "aws:PrincipalAccount": (account.id,),
            "aws:PrincipalType": ("Account",),
            "aws:userid": (account.id,),
        }
        self._root = Caller(
            account.id,
            arn,
            account.id,
            self.root_key,
            values=values,
            principal_arn=arn,
        )

    @property
    def root(self) -> Caller:
        """The root user."""
        return self._root

    async def find(self, access_key: str, session_token: str | None, now: float) -> Found | None:
        """What is known of an access key, with its session token if it has one.

        None when there is no such key, it is inactive, the token does not go with it, or whom it
        was given to is gone. Raises ExpiredTokenException.
        """
        if access_key == self.root_key and session_token is None:
            return Found(self.root_secret, self.root)
        epoch = self.services.iam_epoch  # before the store is read: what changes later is noticed
        kept = self._kept.get((access_key, session_token))
        if kept is not None and kept[0] == epoch:
            found: Found | None = kept[1]
        elif session_token is None:
            found = await self.services.store.read(_find_key, self.services, access_key)
        else:
            try:
                secret, claims = session_tokens.open_(self.services.token_key, session_token)
            except InvalidToken:
                return None
            if claims.access_key_id != access_key:
                return None
            _refuse_expired(claims.expires_at, now)
            found = await self._find_session(secret, claims)
        if found is None:
            return None
        if kept is None or kept[0] != epoch:
            caller = found.caller
            size = caller.characters + len(session_token or "")
            key = access_key, session_token
            self._kept.put(key, (epoch, found), size, caller.principal_arn)
        if found.expires_at is not None:
            _refuse_expired(found.expires_at, now)
        return found

    async def note_use(self, found: Found, service: str, region: str, now: float) -> None:
        """Notes that a key has signed a request, once in a while, for GetAccessKeyLastUsed."""
        caller = found.caller
        if caller.session_kind or caller.is_root:
            return
        key = caller.access_key_id
        if now - self._noted.get(key, -USE_NOTED_AFTER) < USE_NOTED_AFTER:
            return
        if len(self._noted) >= MAX_NOTED:
            self._noted.clear()
        self._noted[key] = now
        try:
            await self.services.store.write(
                iam_users.update_access_key_use, key, now, service, region
            )
        except ServiceError as error:  # a full disk, say: no reason to refuse what only reads
            log.warning("event=use-not-noted key=%s cause=%s", key, error.message)

    async def _find_session(self, secret: str, claims: Claims) -> Found | None:
        caller: Caller | None
        if claims.principal_arn == self.services.account.iam_arn("root"):
            root = self.root
            caller = replace(
                root,
                access_key_id=claims.access_key_id,
                values={**root.values, **_session_values(claims)},
                session_kind="user",
            )
        else:
            caller = await self.services.store.read(_find_principal, self.services, claims)
        return None if caller is None else Found(secret, caller, claims.expires_at)


def _refuse_expired(expires_at: float, now: float) -> None:
    if now >= expires_at:
        raise ExpiredTokenException("The security token included in the request is expired")


def _find_key(tx: Tx, services: Services, access_key_id: str) -> Found | None:
    key = iam_users.find_access_key(tx, access_key_id)
    secret = None if key is None else access_keys.secret_of(services, key)
    if key is None or secret is None or key.status != "Active":
        return None
    arn = services.account.iam_arn(f"user{key.user_path}{key.user_name}")
    values = _user_values(tx, services, arn, key.user_name, key.user_id)
    documents = iam_users.list_user_documents(tx, key.user_name)
    caller = _caller(services, arn, key.user_id, access_key_id, arn, documents, (), values)
    return Found(secret, caller)


def _find_principal(tx: Tx, services: Services, claims: Claims) -> Caller | None:
    """The user or role behind a session, None when it is gone.

    One of the same name that was made anew has another id.
    """
    account = services.account
    user = iam_users.find_user_of_id(tx, claims.principal_id)
    if user is not None:
        arn = account.iam_arn(f"user{user.path}{user.user_name}")
        values = _user_values(tx, services, arn, user.user_name, user.user_id)
        return _caller(
            services,
            arn,
            user.user_id,
            claims.access_key_id,
            arn,
            iam_users.list_user_documents(tx, user.user_name),
            claims.policies,
            values | _session_values(claims),
            "user",
        )
    role = iam_roles.find_role_of_id(tx, claims.principal_id)
    if role is None:
        return None
    role_arn = account.iam_arn(f"role{role.path}{role.role_name}")
    session = f"{role.role_name}/{claims.session_name}"
    user_id = f"{role.role_id}:{claims.session_name}"
    # a session's tag takes the place of the role's, in whatever spelling
    given = {key.lower() for key in claims.tags}
    own = {k: v for k, v in tags.list_tags(tx, role_arn).items() if k.lower() not in given}
    role_tags = {**own, **claims.tags}
    return _caller(
        services,
        iam_names.session_arn(account, f"assumed-role/{session}"),
        user_id,
        claims.access_key_id,
        role_arn,
        iam_roles.list_role_documents(tx, role.role_name),
        claims.policies,
        _principal_values(services, role_arn, "AssumedRole", user_id, role_tags)
        | _session_values(claims),
        "role",
    )


def _caller(
    services: Services,
    arn: str,
    user_id: str,
    access_key_id: str,
    principal_arn: str,
    documents: Documents,
    session_policies: Sequence[str],
    values: Values,
    session_kind: str = "",
) -> Caller:
    texts = list(documents)
    own = [(name, identity_document(text)) for name, text in texts]
    session = [
        (f"session policy {number}", identity_document(text))
        for number, text in enumerate(session_policies, 1)
    ]
    return Caller(
        services.account.id,
        arn,
        user_id,
        access_key_id,
        compile_policies(own, values),
        compile_policies(session, values) if session else None,
        values,
        principal_arn,
        session_kind,
        sum(map(len, session_policies)) + sum(len(text) for _, text in texts),
    )


def _user_values(tx: Tx, services: Services, arn: str, user_name: str, user_id: str) -> Values:
    found = tags.list_tags(tx, arn)
    values = _principal_values(services, arn, "User", user_id, found)
    return values | {"aws:username": (user_name,)}


def _principal_values(
    services: Services, arn: str, kind: str, user_id: str, found: Mapping[str, str]
) -> Values:
    values = condition_keys.of_principal(services.account, arn, kind, found)
    return values | {"aws:userid": (user_id,)}


def _session_values(claims: Claims) -> Values:
    issued = datetime.fromtimestamp(claims.issued_at, UTC)
    return {
        "aws:TokenIssueTime": (issued.strftime("%Y-%m-%dT%H:%M:%SZ"),),
        # present with temporary credentials alone; there is no second factor here
        "aws:MultiFactorAuthPresent": ("false",),
    }

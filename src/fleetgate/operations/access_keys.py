"""Access keys of IAM users.

A signature can be verified only with the secret access key itself, so it is kept, and encrypted:
AES-256-GCM (NIST SP 800-38D) under a key derived from the server's token key. That key is a file of
the data directory, the database may be elsewhere. The id of the access key is part of what is
authenticated, so that nobody with the database alone gives one key's secret to another.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fleetgate.errors import AccessDeniedException, NoSuchEntity, ValidationError
from fleetgate.operations import iam_names
from fleetgate.operations.call import Call, Services
from fleetgate.store import iam_users
from fleetgate.store.engine import Tx
from fleetgate.store.iam_users import AccessKey

_NONCE = 12
_VERSION = b"\x01"


def secret_of(services: Services, access_key: AccessKey) -> str | None:
    """The secret access key; None when another server's key sealed it."""
    try:
        sealed = base64.b64decode(access_key.sealed_secret, validate=True)
        nonce, body = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        bound = sealed[:1] + access_key.access_key_id.encode()
        return _cipher(services).decrypt(nonce, body, bound).decode()
    except (binascii.Error, ValueError, InvalidTag):
        return None


def seal_secret(services: Services, access_key_id: str, secret: str) -> str:
    """A secret access key as the store keeps it: version, nonce and cipher text, in base64."""
    nonce = services.random_bytes(_NONCE)
    bound = _VERSION + access_key_id.encode()
    sealed = _VERSION + nonce + _cipher(services).encrypt(nonce, secret.encode(), bound)
    return base64.b64encode(sealed).decode("ascii")


def _cipher(services: Services) -> AESGCM:
    return AESGCM(hmac.digest(services.token_key, b"secret access key\0", "sha256"))


async def create_access_key(call: Call, user_name: str | None = None) -> dict[str, Any]:
    """CreateAccessKey: the one answer that tells the secret. Two keys a user at most."""
    if user_name is None and iam_names.is_root(call):
        raise ValidationError(
            "the root user has the one access key of the server's configuration; name a user"
        )
    name = iam_names.named_user(call, user_name)
    services = call.services
    access_key_id = iam_names.new_id(call, "AKIA")
    secret = base64.b64encode(services.random_bytes(30)).decode("ascii")
    sealed = seal_secret(services, access_key_id, secret)
    now = iam_names.seconds(call.now)

    def add(tx: Tx) -> None:
        user = iam_names.require_user(tx, name)
        count = len(iam_users.list_access_keys(tx, user.user_id)) + 1
        iam_names.within("AccessKeysPerUser", services.limits.iam_access_keys, count)
        iam_users.add_access_key(tx, access_key_id, user.user_id, sealed, now)

    await call.write(add)
    call.iam_changed()
    return {
        "AccessKey": {
            "UserName": name,
            "AccessKeyId": access_key_id,
            "Status": "Active",
            "SecretAccessKey": secret,
            "CreateDate": now,
        }
    }


async def list_access_keys(
    call: Call,
    user_name: str | None = None,
    marker: str | None = None,
    max_items: int = iam_names.PAGE,
) -> dict[str, Any]:
    """ListAccessKeys: without the secrets."""
    name = iam_names.named_user(call, user_name)

    def find(tx: Tx) -> list[AccessKey]:
        return iam_users.list_access_keys(tx, iam_names.require_user(tx, name).user_id)

    items, rest = iam_names.page_of_all(
        call,
        "ListAccessKeys",
        await call.read(find),
        marker,
        max_items,
        lambda key: (key.created_at, key.access_key_id),
    )
    described = [
        {
            "UserName": key.user_name,
            "AccessKeyId": key.access_key_id,
            "Status": key.status,
            "CreateDate": key.created_at,
        }
        for key in items
    ]
    return {"AccessKeyMetadata": described} | rest


async def update_access_key(
    call: Call, access_key_id: str, status: str, user_name: str | None = None
) -> dict[str, Any]:
    """UpdateAccessKey: Active or Inactive; an inactive key is refused at the next call."""
    if status == "Expired":
        raise ValidationError(
            f"the status of access key `{access_key_id}` may be set to Active or Inactive, "
            "not `Expired`"
        )
    name = iam_names.named_user(call, user_name)

    def change(tx: Tx) -> None:
        _require_access_key(tx, name, access_key_id)
        iam_users.update_access_key_status(tx, access_key_id, status)

    await call.write(change)
    call.iam_changed()
    return {}


async def delete_access_key(
    call: Call, access_key_id: str, user_name: str | None = None
) -> dict[str, Any]:
    """DeleteAccessKey"""
    name = iam_names.named_user(call, user_name)

    def change(tx: Tx) -> None:
        _require_access_key(tx, name, access_key_id)
        iam_users.remove_access_key(tx, access_key_id)

    await call.write(change)
    call.iam_changed()
    return {}


async def get_access_key_last_used(call: Call, access_key_id: str) -> dict[str, Any]:
    """GetAccessKeyLastUsed: when, for which service and in which region; ``N/A`` when never."""
    key = await call.read(iam_users.find_access_key, access_key_id)
    if key is None:  # AWS's words: nobody may ask for what is not there
        who = call.account.iam_arn("root") if call.caller is None else call.caller.arn
        raise AccessDeniedException(
            f"User: {who} is not authorized to perform iam:GetAccessKeyLastUsed "
            f"on resource: access key {access_key_id}"
        )
    return {
        "UserName": key.user_name,
        "AccessKeyLastUsed": {
            "LastUsedDate": None if key.used_at is None else iam_names.seconds(key.used_at),
            "ServiceName": key.used_service or "N/A",
            "Region": key.used_region or "N/A",
        },
    }


def _require_access_key(tx: Tx, user_name: str, access_key_id: str) -> None:
    user = iam_names.require_user(tx, user_name)
    key = iam_users.find_access_key(tx, access_key_id)
    if key is None or key.user_id != user.user_id:
        raise _no_such_key(access_key_id)


def _no_such_key(access_key_id: str) -> NoSuchEntity:
    return NoSuchEntity(f"The Access Key with id {access_key_id} cannot be found.")

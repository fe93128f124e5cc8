"""The arguments of a journey: whether they can be, and what they mean."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from fleetgate.device import client_ids, disk, identity, journal, protocol, tls
from fleetgate.device import credentials as files
from fleetgate.device.checks import PATH, TEXT_OR_NONE
from fleetgate.device.checks import check as check_type
from fleetgate.device.endpoint import AnyCredentials, Credentials, Endpoint, TokenKey
from fleetgate.device.errors import BadRequest
from fleetgate.device.exchange import Terms
from fleetgate.device.identity import Identity
from fleetgate.device.journal import Goal, Purpose
from fleetgate.device.keys import KeyKind
from fleetgate.device.plan import Connect, Key
from fleetgate.device.retry import Retries

_KEYS = {*get_args(KeyKind), "server"}
_WITHOUT_TOKENS = {
    "fleetgate.device.paho_client": "paho-mqtt",
    "fleetgate.device.aiomqtt_client": "aiomqtt",
}
"""Adapters by Python's TLS, which needs the key itself."""

_NONE = type(None)
_TYPES: dict[str, tuple[type, ...]] = {
    "endpoint": (Endpoint,),
    "claim": (Credentials, TokenKey),
    "template": (str,),
    "out": PATH,
    "key": (str, identity.KeyOnToken),
    "subject": TEXT_OR_NONE,
    "terms": (Terms,),
    "retries": (Retries,),
    "token_seconds": (float,),
    "begin_anew": (bool,),
    "keep_key": (bool,),
    "new_thing": (bool,),
    "connect": (Callable, _NONE),  # type: ignore[dict-item]
    "progress": (Callable, _NONE),  # type: ignore[dict-item]
}

_LONGEST_TOKEN = 4096
"""Bytes of an ownership token that there has to be room for; AWS IoT's have some hundreds."""


def check_types(out: object, **given: object) -> None:
    """Raises BadRequest for the argument that is none of those that it may be."""
    try:
        for name, value in {"out": out, **given}.items():
            check_type(name, value, *_TYPES[name])
        if out == "":
            raise BadRequest("`out` is empty: it has to be the path of a directory")
    except BadRequest as error:
        error.at("prepare")
        raise


def goal_of(
    purpose: Purpose,
    endpoint: Endpoint,
    template: str,
    parameters: Mapping[Any, Any],
    terms: Terms,
) -> Goal:
    """What the journey is for. Raises BadRequest, also when it would be too much for a message."""
    check_type("parameters", parameters, Mapping, secret=True)
    for name, value in parameters.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise BadRequest(f"the parameter `{name!s:.80}` is not a text: {type(value).__name__}")
        _check_text("the name of a parameter", name)
        _check_text(f"the parameter `{name:.80}`", value)
    request = protocol.register_request("-" * _LONGEST_TOKEN, parameters)
    try:
        protocol.encode(terms.payload_format, request)
    except BadRequest as error:
        raise BadRequest(
            f"the parameters are too large to be sent with a token of up to {_LONGEST_TOKEN} "
            f"bytes: {error.message}"
        ) from error
    return Goal(purpose, endpoint.host, endpoint.port, template, journal.digest(parameters))


def _check_text(what: str, value: str) -> None:
    """Raises BadRequest when it cannot be UTF-8 (a lone surrogate), as all that is sent is."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRequest(f"{what} {value!a:.80} is no Unicode text: {error.reason}") from None


def digest_of(goal: Goal) -> str:
    """What ``config.json`` says of the goal: SHA-256, hexadecimal."""
    text = "\0".join((goal.endpoint, str(goal.port), goal.template, goal.parameters))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def authorities_of(endpoint: Endpoint) -> bytes | None:
    """The content of the endpoint's CA file. Raises ConnectionFailed."""
    if endpoint.ca is None:
        return None
    files.explain_authorities(endpoint.ca)
    return files.read(endpoint.ca, "the authorities in")


def check(
    key: object,
    client_id: object,
    own_client_id: object,
    terms: Terms,
    token_seconds: float,
    template: str,
) -> None:
    """Raises BadRequest, and StorageRefused for the file with a PIN."""
    protocol.register_thing(template, terms.payload_format)
    if isinstance(key, identity.KeyOnToken):
        for name, kinds in (("module", PATH), ("token", (str,)), ("key", (str,))):
            check_type(name, getattr(key, name), *kinds)
        check_type("pin_file", key.pin_file, Path)
        disk.check_secret(key.pin_file, "the PIN in")
    elif key not in _KEYS:
        raise BadRequest(f"`{key!s:.80}` is no kind of key: {', '.join(get_args(KeyKind))}")
    if not 0 < token_seconds < math.inf:
        raise BadRequest(f"a token lives longer than 0 seconds and ends, not {token_seconds!r:.80}")
    for name, value in (("client_id", client_id), ("own_client_id", own_client_id)):
        if value is not None and (not isinstance(value, str) or not value):
            raise BadRequest(f"`{name}` is {value!r:.80}, no text with characters in it")
        if value is not None:
            _check_text(f"`{name}`", value)
            client_ids.check(value)


def is_gone(claim: AnyCredentials) -> bool:
    """Whether the claim's files have been taken away."""
    files_of = [claim.certificate, *([claim.key] if isinstance(claim, Credentials) else [])]
    return not all(Path(each).exists() for each in files_of)


def check_claim(endpoint: Endpoint, claim: AnyCredentials, retries: Retries) -> Retries:
    """Raises ConnectionFailed and StorageRefused; the retries that the claim's files allow."""
    if not isinstance(claim, Credentials):
        disk.check_secret(Path(claim.pin_file), "the PIN in")
        return retries
    disk.check_key(Path(claim.key))
    if files.has_pipe([claim.certificate, claim.key]):
        return replace(retries, attempts=1)  # it can be read once
    if endpoint.ca is not None and not files.has_pipe([endpoint.ca]):
        tls.check(endpoint.ca, claim.certificate, claim.key)
    return retries


def strangers(endpoint: Endpoint, claim: AnyCredentials, out: Path) -> list[Path]:
    """What must survive: the files given, but authorities that a former run has stored in `out`."""
    found = [Path(claim.certificate)]
    if isinstance(claim, Credentials):
        found.append(Path(claim.key))
    if endpoint.ca is not None:
        ca = Path(endpoint.ca)
        number = identity.number_of(ca.parent.name)
        if number is None or ca != out / identity.name_of(number) / identity.CA:
            found.append(ca)
    return found


def next_key(present: Identity, keep_key: bool, key: Key | None) -> Key | Literal["kept"]:
    """What a renewal's certificate is for; see :func:`renew`."""
    if keep_key or (key is None and present.token is not None):
        return "kept"
    if key is not None:
        return key
    return cast("KeyKind", present.key_kind) if present.key_kind in _KEYS else "P-256"


def next_client_id(present: Identity, new_thing: bool) -> str | None:
    """That of a renewed identity, when none is chosen; None for the thing's name."""
    return None if new_thing and present.client_id == present.thing_name else present.client_id


def check_key(
    key: object, subject: str | None, connect: Connect | None, by: AnyCredentials
) -> None:
    """Raises BadRequest when the key has no use for `subject`, or `connect` none for the keys."""
    if key == "server" and subject is not None:
        raise BadRequest("a subject is for a signing request: there is none for the server's key")
    module = getattr(connect, "__module__", None)
    on_token = isinstance(key, identity.KeyOnToken) or not isinstance(by, Credentials)
    if on_token and module in _WITHOUT_TOKENS:
        raise BadRequest(
            f"a key on a PKCS#11 token cannot be used by {_WITHOUT_TOKENS[module]}: connect with "
            "awscrt, which is the default for it"
        )

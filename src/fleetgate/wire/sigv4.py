"""Signature Version 4: whether a request was signed with a given secret, for here and for now.

Theory of operation. :func:`parse_authorization` reads what a request says about its signature,
from the Authorization header or from the ``X-Amz-*`` fields of a presigned query, and puts the
request into canonical form. The caller looks up the secret by ``access_key`` (and
``security_token``) and passes it to :func:`check`, which needs no body and so comes before one
is read, then to :func:`verify`. Deriving a signing key takes four HMACs and its outcome holds
for a day, so derived keys are kept in a small bounded cache.

Source: AWS General Reference / IAM User Guide, "Create a signed AWS API request" and
"Troubleshoot Signature Version 4"; the texts of the errors are AWS's where they are known.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from fleetgate.errors import (
    IncompleteSignatureException,
    InvalidSignatureException,
    MissingAuthenticationTokenException,
    UnrecognizedClientException,
)
from fleetgate.wire import timestamps

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"
SKEW = 15 * 60
"""Seconds the clock of a caller may be off, in either direction."""
LONGEST_EXPIRY = 7 * 24 * 60 * 60
"""Seconds a presigned request may hold."""

_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details."
)
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)+")
"""A path that is its own canonical form: no empty segment, no dot segment, nothing to encode."""
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_QUERY_FIELDS = (
    *("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date"),
    *("X-Amz-Expires", "X-Amz-SignedHeaders", "X-Amz-Signature"),
)
# A tracing proxy on the way adds this one, so signers leave it out.
_NEVER_SIGNED = frozenset({"x-amzn-trace-id"})


@dataclass(frozen=True, slots=True)
class Signed:
    """What a request says about its signature. Nothing in it is verified yet.

    ``security_token`` is there with temporary credentials. ``signed_at`` is in seconds since
    the epoch; ``expires`` (seconds after that) is there when the request is presigned.
    ``content_sha256`` is the header of that name. ``canonical`` is the canonical request but
    for its last line, the hash of the body.
    """

    access_key: str
    security_token: str | None
    date: str
    region: str
    service: str
    terminator: str
    timestamp: str
    signed_at: float
    expires: int | None
    signature: str
    content_sha256: str | None
    canonical: str


def parse_authorization(
    method: str,
    path: str,
    query: Sequence[tuple[str, str]],
    headers: Sequence[tuple[str, str]],
) -> Signed:
    """The signature of a request.

    `path` is as it arrived (percent-encoded); `query` has the decoded fields in their order
    (``restjson.parse_query``), `headers` all headers in their order, repeated ones too. Header
    values are text decoded from UTF-8, with ``surrogateescape`` for what is not UTF-8.

    Raises MissingAuthenticationTokenException when the request is not signed at all,
    IncompleteSignatureException when what it says is not complete or not well formed, and
    InvalidSignatureException when too little of the request is signed.
    """
    grouped: dict[str, list[str]] = {}
    for name, value in headers:
        grouped.setdefault(name.lower(), []).append(value)
    fields = _presigned_fields(query)
    if "authorization" in grouped:
        if fields:
            raise IncompleteSignatureException(
                "the request is signed twice, by the Authorization header and by its query"
            )
        said = _authorization(_only(grouped, "authorization") or "")
        timestamp, signed_at = _header_date(grouped)
        token = _only(grouped, "x-amz-security-token")
        expires = None
        signed_query = query
    elif fields:
        said = {name[6:]: fields[name] for name in _QUERY_FIELDS}
        if said["Algorithm"] != ALGORITHM:
            raise IncompleteSignatureException(
                f"Unsupported AWS 'algorithm': '{said['Algorithm'][:80]}'."
            )
        timestamp = said["Date"]
        signed_at = _moment(timestamp)
        token = fields.get("X-Amz-Security-Token")
        expires = _expiry(said["Expires"])
        signed_query = [field for field in query if field[0] != "X-Amz-Signature"]
    else:
        raise MissingAuthenticationTokenException("Missing Authentication Token")

    scope = said["Credential"].rsplit("/", 4)
    if len(scope) != 5 or not all(scope) or not said["Credential"].isascii():
        raise IncompleteSignatureException(
            "Credential must have exactly 5 slash-delimited elements, e.g. "
            f"keyid/date/region/service/term, got '{said['Credential'][:80]}'"
        )
    if token is not None and not token.isascii():
        raise IncompleteSignatureException("the security token is not ASCII")
    if _SIGNATURE.fullmatch(said["Signature"]) is None:
        raise IncompleteSignatureException("the signature is not 64 lower-case hex digits")
    return Signed(
        access_key=scope[0],
        security_token=token,
        date=scope[1],
        region=scope[2],
        service=scope[3],
        terminator=scope[4],
        timestamp=timestamp,
        signed_at=signed_at,
        expires=expires,
        signature=said["Signature"],
        content_sha256=_only(grouped, "x-amz-content-sha256"),
        canonical=_canonical(method, path, signed_query, grouped, said["SignedHeaders"]),
    )


def check(signed: Signed, secret_key: str | None, *, now: float, region: str, service: str) -> str:
    """The secret key, when the request says that it was signed by somebody known, for this
    service, now. Whether that is true is for :func:`verify`.

    `secret_key` is None when the access key (with its security token) is unknown; `now` is in
    seconds since the epoch.

    Raises UnrecognizedClientException for an unknown access key, else
    InvalidSignatureException.
    """
    if secret_key is None:
        raise UnrecognizedClientException("The security token included in the request is invalid.")
    _check_scope(signed, region, service)
    _check_time(signed, now)
    return secret_key


def verify(
    signed: Signed,
    secret_key: str | None,
    *,
    body_sha256: str,
    now: float,
    region: str,
    service: str,
) -> None:
    """Return when the request was signed with `secret_key`, for this service, now.

    `body_sha256` is the hash of the body as it arrived, in lower-case hex; the others, and the
    errors, are those of :func:`check`.
    """
    secret_key = check(signed, secret_key, now=now, region=region, service=service)
    if signed.content_sha256 is not None and signed.content_sha256 != body_sha256:
        raise InvalidSignatureException(
            "the x-amz-content-sha256 header is not the SHA-256 of the body; "
            "unsigned and streamed bodies are not accepted"
        )
    canonical = f"{signed.canonical}\n{body_sha256}"
    hashed = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
    scope = f"{signed.date}/{signed.region}/{signed.service}/{TERMINATOR}"
    text = f"{ALGORITHM}\n{signed.timestamp}\n{scope}\n{hashed}"
    mac = _signing_mac(secret_key, signed.date, signed.region, signed.service).copy()
    mac.update(text.encode())
    if not hmac.compare_digest(mac.hexdigest(), signed.signature):
        raise InvalidSignatureException(_MISMATCH)


@lru_cache(maxsize=256)
def _signing_mac(secret_key: str, date: str, region: str, service: str) -> hmac.HMAC:
    """The MAC under the signing key of a day, to be copied: making one costs more than using it."""
    key = ("AWS4" + secret_key).encode()
    for part in (date, region, service, TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, digestmod="sha256")


# --- what the request says --------------------------------------------------------------------


def _presigned_fields(query: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The ``X-Amz-*`` fields of a presigned query; empty when the query is not signed."""
    fields: dict[str, str] = {}
    for name, value in query:
        if name in _QUERY_FIELDS or name == "X-Amz-Security-Token":
            if name in fields:
                raise IncompleteSignatureException(f"{name} is in the query more than once")
            fields[name] = value
    if "X-Amz-Signature" not in fields and "X-Amz-Algorithm" not in fields:
        return {}
    missing = [name for name in _QUERY_FIELDS if name not in fields]
    if missing:
        raise IncompleteSignatureException(
            f"AWS query-string parameters must include '{missing[0]}'."
        )
    return fields


def _authorization(header: str) -> dict[str, str]:
    """The parts of the Authorization header: Credential, SignedHeaders, Signature."""
    algorithm, _, rest = header.strip().partition(" ")
    if algorithm != ALGORITHM:
        raise IncompleteSignatureException(
            f"Unsupported AWS 'algorithm': '{algorithm[:80]}' (only {ALGORITHM} is accepted)."
        )
    said: dict[str, str] = {}
    for part in rest.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name in said:
            raise IncompleteSignatureException(
                f"'{part.strip()[:80]}' not a valid key=value pair (missing equal-sign or "
                "repeated) in Authorization header."
            )
        said[name] = value
    missing = [name for name in ("Credential", "Signature", "SignedHeaders") if not said.get(name)]
    if missing:
        raise IncompleteSignatureException(
            " ".join(f"Authorization header requires '{name}' parameter." for name in missing)
        )
    return said


def _header_date(grouped: dict[str, list[str]]) -> tuple[str, float]:
    """The time of signing: X-Amz-Date, or Date where that is absent."""
    timestamp = _only(grouped, "x-amz-date")
    if timestamp is not None:
        return timestamp, _moment(timestamp)
    date = _only(grouped, "date")
    if date is None:
        raise IncompleteSignatureException(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
        )
    try:
        signed_at = timestamps.from_http_date(date.strip())
    except ValueError:
        return date, _moment(date)
    return timestamps.to_basic(signed_at), signed_at


def _moment(timestamp: str) -> float:
    try:
        return timestamps.from_basic(timestamp)
    except (ValueError, OverflowError):
        raise IncompleteSignatureException(
            "Date must be in ISO-8601 'basic format'. "
            f"Got '{timestamp[:80]}'. See http://en.wikipedia.org/wiki/ISO_8601"
        ) from None


def _expiry(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= LONGEST_EXPIRY:
        return int(text)
    raise InvalidSignatureException(
        f"X-Amz-Expires must be between 1 and {LONGEST_EXPIRY} seconds, got '{text[:80]}'"
    )


def _only(grouped: dict[str, list[str]], name: str) -> str | None:
    values = grouped.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise IncompleteSignatureException(f"the header {name} is there more than once")
    return values[0]


# --- the canonical request --------------------------------------------------------------------


def _canonical(
    method: str,
    path: str,
    query: Sequence[tuple[str, str]],
    grouped: dict[str, list[str]],
    signed_headers: str,
) -> str:
    names = signed_headers.split(";")
    if names != sorted(set(names)) or signed_headers != signed_headers.lower():
        raise IncompleteSignatureException(
            f"SignedHeaders must be in lower case, sorted and unique, got '{signed_headers[:80]}'"
        )
    if "host" not in names:
        raise InvalidSignatureException(
            "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."
        )
    for name in grouped:
        # `x-amzn-*` are members of operations (x-amzn-principal): to change one is to ask for
        # something else.
        amazons = name.startswith(("x-amz-", "x-amzn-")) and name not in _NEVER_SIGNED
        if amazons and name not in names:
            raise InvalidSignatureException(
                f"'{name[:80]}' must be a 'SignedHeader' in the AWS Authorization."
            )
    missing = [name for name in names if name not in grouped]
    if missing:
        raise InvalidSignatureException(f"the signed header '{missing[0][:80]}' is not there")
    lines = [f"{name}:{','.join(map(_folded, grouped[name]))}\n" for name in names]
    fields = sorted((_encoded(name), _encoded(value)) for name, value in query)
    return "\n".join(
        (
            method.upper(),
            _canonical_path(path),
            "&".join(f"{name}={value}" for name, value in fields),
            "".join(lines),
            signed_headers,
        )
    )


def _canonical_path(path: str) -> str:
    """The path without dot segments and empty ones, encoded once more (RFC 3986 section 5.2.4;
    every service but S3 encodes what already is encoded)."""
    if _PLAIN_PATH.fullmatch(path):
        return path
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            segments = segments[:-1]
        elif segment and segment != ".":
            segments.append(segment)
    trailing = "/" if segments and path.endswith("/") else ""
    return quote("/" + "/".join(segments) + trailing, safe="/~", errors="surrogateescape")


def _encoded(text: str) -> str:
    return quote(text, safe="-_.~")


def _folded(value: str) -> str:
    return " ".join(value.split()) if " " in value or not value.isprintable() else value


# --- whether it is for here and now -----------------------------------------------------------


def _check_scope(signed: Signed, region: str, service: str) -> None:
    if signed.terminator != TERMINATOR:
        raise InvalidSignatureException(
            f"Credential should be scoped with a valid terminator: '{TERMINATOR}', "
            f"not '{signed.terminator[:80]}'."
        )
    if signed.region != region:
        raise InvalidSignatureException(
            f"Credential should be scoped to a valid region, not '{signed.region[:80]}' "
            f"(this server serves '{region}')."
        )
    if signed.service != service:
        raise InvalidSignatureException(
            f"Credential should be scoped to correct service: '{service}', "
            f"not '{signed.service[:80]}'."
        )
    if signed.date != signed.timestamp[:8]:
        raise InvalidSignatureException(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date "
            f"from HTTP: '{signed.date[:80]}' != '{signed.timestamp[:8]}', "
            f"from '{signed.timestamp}'."
        )


def _check_time(signed: Signed, now: float) -> None:
    if signed.signed_at > now + SKEW:
        raise InvalidSignatureException(
            f"Signature not yet current: {signed.timestamp} is still later than "
            f"{timestamps.to_basic(now + SKEW)} ({timestamps.to_basic(now)} + 15 min.)"
        )
    if signed.expires is not None:
        last = signed.signed_at + signed.expires
        if now > last:
            raise InvalidSignatureException(
                f"Signature expired: {timestamps.to_basic(last)} is now earlier than "
                f"{timestamps.to_basic(now)}"
            )
    elif signed.signed_at < now - SKEW:
        raise InvalidSignatureException(
            f"Signature expired: {signed.timestamp} is now earlier than "
            f"{timestamps.to_basic(now - SKEW)} ({timestamps.to_basic(now)} - 15 min.)"
        )

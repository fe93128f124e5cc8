"""`step-ca`: a certificate provider that lets Smallstep's step-ca sign.

A request is sent with a one-time token: a JWT that the key of a JWK provisioner signs, so that
step-ca knows who vouches for the device. Its own template says what a certificate looks like; the
default one takes the subject from the token, so the provisioner needs a template that keeps the
request's (docs/built-in-functions.md).

Source: smallstep/certificates, api/sign.go (SignRequest, SignResponse),
authority/provisioner/jwk.go (claims, who is found by issuer and key id) and sign_options.go
(commonNameValidator: the common name is the token's subject); smallstep/clients, python/sign.py.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from joserfc import jwk, jwt
from joserfc.errors import JoseError

from fleetgate.functions.https import HttpsServer, Resolve, resolve
from fleetgate.functions.key_file import read_private_key
from fleetgate.functions.options import Options, read_file
from fleetgate.functions.signing import Refused
from fleetgate.functions.signing_service import (
    TTL,
    TTL_RULE,
    Asked,
    SigningService,
    ask,
    pem_text,
    read_server,
    refusal,
)

_PATH = "/1.0/sign"
_TOKEN_LIFETIME = timedelta(minutes=5)  # as `step ca token` makes them
_KINDS: Mapping[str, type[jwk.ECKey | jwk.RSAKey]] = {"EC": jwk.ECKey, "RSA": jwk.RSAKey}
_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}  # RFC 7518 section 3.1


def from_options(
    name: str,
    options: Mapping[str, object],
    directory: Path,
    *,
    resolve: Resolve = resolve,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
) -> SigningService:
    """The function called `name`; relative paths are relative to `directory`.

    Raises ValueError naming option, rule and value. The server is not asked yet.
    """
    read = Options(options, directory)
    ca_file = Options(options, directory).optional_path("ca_file")
    server = read_server(read, resolve)
    provisioner = read.text("provisioner", rule="the name of a JWK provisioner is expected")
    key = _key(read.path("key"), read.optional_path("passphrase_file"))
    key_id = read.optional("key_id") or str(key.kid or key.thumbprint())
    ttl = read.optional("ttl", pattern=TTL, rule=TTL_RULE)
    chain = read.flag("chain")
    read.finished()
    step_ca = _StepCa(
        server,
        key,
        {"alg": _algorithm(key), "kid": key_id},
        provisioner=provisioner,
        ttl=ttl,
        chain=chain,
        fingerprint=_fingerprint(ca_file),
        now=now,
        new_id=new_id,
    )
    return SigningService(
        name, f"builtin:step-ca {server.url.authority} {provisioner}", step_ca.sign
    )


class _StepCa:
    """A step-ca and what vouches for devices there."""

    def __init__(
        self,
        server: HttpsServer,
        key: jwk.ECKey | jwk.RSAKey,
        header: Mapping[str, str],
        *,
        provisioner: str,
        ttl: str,
        chain: bool,
        fingerprint: str,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._server = server
        self._key = key
        self._header = header
        self._provisioner = provisioner
        self._ttl = ttl
        self._chain = chain
        self._fingerprint = fingerprint
        self._now = now
        self._new_id = new_id

    async def sign(self, request: Asked, request_id: str, seconds: float) -> str:
        body = {"csr": request.csr_pem, "ott": self._token(_common_name(request))}
        if self._ttl:
            body["notAfter"] = self._ttl
        headers = {"X-Request-Id": request_id}
        response, answer = await ask(self._server, _PATH, body, headers, seconds)
        certificate = pem_text(answer.get("crt")) if response.status in (200, 201) else ""
        if not certificate:
            said = str(answer.get("message") or "")
            raise refusal("StepCaError", self._server, _PATH, response, said)
        if not self._chain:
            return certificate
        above = answer.get("certChain")
        above = above[1:] if isinstance(above, list) and len(above) > 1 else [answer.get("ca")]
        return certificate + "".join(pem_text(each) for each in above)

    def _token(self, common_name: str) -> str:
        now = self._now()
        claims: dict[str, Any] = {
            "aud": f"{str(self._server.url).rstrip('/')}{_PATH}",
            "iss": self._provisioner,
            "sub": common_name,
            "sans": [common_name],
            "jti": self._new_id(),
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int((now + _TOKEN_LIFETIME).timestamp()),
        }
        if self._fingerprint:
            claims["sha"] = self._fingerprint
        return jwt.encode(dict(self._header), claims, self._key, [self._header["alg"]])


def _common_name(request: Asked) -> str:
    names = request.csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not names or not names[-1].value:
        raise Refused(
            "NoCommonName",
            "step-ca wants a token with a subject, which is the request's common name; this "
            "request has none",
        )
    return str(names[-1].value)  # the last one, as Go reads it


def _key(path: Path, passphrase_file: Path | None) -> jwk.ECKey | jwk.RSAKey:
    """The provisioner's key: a JWK (JSON) or PEM. Raises ValueError."""
    content = read_file("`key`", path, secret=True)
    if content.lstrip()[:1] != b"{":
        private = read_private_key(path, passphrase_file)
        text = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        if isinstance(private, rsa.RSAPrivateKey):
            return jwk.RSAKey.import_key(text)
        return _known(path, jwk.ECKey.import_key(text))
    if passphrase_file is not None:
        raise ValueError(f"`key`: `{path}` is a JWK, but `passphrase_file` is given")
    key = None
    try:
        members = json.loads(content)
        if members.get("kty") in _KINDS:
            key = _KINDS[members["kty"]].import_key(members)
    except (ValueError, TypeError, KeyError, JoseError):
        pass
    if key is None or not key.is_private:
        raise ValueError(
            f"`key`: `{path}` is no private RSA or EC key as JWK; `step crypto jwk decrypt` "
            "decrypts an encrypted one"
        )
    return _known(path, key)


def _known(path: Path, key: jwk.ECKey | jwk.RSAKey) -> jwk.ECKey | jwk.RSAKey:
    if isinstance(key, jwk.ECKey) and key.curve_name not in _ALGORITHMS:
        raise ValueError(
            f"`key`: `{path}` needs one of the curves {', '.join(_ALGORITHMS)}, "
            f"not `{key.curve_name}`"
        )
    return key


def _algorithm(key: jwk.ECKey | jwk.RSAKey) -> str:
    return _ALGORITHMS[key.curve_name] if isinstance(key, jwk.ECKey) else "RS256"


def _fingerprint(ca_file: Path | None) -> str:
    """The SHA-256 of the root certificate, which `step` puts into tokens."""
    if ca_file is None:
        return ""
    root = x509.load_pem_x509_certificate(read_file("`ca_file`", ca_file))
    return root.fingerprint(hashes.SHA256()).hex()

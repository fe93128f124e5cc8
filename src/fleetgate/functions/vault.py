"""`vault`: a certificate provider that lets HashiCorp Vault or OpenBao sign.

One request to their PKI secrets engine for each certificate, over `https` with all its limits. The
token is read from its file for every request: Vault Agent renews it there; nothing here logs in.

``sign`` lets a role decide what a certificate looks like, but takes no more than the common name
from a request. ``sign-verbatim`` copies the request: its whole subject, and its extensions too.
Extensions that devices choose are not wanted here, so a request that has some is refused unless
the operator says otherwise.

Source: Vault and OpenBao, "PKI secrets engine (API)", Sign certificate and Sign verbatim; "HTTP
API", error response; the answers of OpenBao 2.7.2.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509

from fleetgate.functions.https import HttpsServer, Resolve, resolve
from fleetgate.functions.options import Options, read_secret
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

_PATH = r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*"
_USAGES = ("DigitalSignature",)
_PURPOSES = ("ClientAuth",)


def from_options(
    name: str,
    options: Mapping[str, object],
    directory: Path,
    *,
    resolve: Resolve = resolve,
) -> SigningService:
    """The function called `name`; relative paths are relative to `directory`.

    Raises ValueError naming option, rule and value. The server is not asked yet.
    """
    read = Options(options, directory)
    server = read_server(read, resolve)
    mount = read.text("mount", "pki", pattern=_PATH, rule="the path of a PKI engine is expected")
    endpoint = read.text(
        "endpoint",
        "sign-verbatim",
        pattern="sign|sign-verbatim",
        rule="`sign` or `sign-verbatim` is expected",
    )
    role = read.optional("role", pattern=r"[A-Za-z0-9_.-]{1,255}", rule="a role is expected")
    if endpoint == "sign" and not role:
        raise ValueError("`role` is required with `endpoint` = `sign`")
    token_file = read.path("token_file")
    namespace = read.optional(
        "namespace", pattern=f"{_PATH}/?", rule="the path of a namespace is expected"
    )
    ttl = read.optional("ttl", pattern=TTL, rule=TTL_RULE)
    extensions = read.flag("extensions")
    body: dict[str, object] = {"format": "pem", **({"ttl": ttl} if ttl else {})}
    if endpoint == "sign":
        body["exclude_cn_from_sans"] = True
        if extensions:
            raise ValueError("`extensions` goes with `sign-verbatim`; with `sign` the role decides")
        if read.given("key_usage") or read.given("extended_key_usage"):
            raise ValueError("`key_usage` and `extended_key_usage` are the role's with `sign`")
    else:
        body["key_usage"] = read.texts("key_usage", _USAGES)
        body["ext_key_usage"] = read.texts("extended_key_usage", _PURPOSES)
    chain = read.flag("chain")
    read.finished()
    read_secret("`token_file`", token_file, group=True)
    path = os.path.join("/v1", mount, endpoint, role).rstrip("/")  # noqa: PTH118 - of a URL
    vault = _Vault(
        server,
        path,
        body,
        token_file=token_file,
        namespace=namespace,
        extensions=extensions or endpoint == "sign",
        chain=chain,
    )
    return SigningService(
        name, f"builtin:vault {server.url.authority} {path.removeprefix('/v1/')}", vault.sign
    )


class _Vault:
    """A PKI secrets engine, and how it is asked."""

    def __init__(
        self,
        server: HttpsServer,
        path: str,
        body: Mapping[str, object],
        *,
        token_file: Path,
        namespace: str,
        extensions: bool,
        chain: bool,
    ) -> None:
        self._server = server
        self._path = path
        self._body = body
        self._token_file = token_file
        self._namespace = namespace
        self._extensions = extensions
        self._chain = chain

    async def sign(self, request: Asked, _request_id: str, seconds: float) -> str:
        if not self._extensions:
            _check_extensions(request)
        body = {**self._body, "csr": request.csr_pem}
        response, answer = await ask(self._server, self._path, body, self._headers(), seconds)
        found = answer.get("data")
        found = found if response.status == 200 and isinstance(found, dict) else {}
        certificate = pem_text(found.get("certificate"))
        if not certificate:
            errors = answer.get("errors")
            said = "; ".join(str(each) for each in errors) if isinstance(errors, list) else ""
            raise refusal("VaultError", self._server, self._path, response, said)
        if not self._chain:
            return certificate
        above = found.get("ca_chain")
        above = above if isinstance(above, list) and above else [found.get("issuing_ca")]
        return certificate + "".join(pem_text(each) for each in above)

    def _headers(self) -> dict[str, str]:
        try:
            token = read_secret("`token_file`", self._token_file, group=True).strip()
        except ValueError as error:
            raise Refused("VaultToken", str(error)) from None
        if not token.isascii() or not token.isprintable():
            raise Refused("VaultToken", f"`{self._token_file}` does not hold a token")
        headers = {
            "X-Vault-Token": token,
            # Vault Agent and proxies want it: it proves that no browser was tricked into asking
            "X-Vault-Request": "true",
        }
        if self._namespace:
            headers["X-Vault-Namespace"] = self._namespace
        return headers


def _check_extensions(request: Asked) -> None:
    try:
        found = x509.load_pem_x509_csr(request.csr_pem.encode("utf-8")).extensions
    except ValueError as error:
        raise Refused("InvalidCsr", f"the extensions asked for cannot be read: {error}") from None
    if len(found):
        raise Refused(
            "ExtensionsAskedFor",
            "the request asks for extensions, which sign-verbatim would put into the certificate: "
            + ", ".join(each.oid.dotted_string for each in found)
            + '; `extensions = true` lets it, `endpoint = "sign"` leaves them to a role',
        )

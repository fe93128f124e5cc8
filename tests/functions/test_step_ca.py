"""`step-ca`, against a server that checks and answers as step-ca's source does.

Source: smallstep/certificates: api/sign.go; authority/provisioner/collection.go (the provisioner is
found by ``iss`` and ``kid``), jwk.go (authorizeToken), sign_options.go (commonNameValidator,
dnsNamesValidator); errs: ``{"status": 401, "message": "..."}``.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from joserfc import jwk, jwt
from joserfc.errors import JoseError

from fleetgate.functions import step_ca
from fleetgate.functions.target import Failure, FunctionError, Run
from fleetgate.pki import issue
from fleetgate.pki.operator_authority import OperatorAuthority
from tests.functions import authorities
from tests.functions.authorities import NOW, Files, event
from tests.functions.https_server import Asked, Authority, local, response, serving

PROVISIONER = "fleetgate"
PROFILE = issue.Profile(x509.Name([]), timedelta(minutes=1), timedelta(hours=8760))


class StepCaServer:
    """What a request to step-ca comes to: status and answer."""

    def __init__(self, ca: Files, key: jwk.Key, kid: str, audience: str) -> None:
        self.ca, self.key, self.kid, self.audience = ca, key, kid, audience
        self.used: set[str] = set()
        self.claims: dict[str, Any] = {}
        self.body: dict[str, Any] = {}

    def sign(self, asked: Asked) -> tuple[str, dict[str, Any]]:
        self.body = json.loads(asked.body)
        if asked.line != "POST /1.0/sign HTTP/1.1":
            return "404 Not Found", {"status": 404, "message": "resource not found"}
        csr = x509.load_pem_x509_csr(self.body["csr"].encode())
        try:
            token = jwt.decode(self.body["ott"], self.key, ["ES256", "ES384", "ES512", "RS256"])
        except JoseError:
            return self._unauthorized()
        claims = self.claims = token.claims
        moment = int(NOW.timestamp())
        if (
            (claims["iss"], token.header["kid"]) != (PROVISIONER, self.kid)
            or claims["aud"] != self.audience
            or not claims["nbf"] - 60 <= moment <= claims["exp"] + 60
            or claims["jti"] in self.used
        ):
            return self._unauthorized()
        self.used.add(claims["jti"])
        names = [str(each.value) for each in csr.subject if each.oid == NameOID.COMMON_NAME]
        if names and names[-1] != claims["sub"]:
            return self._forbidden("certificate request does not contain the valid common name")
        try:
            wanted = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            wanted = x509.SubjectAlternativeName([])
        dns = wanted.get_values_for_type(x509.DNSName)
        if dns and set(dns) != set(claims["sans"]):
            return self._forbidden("certificate request does not contain the valid DNS names")
        return "201 Created", self._signed(csr)

    def _signed(self, csr: x509.CertificateSigningRequest) -> dict[str, Any]:
        key = csr.public_key()
        assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
        authority = OperatorAuthority(self.ca.certificate, self.ca.key)
        der = issue.issue(PROFILE, authority, key, csr.subject, now=NOW, serial=7)
        leaf = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()
        above = self.ca.certificate.public_bytes(Encoding.PEM).decode()
        return {"crt": leaf, "ca": above, "certChain": [leaf, above]}

    def _unauthorized(self) -> tuple[str, dict[str, Any]]:
        said = "The request lacked necessary authorization to be completed."
        return "401 Unauthorized", {"status": 401, "message": said}

    def _forbidden(self, why: str) -> tuple[str, dict[str, Any]]:
        said = f"The request was forbidden by the certificate authority: {why}"
        return "403 Forbidden", {"status": 403, "message": said}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def jwk_file(directory: Path, key: jwk.Key, **members: str) -> str:
    """The key as `step crypto jwk decrypt` writes it."""
    file = directory / "provisioner.json"
    file.write_text(json.dumps({**key.as_dict(private=True), **members}))
    file.chmod(0o600)
    return file.name


async def exchange(
    requests: list[str],
    tls: Authority,
    directory: Path,
    key: jwk.Key,
    kid: str,
    /,
    *,
    now: datetime = NOW,
    ids: Callable[[], str] = lambda: str(uuid.uuid4()),
    **options: Any,
) -> tuple[list[Run], StepCaServer]:
    """What the function answers to requests."""
    there: list[StepCaServer] = []

    async def answer(asked: Asked, writer: asyncio.StreamWriter) -> None:
        status, said = there[0].sign(asked)
        writer.write(response(json.dumps(said).encode(), status))

    async with serving(answer, tls.issue("ca.example")) as server:
        address = f"https://ca.example:{server.port}"
        there.append(StepCaServer(authorities.make(directory), key, kid, f"{address}/1.0/sign"))
        mine = step_ca.from_options(
            "mine",
            {
                "address": address,
                "provisioner": PROVISIONER,
                "key": "provisioner.json",
                "ca_file": str(tls.file),
                "allow_networks": ["127.0.0.1"],
                **options,
            },
            directory,
            resolve=local,
            now=lambda: now,
            new_id=ids,
        )
        runs = [await mine.invoke(event(each), request_id="r-1", seconds=5) for each in requests]
        return runs, there[0]


@contextmanager
def provisioner(directory: Path) -> Iterator[tuple[jwk.ECKey, str]]:
    key = jwk.ECKey.generate_key("P-256")
    jwk_file(directory, key, kid="the-kid", alg="ES256", use="sig")
    yield key, "the-kid"


def test_a_request_goes_with_a_token_of_its_own(tls: Authority, tmp_path: Path) -> None:
    csr = authorities.request()
    with provisioner(tmp_path) as (key, kid):
        runs, server = asyncio.run(
            exchange([csr, csr], tls, tmp_path, key, kid, ttl="720h", chain=True)
        )
    for run in runs:
        signed, above = authorities.certificates(run)
        assert above == server.ca.certificate
        signed.verify_directly_issued_by(above)
        asked = x509.load_pem_x509_csr(csr.encode())
        assert (signed.public_key(), signed.subject) == (asked.public_key(), asked.subject)
    assert len(server.used) == 2
    assert server.body["notAfter"] == "720h"
    moment = int(NOW.timestamp())
    root = x509.load_pem_x509_certificate(tls.file.read_bytes())
    assert server.claims == {
        "aud": server.audience,
        "iss": PROVISIONER,
        "sub": "device-1",
        "sans": ["device-1"],
        "jti": server.claims["jti"],
        "iat": moment,
        "nbf": moment,
        "exp": moment + 300,
        "sha": root.fingerprint(hashes.SHA256()).hex(),
    }


KEYS: list[tuple[str, Callable[[], authorities.Key], type[jwk.ECKey | jwk.RSAKey]]] = [
    ("p256", lambda: ec.generate_private_key(ec.SECP256R1()), jwk.ECKey),
    ("p384", lambda: ec.generate_private_key(ec.SECP384R1()), jwk.ECKey),
    ("p521", lambda: ec.generate_private_key(ec.SECP521R1()), jwk.ECKey),
    ("rsa", lambda: rsa.generate_private_key(65537, 2048), jwk.RSAKey),
]


@pytest.mark.parametrize("passphrase", ["", "tuer-und-tor"])
@pytest.mark.parametrize(("make", "kind"), [k[1:] for k in KEYS], ids=[k[0] for k in KEYS])
def test_a_key_in_pem_is_known_by_its_thumbprint(
    make: Callable[[], authorities.Key],
    kind: type[jwk.ECKey | jwk.RSAKey],
    passphrase: str,
    tls: Authority,
    tmp_path: Path,
) -> None:
    """RFC 7638, which `step ca provisioner add` names keys by."""
    private = make()
    authorities.write_key(tmp_path / "provisioner.pem", private, passphrase)
    authorities.write_key(tmp_path / "plain", private)
    key = kind.import_key((tmp_path / "plain").read_bytes())
    options: dict[str, Any] = {"key": "provisioner.pem"}
    if passphrase:
        (tmp_path / "pass").write_text(passphrase)
        (tmp_path / "pass").chmod(0o600)
        options["passphrase_file"] = "pass"
    runs, _ = asyncio.run(
        exchange([authorities.request()], tls, tmp_path, key, key.thumbprint(), **options)
    )
    authorities.certificates(runs[0])


@pytest.mark.parametrize(
    ("csr", "options", "kind", "told"),
    [
        (authorities.request(x509.Name([])), {}, "NoCommonName", "this request has none"),
        (
            authorities.request(
                extensions=[x509.SubjectAlternativeName([x509.DNSName("gateway.example")])]
            ),
            {},
            "StepCaError",
            "/1.0/sign answered status 403: The request was forbidden by the certificate",
        ),
        (authorities.request(), {"key_id": "other"}, "StepCaError", "answered status 401: The req"),
        (authorities.request(), {"provisioner": "x"}, "StepCaError", "answered status 401: The re"),
        (
            authorities.request(),
            {"now": NOW - timedelta(minutes=7)},
            "StepCaError",
            "answered status 401: The request lacked necessary authorization",
        ),
        ("text", {}, "InvalidCsr", "exactly one PEM block is expected"),
    ],
    ids=range(6),
)
def test_what_is_refused_is_told_with_its_reason(
    csr: str, options: dict[str, Any], kind: str, told: str, tls: Authority, tmp_path: Path
) -> None:
    with provisioner(tmp_path) as (key, kid):
        runs, _ = asyncio.run(exchange([csr], tls, tmp_path, key, kid, **options))
    error_type, message = authorities.refusal(runs[0])
    assert error_type == kind
    assert told in message


def test_a_token_is_valid_once(tls: Authority, tmp_path: Path) -> None:
    csr = authorities.request()
    with provisioner(tmp_path) as (key, kid):
        runs, _ = asyncio.run(exchange([csr, csr], tls, tmp_path, key, kid, ids=lambda: "the same"))
    authorities.certificates(runs[0])
    assert authorities.refusal(runs[1])[0] == "StepCaError"


def test_a_private_address_is_refused_unless_allowed(tls: Authority, tmp_path: Path) -> None:
    with provisioner(tmp_path) as (key, kid), pytest.raises(FunctionError) as caught:
        asyncio.run(exchange([authorities.request()], tls, tmp_path, key, kid, allow_networks=[]))
    assert caught.value.kind is Failure.ADDRESS_REFUSED


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"address": "http://ca"}, "`address`: https://HOST[:PORT]/PATH is expected"),
    ({"provisioner": None}, "`provisioner` is required: the name of a JWK provisioner is expected"),
    ({"key": None}, "`key` is required: a file is expected"),
    ({"key": "open"}, "`key`: `{dir}/open` holds a secret and has mode 0644; others than its own"),
    ({"key": "public"}, "`key`: `{dir}/public` is no private RSA or EC key as JWK; `step crypto "),
    ({"key": "encrypted"}, "`key`: `{dir}/encrypted` is no private RSA or EC key as JWK; `step cr"),
    ({"key": "octets"}, "`key`: `{dir}/octets` is no private RSA or EC key as JWK; `step crypto "),
    ({"key": "koblitz"}, "`key`: `{dir}/koblitz` needs one of the curves P-256, P-384, P-521, no"),
    ({"passphrase_file": "public"}, "`key`: `{dir}/key` is a JWK, but `passphrase_file` is given"),
    ({"ttl": "forever"}, "`ttl`: a number of seconds, minutes or hours such as 8760h is expected"),
    ({"root": "x"}, "`root` is not an option; there are `address`, `allow_networks`, `ca_file`, "),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[str(wrong) for wrong, _ in WRONG])
def test_a_wrong_option_is_told(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    key = jwk.ECKey.generate_key("P-256")
    files = {
        "key": key.as_dict(private=True),
        "open": key.as_dict(private=True),
        "public": key.as_dict(private=False),
        "encrypted": {"protected": "e30", "ciphertext": "AA", "tag": "AA"},
        "octets": {"kty": "oct", "k": "AAAA"},
        "koblitz": jwk.ECKey.generate_key("secp256k1").as_dict(private=True),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
        (tmp_path / name).chmod(0o644 if name == "open" else 0o600)
    given = {"address": "https://ca.example", "provisioner": "p", "key": "key", **wrong}
    given = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(ValueError) as caught:
        step_ca.from_options("mine", given, tmp_path)
    assert str(caught.value).startswith(message.replace("{dir}", str(tmp_path)))

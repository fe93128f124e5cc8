"""Files for TLS that cannot be used: which one it is, and what it should be."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fleetgate.device import tls
from fleetgate.device.endpoint import Endpoint
from fleetgate.device.errors import ConnectionFailed
from fleetgate.pki import issue
from fleetgate.pki.trust import Authority
from tests.device.clients import full
from tests.device.conftest import Files, Issuer


def refusal(files: Files) -> str:
    with pytest.raises(ConnectionFailed) as caught:
        tls.context(files.ca, files.certificate, files.key)
    message = caught.value.message
    assert "[" not in message  # neither [Errno 2] nor [SSL: ...]
    assert "_ssl.c" not in message
    return message


def test_files_that_fit_are_taken(claim: Files) -> None:
    tls.context(claim.ca, claim.certificate, claim.key)


@pytest.mark.parametrize(
    ("file", "what"),
    [("ca", "authorities in"), ("certificate", "certificate"), ("key", "key")],
)
def test_a_missing_file_is_named_once(file: str, what: str, claim: Files, tmp_path: Path) -> None:
    files = {"ca": claim.ca, "certificate": claim.certificate, "key": claim.key}
    missing, directory = tmp_path / "none", tmp_path
    assert refusal(Files(**{**files, file: missing})) == (
        f"cannot read the {what} `{missing}`: No such file or directory"
    )
    assert refusal(Files(**{**files, file: directory})) == (
        f"cannot read the {what} `{directory}`: Is a directory"
    )


@pytest.mark.parametrize("content", [b"", b"gibberish", b"\xff\xfe\0"])
def test_a_file_of_something_else_is_named(content: bytes, claim: Files, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(content)
    message = refusal(Files(other, claim.certificate, claim.key))
    assert message.startswith(f"the authorities in `{other}` cannot be used: ")
    message = refusal(Files(claim.ca, other, claim.key))
    assert (
        message == f"`{other}` holds no certificate: a PEM file with `BEGIN CERTIFICATE` is wanted"
    )
    message = refusal(Files(claim.ca, claim.certificate, other))
    assert message == f"`{other}` holds no private key: a PEM file with `PRIVATE KEY` is wanted"


def test_damaged_files_are_named(claim: Files, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    for source, target in ((claim.certificate, certificate), (claim.key, key)):
        lines = source.read_text().splitlines(keepends=True)
        target.write_text("".join([lines[0], *lines[2:]]))
    assert "the certificate in" in (message := refusal(Files(claim.ca, certificate, claim.key)))
    assert f"`{certificate}` is damaged" in message
    assert f"the key in `{key}` is damaged" in refusal(Files(claim.ca, claim.certificate, key))
    assert f"`{certificate}` cannot be used" in refusal(
        Files(certificate, claim.certificate, claim.key)
    )


def test_exchanged_files_are_told(claim: Files) -> None:
    message = refusal(Files(claim.ca, claim.key, claim.certificate))
    assert message == (
        f"`{claim.key}` holds no certificate but a private key; are certificate and key exchanged?"
    )
    message = refusal(Files(claim.ca, claim.certificate, claim.certificate))
    assert message == (
        f"`{claim.certificate}` holds no private key but a certificate; "
        "are certificate and key exchanged?"
    )


def test_files_that_do_not_belong_together_are_told(
    claim: Files, stranger: Files, tmp_path: Path
) -> None:
    kind = tmp_path / "rsa.key"
    kind.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )
    )
    for key in (stranger.key, kind):
        assert refusal(Files(claim.ca, claim.certificate, key)) == (
            f"the certificate `{claim.certificate}` and the key `{key}` do not belong together: "
            "the certificate is for another key"
        )


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_refused_and_nobody_is_asked(
    form: PrivateFormat, claim: Files, tmp_path: Path
) -> None:
    key = load_pem_private_key(claim.key.read_bytes(), None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret")))
    assert refusal(Files(claim.ca, claim.certificate, encrypted)) == (
        f"the key in `{encrypted}` is encrypted: a key without a password is wanted"
    )


@pytest.mark.needs("openssl")
def test_what_openssl_alone_refuses_is_told_in_its_words(issuer: Issuer, tmp_path: Path) -> None:
    """A key that is too small for its security level: certificate and key are fine otherwise."""
    files = issuer.write("small", issue.DEVICE)
    key, certificate = tmp_path / "small.key", tmp_path / "small.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:512", "-nodes", "-subj", "/CN=small"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    message = refusal(Files(files.ca, certificate, key))
    assert message.endswith("ee key too small")


def test_a_key_after_other_blocks_is_found(claim: Files, tmp_path: Path) -> None:
    """`openssl ecparam -genkey` writes the curve first; some keep both in one file."""
    both = tmp_path / "both.pem"
    both.write_bytes(claim.certificate.read_bytes() + claim.key.read_bytes())
    tls.context(claim.ca, both, both)


def test_files_that_can_be_read_only_once_are_not_touched_by_the_check(claim: Files) -> None:
    reader, writer = os.pipe()
    try:
        tls.check(claim.ca, f"/dev/fd/{reader}", claim.key)
        tls.check(claim.ca, claim.certificate, f"/dev/fd/{reader}")
    finally:
        os.close(reader)
        os.close(writer)


# --- the handshake ---


def shaking_hands(server: Files, trusted: Path, host: str = "localhost") -> ssl.SSLError:
    """What a client says that trusts the authorities in `trusted`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    there, here = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = context.wrap_bio(there, here, server_side=True)
    trusting: ssl.SSLContext = tls.trusting(trusted)
    client = trusting.wrap_bio(here, there, server_hostname=host)
    with pytest.raises(ssl.SSLError) as caught:
        for stream in (client, serving, client):
            with contextlib.suppress(ssl.SSLWantReadError):
                stream.do_handshake()
    return caught.value


@pytest.mark.parametrize(
    ("days", "said"), [(-10, "certificate has expired"), (10, "certificate is not yet valid")]
)
def test_a_wrong_clock_is_asked_for(days: int, said: str, tmp_path: Path) -> None:
    """A small computer has none of its own: it is 1970, until it has asked the network."""
    there = datetime.now(UTC) + timedelta(days=days)
    key = rsa.generate_private_key(65537, 2048)
    issuer = Issuer(Authority.create(key, now=there - timedelta(days=1), serial=1), tmp_path)
    profile = replace(issue.SERVER, backdate=timedelta(0), lifetime=timedelta(days=1))
    server = issuer.write("server", profile, "localhost", now=there)
    error = tls.handshake_failed(
        shaking_hands(server, server.ca), Endpoint("localhost", ca=server.ca)
    )
    assert error.message.startswith(
        "the TLS handshake with `localhost` port 8883 failed: the server's certificate is not "
        f"trusted ({said}); this device's time is "
    )
    now = re.search(r"time is (.{19}) UTC: is its clock right\?$", error.message)
    assert now is not None
    age = datetime.now(UTC) - datetime.fromisoformat(f"{now[1]}+00:00")
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert error.retry  # it may be set meanwhile


def test_another_authority_is_no_matter_of_time(server_files: Files, stranger: Files) -> None:
    error = tls.handshake_failed(
        shaking_hands(server_files, stranger.ca), Endpoint("localhost", ca=stranger.ca)
    )
    assert error.message.endswith("is it the right server, and the right file of authorities?")
    assert not error.retry


@pytest.mark.parametrize(
    "error", [ssl.SSLEOFError(), ssl.SSLZeroReturnError(), ConnectionResetError()]
)
def test_an_end_during_the_handshake_in_words(error: OSError) -> None:
    """Also one that Python made, which has nothing of what OpenSSL's errors have."""
    assert tls.handshake_failed(error, Endpoint("host")).message == (
        "the TLS handshake with `host` port 8883 failed: the server closed the connection during "
        "the handshake; does it speak TLS here?"
    )


# --- TCP ---


def test_all_addresses_of_a_name_share_the_time() -> None:
    """``socket.create_connection`` would grant it to each of them."""
    refused = (socket.AF_INET, ("127.0.0.1", 1))
    with full() as port, socket.create_server(("127.0.0.1", 0)) as listener:
        silent = (socket.AF_INET, ("127.0.0.1", port))
        here = (socket.AF_INET, listener.getsockname())
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            tls.first_of([silent] * 4, 0.4)
        assert 0.35 < time.monotonic() - begun < 0.7
        begun = time.monotonic()
        with tls.first_of([refused, silent, here], 0.4) as stream:
            assert stream.getpeername() == listener.getsockname()
        assert 0.15 < time.monotonic() - begun < 0.35
    with pytest.raises(ConnectionRefusedError):
        tls.first_of([refused], 0.4)

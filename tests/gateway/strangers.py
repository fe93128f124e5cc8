"""Clients that nobody knows, with certificates and chains that are made to be a burden."""

from __future__ import annotations

import datetime
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

KEY = ec.generate_private_key(ec.SECP256R1())
VERSIONS = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_NOW = datetime.datetime.now(datetime.UTC)


def certificate(
    subject: str,
    issuer: str,
    key: Any = KEY,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> x509.Certificate:
    """A certificate for `key`, signed by `KEY`, or by `key` when it names itself as its issuer."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOW - datetime.timedelta(days=1))
        .not_valid_after(_NOW + datetime.timedelta(days=1))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key if subject == issuer else KEY, hashes.SHA256())


def chain(names: int, authorities: int, constraints: int) -> list[x509.Certificate]:
    """A certificate with many names, and authorities that have an opinion on each of them."""
    alternative = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(f"a://{number:x}") for number in range(names)]
    )
    made = [certificate("0", "1", extensions=[(alternative, False)])]
    excluded = [
        x509.UniformResourceIdentifier("-" + _LETTERS[number % 26]) for number in range(constraints)
    ]
    for number in range(1, authorities + 1):
        extensions = [
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (x509.NameConstraints(None, excluded), True),
        ]
        issuer = str(min(number + 1, authorities))
        made.append(certificate(str(number), issuer, extensions=extensions))
    return made


def client(certificates: Sequence[x509.Certificate], key: Any, version: int) -> SSL.Context:
    """The TLS side of a client with these certificates, in one version of TLS."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_cipher_list(b"DEFAULT@SECLEVEL=0")
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.use_certificate(certificates[0])
    context.use_privatekey(key)
    for each in certificates[1:]:
        context.add_extra_chain_cert(each)
    return context


def memory_client(certificate_file: Path, key_file: Path, version: int) -> SSL.Context:
    """The same from files."""
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    return client([x509.load_pem_x509_certificate(certificate_file.read_bytes())], key, version)


def shake(context: SSL.Context, plain: socket.socket, name: bytes | None) -> SSL.Connection:
    """A connection that has finished the handshake; `name` is the server's. Raises SSL.Error."""
    plain.setblocking(True)
    plain.settimeout(None)
    connection = SSL.Connection(context, plain)
    if name is not None:
        connection.set_tlsext_host_name(name)
    connection.set_connect_state()
    connection.do_handshake()
    return connection


def work(server: SSL.Context, stranger: SSL.Context) -> tuple[float, SSL.Connection]:
    """Seconds of CPU that the server spends on a handshake, and its side of the connection.

    Raises SSL.Error when the server refuses.
    """
    ours, theirs = SSL.Connection(server, None), SSL.Connection(stranger, None)
    ours.set_accept_state()
    theirs.set_connect_state()
    spent = 0.0
    while True:
        _step(theirs)
        _move(theirs, ours)
        begin = time.thread_time()
        try:
            finished = _step(ours)
        finally:
            spent += time.thread_time() - begin
        if finished:
            return spent, ours
        _move(ours, theirs)


def _step(side: SSL.Connection) -> bool:
    try:
        side.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def _move(source: SSL.Connection, target: SSL.Connection) -> None:
    try:
        while True:
            target.bio_write(source.bio_read(1 << 20))
    except SSL.WantReadError:
        pass

"""What is wrong with the files for TLS that OpenSSL has refused, in words.

OpenSSL decides what can be used, and here its refusal is explained: which file, and what it should
be. A file that can be read only once (a pipe) is never looked at.
"""

from __future__ import annotations

import re
import ssl
import stat
from collections.abc import Iterable
from os import PathLike
from pathlib import Path as FilePath
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from fleetgate.device.errors import ConnectionFailed

Path: TypeAlias = str | PathLike[str]

_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----")
_KEY = re.compile(
    rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL
)
_ENCRYPTED = b"Proc-Type: 4,ENCRYPTED"  # RFC 1421 section 4.6.1.1, which OpenSSL still writes
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


def _unusable(message: str) -> ConnectionFailed:
    return ConnectionFailed(message, retry=False)  # the file will be the same next time


def read(path: Path, what: str) -> bytes:
    """The content of the file `path`, which is `what`. Raises ConnectionFailed naming both."""
    try:
        return FilePath(path).read_bytes()
    except OSError as error:
        raise _unusable(f"cannot read {what} `{path}`: {error.strerror}") from error
    except ValueError as error:  # U+0000 in the path
        raise _unusable(f"cannot read {what} `{path}`: {error}") from error


def has_pipe(files: Iterable[Path]) -> bool:
    """Whether one of `files` is a pipe, such as a shell's ``<(command)``."""
    for each in files:
        try:
            if stat.S_ISFIFO(FilePath(each).stat().st_mode):
                return True
        except (OSError, ValueError):
            continue  # what is wrong with it shows when it is read
    return False


def explain_authorities(ca: Path) -> None:
    """Raises ConnectionFailed when `ca` cannot be read, holds no certificate or a damaged one."""
    if has_pipe([ca]):
        return
    content = read(ca, "the authorities in")
    if not _CERTIFICATE.search(content):
        raise _unusable(
            f"the authorities in `{ca}` cannot be used: it holds no certificate; "
            "a PEM file with `BEGIN CERTIFICATE` is wanted"
        )
    try:
        # not by cryptography, which has doubts about old authorities that systems trust
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca)
    except (OSError, ValueError) as error:
        raise _unusable(
            f"the authorities in `{ca}` cannot be used: a certificate in it is damaged, "
            "or of an unknown kind"
        ) from error


def explain_pair(certificate: Path, key: Path) -> None:
    """Raises ConnectionFailed saying which file is wrong, or that they do not belong together.

    Returns when certificate and key are in order as far as is known here.
    """
    if has_pipe([certificate, key]):
        return
    certificate_pem = read(certificate, "the certificate")
    key_pem = read(key, "the key")
    if not _CERTIFICATE.search(certificate_pem):
        raise _missing(
            certificate, "certificate", "BEGIN CERTIFICATE", "private key", certificate_pem
        )
    block = _KEY.search(key_pem)
    if block is None:
        raise _missing(key, "private key", "PRIVATE KEY", "certificate", key_pem)
    if block[1] == b"ENCRYPTED " or _ENCRYPTED in block[0]:
        raise _unusable(f"the key in `{key}` is encrypted: a key without a password is wanted")
    try:
        of_certificate = x509.load_pem_x509_certificate(certificate_pem).public_key()
    except _UNREADABLE as error:
        raise _unusable(
            f"the certificate in `{certificate}` is damaged, or of an unknown kind"
        ) from error
    try:
        of_key = serialization.load_pem_private_key(block[0], None).public_key()
    except _UNREADABLE as error:
        raise _unusable(f"the key in `{key}` is damaged, or of an unknown kind") from error
    if of_certificate != of_key:
        raise _unusable(
            f"the certificate `{certificate}` and the key `{key}` do not belong together: "
            "the certificate is for another key"
        )


def _missing(path: Path, wanted: str, mark: str, other: str, content: bytes) -> ConnectionFailed:
    """`path` holds no `wanted`; if it holds the `other`, the files were likely exchanged."""
    if (_KEY if other == "private key" else _CERTIFICATE).search(content):
        return _unusable(
            f"`{path}` holds no {wanted} but a {other}; are certificate and key exchanged?"
        )
    return _unusable(f"`{path}` holds no {wanted}: a PEM file with `{mark}` is wanted")

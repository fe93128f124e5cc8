"""TLS to the server, with the device's certificate; and its errors in words."""

from __future__ import annotations

import socket
import ssl
from os import PathLike
from typing import TypeAlias

from fleetgate.device.errors import ConnectionFailed
from fleetgate.errors import Error

Path: TypeAlias = str | PathLike[str]


def context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """A context that trusts the authorities in `ca` and shows `certificate`; all PEM files.

    Raises ConnectionFailed naming the file that cannot be used.
    """
    try:
        made = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    except (OSError, ValueError) as error:
        raise ConnectionFailed(f"cannot read the authorities in `{ca}`: {error}") from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        made.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError, Error) as error:
        raise ConnectionFailed(
            f"cannot use the certificate `{certificate}` with the key `{key}`: {error}"
        ) from error
    return made


def _no_password() -> str:
    # Without it OpenSSL would ask on the terminal.
    raise Error("the key is encrypted")


def open_(context: ssl.SSLContext, host: str, port: int, timeout: float) -> ssl.SSLSocket:
    """A TLS connection to `host`:`port`, whose certificate has to be for `host`.

    TCP and TLS have `timeout` seconds each. Raises ConnectionFailed.
    """
    try:
        plain = socket.create_connection((host, port), timeout)
    except TimeoutError as error:
        raise ConnectionFailed(
            f"no TCP connection to `{host}` port {port} within {timeout:g} s", waited=timeout
        ) from error
    except (OSError, ValueError, OverflowError) as error:
        raise ConnectionFailed(
            f"no TCP connection to `{host}` port {port}: {explain(error)}"
        ) from error
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname=host)
    except TimeoutError as error:
        plain.close()
        raise ConnectionFailed(
            f"no TLS handshake with `{host}` port {port} within {timeout:g} s", waited=timeout
        ) from error
    except (OSError, ValueError) as error:
        plain.close()
        raise ConnectionFailed(
            f"the TLS handshake with `{host}` port {port} failed: {explain(error)}"
        ) from error


def explain(error: Exception) -> str:
    """What an error of a socket means, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the server's certificate is not trusted ({error.verify_message}); "
            "is it the right server, and the right file of authorities?"
        )
    if isinstance(error, ssl.SSLError) and error.reason and "ALERT" in error.reason:
        return f"the server refused the TLS connection ({error.reason})"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
        return error.strerror
    return str(error)

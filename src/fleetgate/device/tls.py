"""TLS to the server, with the device's certificate; and its errors in words."""

from __future__ import annotations

import re
import socket
import ssl

from fleetgate.device import credentials
from fleetgate.device.credentials import Path
from fleetgate.device.errors import ConnectionFailed
from fleetgate.errors import Error

# X.509 verification results of OpenSSL, x509_vfy.h; `ssl` has no names for them
_WRONG_NAME = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH

# what OpenSSL finds in a first record that is no TLS, by the bytes it happens to have
_NO_TLS = {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}

_MARKS = re.compile(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$")  # round the words of OpenSSL


def context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """A context that trusts the authorities in `ca` and shows `certificate`; all PEM files.

    Raises ConnectionFailed naming the file that cannot be used and what it should be.
    """
    try:
        made = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    except (OSError, ValueError) as error:
        credentials.explain_authorities(ca)
        raise ConnectionFailed(
            f"the authorities in `{ca}` cannot be used: {explain(error)}"
        ) from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        made.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError, Error) as error:
        credentials.explain_pair(certificate, key)
        raise ConnectionFailed(
            f"cannot use the certificate `{certificate}` with the key `{key}`: {explain(error)}"
        ) from error
    return made


def check(ca: Path, certificate: Path, key: Path) -> None:
    """Make sure that :func:`context` can use these files, unless one can be read only once.

    Raises ConnectionFailed.
    """
    if not credentials.has_pipe([ca, certificate, key]):
        context(ca, certificate, key)


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
            f"the TLS handshake with `{host}` port {port} failed: {_explain_handshake(error, host)}"
        ) from error


def _explain_handshake(error: Exception, host: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _WRONG_NAME:
            return (
                f"`{host}` is not among the names of the server's certificate; connect by one of "
                "its names (Fleetgate puts those of `--host-name` into it)"
            )
        return (
            f"the server's certificate is not trusted ({error.verify_message}); "
            "is it the right server, and the right file of authorities?"
        )
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
        return "the server does not speak TLS on this port; is it the port for MQTT over TLS?"
    if isinstance(error, ssl.SSLEOFError | ConnectionResetError):
        return "the server closed the connection during the handshake; does it speak TLS here?"
    return explain(error)


def explain(error: Exception) -> str:
    """What an error of a socket or of OpenSSL means, in words."""
    if isinstance(error, ssl.SSLError):
        words = _MARKS.sub("", str(error))
        refused = "ALERT" in (error.reason or "")
        return f"the server refused the TLS connection ({words})" if refused else words
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)

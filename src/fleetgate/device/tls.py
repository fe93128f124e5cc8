"""TLS to the server, with the device's certificate; and its errors in words."""

from __future__ import annotations

import re
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, TypeAlias, TypeVar

from fleetgate.device import credentials
from fleetgate.device.credentials import Path
from fleetgate.device.endpoint import Endpoint
from fleetgate.device.errors import BadRequest, ConnectionFailed
from fleetgate.errors import Error

_Context = TypeVar("_Context", bound=ssl.SSLContext)

Address: TypeAlias = tuple[int, Any]
"""A family of addresses, and where to connect to in it, as ``socket.getaddrinfo`` has them."""

_LEAST: Final = 0.001  # none at all would mean not to wait

# X.509 verification results of OpenSSL, x509_vfy.h; `ssl` has no names for them
_WRONG_NAME = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_WRONG_TIME = {9, 10}  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED

# what OpenSSL finds in a first record that is no TLS, by the bytes it happens to have
_NO_TLS = {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"}

_BY_ITS_NAME = "connect by one of its names (Fleetgate has those of `--host-name`)"

_STRICT = ssl.VerifyFlags(0)
"""As :func:`ssl.create_default_context` has it, which would load all authorities of the system."""
if sys.version_info >= (3, 13):
    _STRICT = ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT

_HUNG_UP = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionResetError, BrokenPipeError)

_MARKS = re.compile(r"^\[[^]]*\] | \(_ssl\.c:\d+\)$")  # round the words of OpenSSL


def context(
    ca: Path | None,
    certificate: Path,
    key: Path,
    kind: type[_Context] = ssl.SSLContext,  # type: ignore[assignment]
) -> _Context:
    """A context that trusts the authorities in `ca` and shows `certificate`; all PEM files.

    None for `ca` is for the authorities of the system. It is of the class `kind`. Raises
    ConnectionFailed naming the file that cannot be used and what it should be.
    """
    made = trusting(ca, kind)
    try:
        made.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError, Error) as error:
        credentials.explain_pair(certificate, key)
        raise ConnectionFailed(
            f"cannot use the certificate `{certificate}` with the key `{key}`: {explain(error)}",
            retry=False,
        ) from error
    return made


def trusting(
    ca: Path | None,
    kind: type[_Context] = ssl.SSLContext,  # type: ignore[assignment]
) -> _Context:
    """As :func:`context`, without a certificate to show. Raises ConnectionFailed."""
    made = kind(ssl.PROTOCOL_TLS_CLIENT)  # with certificate and host name checked
    made.verify_flags |= _STRICT
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca is None:
            made.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            made.load_verify_locations(ca)
    except (OSError, ValueError) as error:
        if ca is not None:
            credentials.explain_authorities(ca)
        raise ConnectionFailed(
            f"the authorities in `{ca}` cannot be used: {explain(error)}", retry=False
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


def address(endpoint: Endpoint) -> tuple[str, int]:
    """Where the TCP connection goes to: the server, or its proxy."""
    to = endpoint.proxy or endpoint
    return to.host, to.port


def open_(context: ssl.SSLContext, host: str, port: int, timeout: float) -> ssl.SSLSocket:
    """A TLS connection to `host`:`port`, whose certificate has to be for `host`.

    TCP and TLS have `timeout` seconds each. Raises ConnectionFailed.
    """
    try:
        endpoint = Endpoint(host, port, connect_timeout=timeout)
    except BadRequest as error:
        raise ConnectionFailed(f"no TCP connection to {host!r} port {port}: {error}") from error
    plain = open_tcp(endpoint)
    try:
        plain.settimeout(timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname=host)
    except (OSError, ValueError) as error:
        plain.close()
        raise handshake_failed(error, endpoint) from error


def open_tcp(endpoint: Endpoint, deadline: float | None = None) -> socket.socket:
    """A TCP connection to the server, or to its proxy; for :func:`left` seconds in all.

    Raises ConnectionFailed.
    """
    host, port = address(endpoint)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return first_of([(each[0], each[4]) for each in found], left(endpoint, deadline))
    except (OSError, ValueError, OverflowError) as error:
        raise unreachable(error, endpoint) from error


def left(endpoint: Endpoint, deadline: float | None) -> float:
    """The seconds for the next phase of connecting: up to `deadline`, a time of
    ``time.monotonic()``, and ``endpoint.connect_timeout`` at most."""
    if deadline is None:
        return endpoint.connect_timeout
    return max(min(deadline - time.monotonic(), endpoint.connect_timeout), _LEAST)


def first_of(addresses: Sequence[Address], seconds: float) -> socket.socket:
    """A TCP connection to the first of `addresses` that takes one, within `seconds` in all.

    Each has half of what is left, the last one all of it: ``socket.create_connection`` would wait
    for each of them so long, and a name as AWS's has a dozen. Raises OSError.
    """
    end = time.monotonic() + seconds
    error = OSError("the name has no address")
    try:
        for number, (family, where) in enumerate(addresses, 1):
            there_is = max(end - time.monotonic(), _LEAST)
            try:
                return _dial(family, where, there_is if number == len(addresses) else there_is / 2)
            except OSError as failure:
                error = failure
        raise error
    finally:
        del error  # it refers to this frame, which refers to it


def _dial(family: int, where: Any, seconds: float) -> socket.socket:
    stream = socket.socket(family, socket.SOCK_STREAM)
    try:
        stream.settimeout(seconds)
        stream.connect(where)
    except BaseException:
        stream.close()
        raise
    return stream


def unreachable(error: Exception, endpoint: Endpoint) -> ConnectionFailed:
    """Why there is no TCP connection to the server, or to its proxy."""
    host, port = address(endpoint)
    where = f"{'the proxy ' if endpoint.proxy else ''}`{host}` port {port}"
    if isinstance(error, TimeoutError) and error.errno is None:
        timeout = endpoint.connect_timeout
        return ConnectionFailed(
            f"no TCP connection to {where} within {timeout:g} s", waited=timeout
        )
    if isinstance(error, socket.gaierror):
        return ConnectionFailed(
            f"no TCP connection to {where}: the name has no address ({explain(error)})"
        )
    return ConnectionFailed(f"no TCP connection to {where}: {explain(error)}")


def handshake_failed(
    error: Exception, endpoint: Endpoint, waited: float | None = None
) -> ConnectionFailed:
    """Why there is no TLS on a connection, in words. One that cannot end well is not for retry.

    `waited` is how many seconds a handshake had that was not over in time, unless these were
    ``endpoint.connect_timeout``.
    """
    where = endpoint.shown
    if isinstance(error, TimeoutError):
        timeout = endpoint.connect_timeout if waited is None else waited
        return ConnectionFailed(
            f"no TLS handshake with {where} within {timeout:g} s", waited=timeout
        )
    distrusted = (
        isinstance(error, ssl.SSLCertVerificationError) and error.verify_code not in _WRONG_TIME
    )
    return ConnectionFailed(
        f"the TLS handshake with {where} failed: {_explain_handshake(error, endpoint.host)}",
        retry=False if distrusted else None,
    )


def _explain_handshake(error: Exception, host: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _WRONG_NAME:
            return f"`{host}` is not among the names of the server's certificate; {_BY_ITS_NAME}"
        said = f"the server's certificate is not trusted ({error.verify_message}); "
        if error.verify_code in _WRONG_TIME:
            now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
            return f"{said}this device's time is {now} UTC: is its clock right?"
        return f"{said}is it the right server, and the right file of authorities?"
    reason = _reason(error)
    if "UNRECOGNIZED_NAME" in reason:
        return f"the server says that it is not `{host}` ({explain(error)}); {_BY_ITS_NAME}"
    if reason in _NO_TLS:
        return "the server does not speak TLS on this port; is it the port for MQTT over TLS?"
    if isinstance(error, _HUNG_UP):
        return "the server closed the connection during the handshake; does it speak TLS here?"
    return explain(error)


def _reason(error: Exception) -> str:
    """OpenSSL's name for it, if it is OpenSSL's; an ``ssl.SSLError`` of other makers has none."""
    return getattr(error, "reason", None) or ""


def explain(error: Exception) -> str:
    """What an error of a socket or of OpenSSL means, in words."""
    if isinstance(error, ssl.SSLError):
        words = _MARKS.sub("", str(error))
        reason = _reason(error)
        if "ALERT" not in reason:
            return words
        about = "CERTIFICATE" in reason or "UNKNOWN_CA" in reason
        hint = "; is this device's certificate one that it knows?" if about else ""
        return f"the server refused the TLS connection ({words}){hint}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)

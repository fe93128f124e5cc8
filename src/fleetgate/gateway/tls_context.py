"""The TLS settings of the server, as a pyOpenSSL context.

Two more settings come from a file: see `fleetgate.gateway.openssl`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from OpenSSL import SSL, crypto

from fleetgate.errors import Error

ALPN: Final = b"x-amzn-mqtt-ca"
"""The protocol name for MQTT with a client certificate (AWS IoT, "Device communication
protocols", application layer protocol negotiation)."""

CIPHERS: Final = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has nothing else."""

_MODE_RELEASE_BUFFERS: Final = 0x10  # ssl.h; nearly halves the memory of an idle connection


def server_context(certificate_file: Path, key_file: Path) -> SSL.Context:
    """The TLS side of the server: 1.2 and 1.3, any client certificate, no resumption.

    `certificate_file` holds the server's certificate (and chain), `key_file` its key, as PEM.
    Raises Error when they cannot be used.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    try:
        context.use_certificate_chain_file(str(certificate_file))
        context.use_privatekey_file(str(key_file))
        context.check_privatekey()
    except SSL.Error as error:
        raise Error(
            f"`{certificate_file}` and `{key_file}` cannot serve as the server's certificate "
            f"and key: {cause_of(error)}"
        ) from error
    context.set_cipher_list(CIPHERS)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET)
    context.set_mode(_MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # A server that asks for certificates has to have one: SSL_CTX_set_session_id_context(3).
    context.set_session_id(b"fleetgate")
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _accept_any)
    context.set_alpn_select_callback(_select_protocol)
    return context


def _accept_any(
    _connection: SSL.Connection, _certificate: crypto.X509, _error: int, _depth: int, _ok: int
) -> bool:
    """Every chain is right: the registry decides, once the key's possession is proved."""
    return True


def _select_protocol(
    _connection: SSL.Connection, offered: Sequence[bytes]
) -> bytes | SSL._NoOverlappingProtocols:
    return ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def cause_of(error: SSL.Error) -> str:
    """OpenSSL's reasons in words."""
    if isinstance(error, SSL.SysCallError):
        return str(error.args[-1]).lower()
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(str(reason[-1]) for reason in reasons) or "unknown"

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

_NO_CHAIN: Final = -2
"""The verify depth with which OpenSSL looks at no certificate but the client's own. -1 would mean
"not set"; with 0 it still holds that one against all the others."""

_RSA: Final = frozenset(
    bytes.fromhex(each) for each in ("2a864886f70d010101", "2a864886f70d01010a")
)
"""The object identifiers rsaEncryption and id-RSASSA-PSS in DER (RFC 8017 appendix C)."""

_DSA: Final = bytes.fromhex("2a8648ce380401")  # id-dsa, RFC 3279 section 2.3.2

_MODULUS_BITS: Final = 8192
_EXPONENT_BITS: Final = 32

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
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _accept)
    context.set_verify_depth(_NO_CHAIN)
    context.set_alpn_select_callback(_select_protocol)
    return context


def _accept(
    connection: SSL.Connection, certificate: crypto.X509, _error: int, depth: int, _ok: int
) -> bool:
    """Every certificate is right: the registry decides, once the key's possession is proved.

    Except those whose key would make that proof a burden. The connection's app data becomes the
    certificate in DER form, or a text: why it is refused.
    """
    if depth or connection.get_app_data() is not None:
        return True  # it has been looked at: OpenSSL asks about everything it does not like
    der = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
    burden = burden_of(der)
    connection.set_app_data(burden or der)
    return not burden


def burden_of(certificate: bytes) -> str:
    """Why no signature of the key in a `certificate` (DER) is verified, empty when they are.

    AWS IoT knows RSA keys and keys on the NIST curves ("X.509 client certificates"). A DSA key, a
    giant RSA key or one with a giant public exponent takes many times the work of all of these.

    Sources: RFC 5280 section 4.1, RFC 8017 appendix A.1.1. Read by hand because this is in every
    handshake: with OpenSSL's own decoding of an RSA key that would take a quarter longer.
    """
    try:
        at, _ = _content(certificate, 0)
        at, _ = _content(certificate, at)  # TBSCertificate
        if certificate[at] == 0xA0:  # version
            at = _content(certificate, at)[1]
        for _ in range(5):  # serialNumber, signature, issuer, validity, subject
            at = _content(certificate, at)[1]
        at, _ = _content(certificate, at)  # SubjectPublicKeyInfo
        algorithm, key = _content(certificate, at)
        start, end = _content(certificate, algorithm)
        kind = certificate[start:end]
        if kind == _DSA:
            return "the client's certificate has a DSA key"
        if kind not in _RSA:
            return ""
        at, _ = _content(certificate, key)  # a BIT STRING: the count of its unused bits comes first
        at, _ = _content(certificate, at + 1)  # RSAPublicKey
        for name, limit in (("modulus", _MODULUS_BITS), ("public exponent", _EXPONENT_BITS)):
            start, at = _content(certificate, at)
            bits = int.from_bytes(certificate[start:at], "big").bit_length()
            if bits > limit:
                return (
                    f"the client's certificate has an RSA key with a {name} of {bits} bits, "
                    f"more than {limit}"
                )
    except IndexError:
        return "the client's certificate is not in DER"
    return ""


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the DER value at `at` begins and ends. Raises IndexError."""
    length = der[at + 1]
    at += 2
    if length == 0x80:
        raise IndexError  # BER's indefinite length
    if length > 0x80:
        count = length - 0x80
        length = int.from_bytes(der[at : at + count], "big")
        at += count
    if at + length > len(der):
        raise IndexError
    return at, at + length


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

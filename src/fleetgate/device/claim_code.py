"""A claim as the text of QR codes, and the codes as lines for a terminal.

A claim as JSON has about 4 KB with Fleetgate and 3 KB with AWS, and the largest QR code (version
40, 177 modules a side, which few cameras read from a screen) holds 2953 bytes. So it is made small,
and spread over as many codes as their size asks for:

* certificates are DER, not PEM;
* of an RSA key one prime goes along, since the certificate has the modulus: 128 bytes of 1219;
* the whole is CBOR (RFC 8949) under zlib (RFC 1950): about 1.0 KB with AWS, 1.6 KB with Fleetgate,
  whose authority's certificate has to come along;
* the bytes are written in Base45 (RFC 9285), which QR's alphanumeric mode stores almost without
  loss and which every scanner hands on as it is; binary codes are taken for text by many.

A code says ``FLEETGATE:CHECKSUM:2/3:BASE45:``, with a CRC-32 (in hex) of all the bytes: codes of
another claim are told apart, and their order does not matter. The standard's own way to spread
something, "structured append", is ignored by most scanners. The last colon keeps blanks at the end
of Base45 from being trimmed.

The sizes are those of ISO/IEC 18004, table 7: error correction L, alphanumeric.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.device import extras
from fleetgate.device.claim import Claim, ClaimDamaged

CAPACITIES: Final = (
    *(25, 47, 77, 114, 154, 195, 224, 279, 335, 395, 468, 535, 619, 667, 758, 854, 938, 1046),
    *(1153, 1249, 1352, 1460, 1588, 1704, 1853, 1990, 2132, 2223, 2369, 2520, 2677, 2840, 3009),
    *(3183, 3351, 3537, 3729, 3927, 4087, 4296),
)
"""Characters in a code of version 1, 2, ... 40."""

SMALLEST, LARGEST = 10, 22
"""The versions used: below, a claim would take a dozen codes; with the larger one any takes two,
and cameras begin to fail not far above."""

QUIET: Final = 4
"""Modules left light around a code (ISO/IEC 18004 section 6.3.8)."""

PAPER: Final = "\x1b[30;107m"
PLAIN: Final = "\x1b[0m"
"""Black on white, and the end of it (ECMA-48 section 8.3.117)."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_CODE: Final = re.compile(r"FLEETGATE:([0-9A-F]{8}):(\d{1,3})/(\d{1,3}):([0-9A-Z $%*+./:-]*):")
_FORMAT: Final = 1
_PRIME, _PKCS8 = 0, 1
_MAX_BYTES: Final = 64 * 1024


# --- claim to text and back ---


def encode(claim: Claim, version: int) -> list[str]:
    """The texts of the codes, each of which fits into one of `version` (see CAPACITIES)."""
    import cbor2

    values = [
        _FORMAT,
        claim.template,
        claim.endpoint,
        claim.port,
        int(claim.expiration.timestamp()),
        _ders(claim.certificate_pem),
        *_packed_key(claim),
        [] if claim.ca_pem is None else _ders(claim.ca_pem),
    ]
    data = zlib.compress(cbor2.dumps(values), 9)
    header = len("FLEETGATE:00000000:99/99::")
    room = (CAPACITIES[version - 1] - header) // 3 * 2
    count = -(-len(data) // room)
    size = -(-len(data) // count)
    size += size % 2  # two bytes are three characters, one is two
    mark = f"{zlib.crc32(data):08X}"
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return [
        f"FLEETGATE:{mark}:{number}/{len(parts)}:{base45(part)}:"
        for number, part in enumerate(parts, 1)
    ]


def is_code(text: str) -> bool:
    """Whether `text` begins as that of a code does."""
    return text.lstrip().startswith("FLEETGATE:")


def decode(text: str) -> Claim:
    """The claim of codes, one to a line, in any order, also several times. Raises ClaimDamaged."""
    parts: dict[int, bytes] = {}
    seen: set[tuple[str, int]] = set()
    for line in filter(None, map(str.strip, text.splitlines())):
        found = _CODE.fullmatch(line)
        if found is None:
            raise ClaimDamaged(f"`{line[:40]}` is not what a code of a claim says")
        mark, number, count = found[1], int(found[2]), int(found[3])
        seen.add((mark, count))
        if len(seen) > 1:
            raise ClaimDamaged("the codes are of different claims")
        if not 1 <= number <= count:
            raise ClaimDamaged(f"code {number} of {count} cannot be")
        parts[number] = _from_base45(found[4])
    mark, count = seen.pop()
    missing = [str(number) for number in range(1, count + 1) if number not in parts]
    if missing:
        raise ClaimDamaged(f"of {count} codes {', '.join(missing)} is missing")
    data = b"".join(parts[number] for number in range(1, count + 1))
    if f"{zlib.crc32(data):08X}" != mark:
        raise ClaimDamaged("the checksum of the codes is wrong: scan them again")
    return _unpacked(data)


def _unpacked(data: bytes) -> Claim:
    import cbor2

    try:
        inflate = zlib.decompressobj()
        plain = inflate.decompress(data, _MAX_BYTES)
        if inflate.unconsumed_tail:
            raise ClaimDamaged(f"the codes hold more than {_MAX_BYTES} bytes")
        values = cbor2.loads(plain)
        kind, *rest = values
        if kind != _FORMAT:
            raise ClaimDamaged(f"the codes are of version {kind!r:.80}, not {_FORMAT}")
        template, endpoint, port, expiration, chain, key_kind, key, authorities = rest
        if not (isinstance(template, str) and isinstance(endpoint, str) and type(port) is int):
            raise ClaimDamaged("the codes hold something else than a claim")
        return Claim(
            _pems(chain),
            _unpacked_key(key_kind, key, chain[0]),
            datetime.fromtimestamp(expiration, UTC),
            endpoint,
            port,
            template,
            _pems(authorities) if authorities else None,
        )
    except ClaimDamaged:
        raise
    except (
        *(zlib.error, cbor2.CBORError, ValueError, TypeError, IndexError, OverflowError, OSError),
        *(RecursionError, UnsupportedAlgorithm, x509.InvalidVersion),
    ) as error:
        raise ClaimDamaged(f"the codes cannot be read: {error}") from error


def _ders(pem: str) -> list[bytes]:
    found = x509.load_pem_x509_certificates(pem.encode())
    return [each.public_bytes(Encoding.DER) for each in found]


def _pems(ders: Iterable[bytes]) -> str:
    found = map(x509.load_der_x509_certificate, ders)
    return "".join(each.public_bytes(Encoding.PEM).decode() for each in found)


def _packed_key(claim: Claim) -> tuple[int, bytes]:
    key = serialization.load_pem_private_key(claim.private_key_pem.encode(), None)
    if isinstance(key, rsa.RSAPrivateKey):
        p = key.private_numbers().p
        return _PRIME, p.to_bytes((p.bit_length() + 7) // 8)
    no_password = serialization.NoEncryption()
    return _PKCS8, key.private_bytes(Encoding.DER, serialization.PrivateFormat.PKCS8, no_password)


def _unpacked_key(kind: int, content: bytes, certificate: bytes) -> str:
    if kind == _PRIME:
        public = x509.load_der_x509_certificate(certificate).public_key()
        if not isinstance(public, rsa.RSAPublicKey):
            raise ClaimDamaged("the codes hold a key that is not the certificate's")
        numbers, p = public.public_numbers(), int.from_bytes(content)
        q, rest = divmod(numbers.n, p or 1)
        if rest or not 1 < p < numbers.n:
            raise ClaimDamaged("the codes hold a key that is not the certificate's")
        d = rsa.rsa_recover_private_exponent(numbers.e, p, q)
        key: Any = rsa.RSAPrivateNumbers(
            p,
            q,
            d,
            rsa.rsa_crt_dmp1(d, p),
            rsa.rsa_crt_dmq1(d, q),
            rsa.rsa_crt_iqmp(p, q),
            numbers,
        ).private_key()
    elif kind == _PKCS8:
        key = serialization.load_der_private_key(content, None)
    else:
        raise ClaimDamaged(f"the codes hold a key of the kind {kind!r:.80}")
    pem: bytes = key.private_bytes(
        Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return pem.decode()


# --- Base45 (RFC 9285) ---


def base45(data: bytes) -> str:
    """Two bytes are three characters, a last one two, least significant first (section 4)."""
    found = []
    for at in range(0, len(data), 2):
        pair = data[at : at + 2]
        value = int.from_bytes(pair)
        for _ in range(len(pair) + 1):
            value, digit = divmod(value, 45)
            found.append(_ALPHABET[digit])
    return "".join(found)


def _from_base45(text: str) -> bytes:
    """Raises ClaimDamaged for what :func:`base45` does not write."""
    found = bytearray()
    for at in range(0, len(text), 3):
        group = text[at : at + 3]
        value = sum(_VALUES[character] * 45**place for place, character in enumerate(group))
        size = len(group) - 1
        if not size or value >= 256**size:
            raise ClaimDamaged("a code is damaged (RFC 9285): scan it again")
        found += value.to_bytes(size)
    return bytes(found)


# --- text to something that can be seen ---


def version_for(columns: int, rows: int) -> int:
    """The largest version whose code fits into so many characters of a terminal, within bounds."""
    side = min(columns, 2 * rows) - 2 * QUIET
    return min(max((side - 17) // 4, SMALLEST), LARGEST)


def size_of(version: int) -> tuple[int, int]:
    """Columns and rows of a terminal that a code of `version` takes."""
    side = 17 + 4 * version + 2 * QUIET
    return side, -(-side // 2)


def draw(text: str) -> list[str]:
    """`text` as a QR code: lines of half blocks, black on white whatever the terminal's colours.

    Raises ExtraMissing without segno.
    """
    segno = extras.load("segno", "qr")
    code = segno.make(text, error="l", mode="alphanumeric", micro=False, boost_error=False)
    modules = [[bool(module) for module in row] for row in code.matrix_iter(border=QUIET)]
    return list(_half_blocks(modules))


def _half_blocks(modules: Sequence[Sequence[bool]]) -> Iterator[str]:
    blocks = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
    for upper, lower in zip(
        modules[::2], [*modules[1::2], [False] * len(modules[0])], strict=False
    ):
        line = "".join(blocks[pair] for pair in zip(upper, lower, strict=True))
        yield f"{PAPER}{line}{PLAIN}"

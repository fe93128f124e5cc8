"""A hand-written DER encoder (X.690), for requests and names that no library writes."""

from __future__ import annotations

ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def tlv(tag: int, *contents: bytes) -> bytes:
    """One DER element (X.690 section 8.1)."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def subject_der(*attributes: tuple[str, int, bytes]) -> bytes:
    """A Name of single-valued RDNs: (object identifier in hex, string tag, content)."""
    return tlv(
        0x30,
        *(
            tlv(0x31, tlv(0x30, tlv(6, bytes.fromhex(oid)), tlv(tag, content)))
            for oid, tag, content in attributes
        ),
    )

"""Which keys and signatures are good enough, for requests and certificates alike.

Source: AWS IoT Core Developer Guide, "X.509 client certificates" (certificate signing
algorithms supported by AWS IoT) and "Create a client certificate" (key types of a CSR).
"""

from __future__ import annotations

from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ObjectIdentifier
from cryptography.x509.oid import SignatureAlgorithmOID as Algorithm

RSA_MIN_BITS = 2048
RSA_MAX_BITS = 8192
"""A limit of ours: checking a signature by a longer key costs a server too much."""

CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

# A limit of ours as well; OpenSSL has the same one for moduli of more than 3072 bits.
_RSA_MAX_EXPONENT_BITS = 64

_PSS_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_ALLOWED = (
    Algorithm.RSA_WITH_SHA256,
    Algorithm.RSA_WITH_SHA384,
    Algorithm.RSA_WITH_SHA512,
    Algorithm.RSASSA_PSS,
    Algorithm.DSA_WITH_SHA256,
    Algorithm.ECDSA_WITH_SHA256,
    Algorithm.ECDSA_WITH_SHA384,
    Algorithm.ECDSA_WITH_SHA512,
)
_NAMES = {oid: name for name, oid in vars(Algorithm).items() if isinstance(oid, ObjectIdentifier)}


def check_key(key: object) -> PublicKey:
    """`key` itself when a certificate may carry it; otherwise ValueError with the rule."""
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < RSA_MIN_BITS:
            raise ValueError(f"an RSA key needs at least {RSA_MIN_BITS} bits, not {key.key_size}")
        if key.key_size > RSA_MAX_BITS:
            raise ValueError(f"an RSA key has at most {RSA_MAX_BITS} bits, not {key.key_size}")
        exponent = key.public_numbers().e
        if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > _RSA_MAX_EXPONENT_BITS:
            raise ValueError(
                "an RSA public exponent is an odd number from 3 "
                f"to 2**{_RSA_MAX_EXPONENT_BITS}, not {str(exponent)[:40]}"
            )
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in CURVES:
            raise ValueError(
                f"an EC key needs one of the curves {', '.join(CURVES.values())}, "
                f"not `{key.curve.name}`"
            )
        return key
    raise ValueError(
        f"the key has to be an RSA or an EC key, not {type(key).__name__.removesuffix('PublicKey')}"
    )


def check_signature(document: x509.Certificate | x509.CertificateSigningRequest) -> None:
    """Raise ValueError unless `document` is signed by an algorithm of the list.

    RSASSA-PSS carries its hash, and that of its mask, as parameters (RFC 4055 section 3.1):
    both have to be SHA-256, SHA-384 or SHA-512.
    """
    algorithm = document.signature_algorithm_oid
    if algorithm not in _ALLOWED:
        raise ValueError(
            f"the signature algorithm `{_NAMES.get(algorithm, algorithm.dotted_string)}` is not "
            f"one of {', '.join(_NAMES[oid] for oid in _ALLOWED)}"
        )
    if algorithm == Algorithm.RSASSA_PSS:
        parameters = document.signature_algorithm_parameters
        if (
            not isinstance(parameters, padding.PSS)
            or not isinstance(document.signature_hash_algorithm, _PSS_HASHES)
            or not any(parameters.mgf == padding.MGF1(each()) for each in _PSS_HASHES)
        ):
            raise ValueError("an RSASSA-PSS signature needs SHA-256, SHA-384 or SHA-512")

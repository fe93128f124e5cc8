"""A certificate provider's function as somebody uploads it: an authority in two files beside it.

It signs as it should, or does what the common name of the request begins with. Nothing of this
project is imported: the file goes into a zip as it is.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_HERE = Path(__file__).parent
_DAY = timedelta(days=1)


def handler(event: dict[str, str], _context: Any) -> dict[str, str]:
    ca_pem = (_HERE / "ca.pem").read_text()
    ca = x509.load_pem_x509_certificate(ca_pem.encode())
    key = serialization.load_pem_private_key((_HERE / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    request = x509.load_pem_x509_csr(event["certificateSigningRequest"].encode())
    name = str(request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    what = name.partition(".")[0]
    if what == "garbage":
        return {"certificatePem": "garbage"}
    subject, public_key, serial = request.subject, request.public_key(), x509.random_serial_number()
    start = datetime.now(UTC)
    if what == "wrong-key":
        public_key = key.public_key()
    elif what == "wrong-subject":
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody else")])
    elif what == "expired":
        start -= 366 * _DAY
    elif what == "not-yet":
        start += _DAY
    elif what == "same":
        serial, start = 4711, ca.not_valid_before_utc + 300 * _DAY
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(start + 365 * _DAY)
        .add_extension(
            x509.BasicConstraints(ca=what == "authority", path_length=None), critical=True
        )
        # RFC 6979: what is the same comes out the same
        .sign(key, hashes.SHA384(), ecdsa_deterministic=what == "same")
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return {"certificatePem": pem + ca_pem if what == "chain" else pem}

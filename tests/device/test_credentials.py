"""Files for TLS, looked at before they are used."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.device import credentials, tls
from fleetgate.pki import pem
from tests.device.conftest import Issuer


def test_an_authority_that_systems_trust_is_not_doubted(issuer: Issuer, tmp_path: Path) -> None:
    """Debian's file has one whose serial number is not positive, which RFC 5280 forbids."""
    der = issuer.authority.certificate.public_bytes(Encoding.DER)
    version_and_serial = b"\xa0\x03\x02\x01\x02\x02\x01"
    assert der.count(version_and_serial + b"\x01") == 1
    old = der.replace(version_and_serial + b"\x01", version_and_serial + b"\x00")
    file = tmp_path / "authorities.pem"
    file.write_text(pem.encode("CERTIFICATE", old) + issuer.authority.certificate_pem())
    credentials.explain_authorities(file)
    assert len(tls.trusting(file).get_ca_certs(binary_form=True)) == 2

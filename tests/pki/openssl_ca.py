"""Certificates made by the `openssl` command, as AWS's guide tells people to make them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.pki.openssl import openssl

KEYS = {
    "rsa-2048": "RSA -pkeyopt rsa_keygen_bits:2048",
    "rsa-3072": "RSA -pkeyopt rsa_keygen_bits:3072",
    "p-256": "EC -pkeyopt ec_paramgen_curve:P-256",
    "p-384": "EC -pkeyopt ec_paramgen_curve:P-384",
    "p-521": "EC -pkeyopt ec_paramgen_curve:P-521",
    "rsa-1024": "RSA -pkeyopt rsa_keygen_bits:1024",
    "k-256": "EC -pkeyopt ec_paramgen_curve:secp256k1",
    "ed25519": "ED25519",
}
"""Options of ``openssl genpkey -algorithm`` by a name for the kind of key."""

_EXTENSIONS = "[ca]\nbasicConstraints=critical,CA:true\n[leaf]\nbasicConstraints=CA:false\n[none]\n"


@dataclass(frozen=True)
class Made:
    """A certificate and its key, as files and as PEM text."""

    certificate: Path
    key: Path

    @property
    def pem(self) -> str:
        return self.certificate.read_text()


def make(
    directory: Path,
    name: str,
    signer: Made | None = None,
    *,
    subject: str = "",
    kind: str = "p-256",
    extensions: str = "ca",
    days: int = 30,
    options: str = "-sha256",
) -> Made:
    """A certificate with the extensions ``ca``, ``leaf`` or ``none``, signed by `signer` or itself.

    `subject` is ``/CN={name}`` when it is left out; `days` may be negative.
    """
    made = Made(directory / f"{name}.pem", directory / f"{name}.key")
    request = directory / f"{name}.csr"
    sections = directory / "extensions.cnf"
    sections.write_text(_EXTENSIONS)
    openssl(f"genpkey -algorithm {KEYS[kind]} -out", made.key)
    openssl("req -new -subj", subject or f"/CN={name}", "-key", made.key, "-out", request)
    by: list[str | Path] = ["-signkey", made.key]
    if signer is not None:
        by = ["-CA", signer.certificate, "-CAkey", signer.key, "-CAcreateserial"]
    openssl(
        f"x509 -req {options} -days {days} -extensions {extensions} -extfile",
        sections,
        "-in",
        request,
        "-out",
        made.certificate,
        *by,
    )
    return made

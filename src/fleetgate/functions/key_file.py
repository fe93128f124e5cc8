"""Private keys in files."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fleetgate.functions.options import read_file, read_secret
from fleetgate.pki.operator_authority import PrivateKey


def read_private_key(path: Path, passphrase_file: Path | None) -> PrivateKey:
    """The RSA or EC key in a PEM file that only its owner may read.

    `passphrase_file` holds the passphrase of an encrypted one. Raises ValueError; the messages
    name the options `key` and `passphrase_file`.
    """
    content = read_file("`key`", path, secret=True)
    passphrase = None
    if passphrase_file is not None:
        passphrase = read_secret("`passphrase_file`", passphrase_file).encode("utf-8")
    try:
        key = load_pem_private_key(content, passphrase)
    except TypeError:
        rule = "is encrypted; `passphrase_file` is required"
        if passphrase is not None:
            rule = "is not encrypted, but `passphrase_file` is given"
        raise ValueError(f"`key`: `{path}` {rule}") from None
    except (ValueError, UnsupportedAlgorithm):
        rule = "no private key in PEM that can be read"
        if passphrase is not None:
            rule += " with the passphrase in `passphrase_file`"
        raise ValueError(f"`key`: `{path}`: {rule}") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise ValueError(f"`key`: `{path}` has to be an RSA or an EC key")
    return key

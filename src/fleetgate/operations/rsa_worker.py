"""A process that makes RSA-2048 key pairs and writes them to its standard output.

One line a pair: base64 of the PKCS#1 PEM private key, a blank, base64 of the
SubjectPublicKeyInfo DER. It ends when nobody reads any more. Started by ``rsa_keys``.
"""

from __future__ import annotations

import base64
import os
import signal
import sys

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


def make() -> tuple[bytes, bytes]:
    """A new RSA-2048 key: private as PKCS#1 PEM, public as SubjectPublicKeyInfo DER."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def main() -> None:
    """Makes key pairs for as long as they are taken."""
    # Ctrl-C and SIGTERM to the process group are for the server: it ends us when it is done
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(10)
    out = sys.stdout.buffer
    try:
        while True:
            private, public = make()
            out.write(base64.b64encode(private) + b" " + base64.b64encode(public) + b"\n")
            out.flush()
    except BrokenPipeError:
        os._exit(0)  # leaving by the usual way would flush into the broken pipe once more


if __name__ == "__main__":
    main()

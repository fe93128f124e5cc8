"""Two settings of OpenSSL that pyOpenSSL has no calls for; they come from a file.

`load` has to run before anything imports `cryptography`: OpenSSL reads its configuration once,
when that package starts it. The file says that no TLS 1.3 session tickets are sent and which
groups are used for key agreement; both save time in every handshake. Without it everything
works, only slower.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Final

CONFIGURATION: Final = Path(__file__).with_name("openssl.cnf")
"""The file shipped with the package."""

_VARIABLE: Final = "OPENSSL_CONF"


def load() -> bool:
    """Start OpenSSL with `CONFIGURATION`. Returns whether the file was used.

    Nothing is changed when the environment names a file already (`OPENSSL_CONF`: providers for
    FIPS or PKCS#11, say): the administrator's file wins, and may take over our section. False is
    returned as well when `cryptography` is loaded already: then it is too late.

    The variable is only set while OpenSSL starts, so that neither the standard library's `ssl`
    nor child processes see it. Source: OpenSSL config(5), "SSL Configuration".
    """
    binding = "cryptography.hazmat.bindings._rust"
    if os.environ.get(_VARIABLE) or binding in sys.modules:
        return False
    os.environ[_VARIABLE] = str(CONFIGURATION)
    try:
        importlib.import_module(binding)
    finally:
        del os.environ[_VARIABLE]
    return True

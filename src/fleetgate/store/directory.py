"""One process owns a data directory: an advisory lock on a file in it says so."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from fleetgate.store.engine import StoreError


def take(path: Path) -> IO[str]:
    """Locks the file `path`, which says that its directory has an owner; close it to let go.

    Raises StoreError when another process holds it, or when it cannot be made.
    """
    try:
        # neither truncated nor followed: what is there may be somebody else's
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"the data directory `{path.parent}` cannot be written to: {error.strerror}"
        ) from None
    lock = os.fdopen(descriptor, "r+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StoreError(
            f"the data directory `{path.parent}` is in use by another fleetgate process"
        ) from None
    return lock

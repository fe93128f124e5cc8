"""Why a journey stops with what it has registered, and what its caller can do, in words.

(What is said of doubtful certificates is in :mod:`fleetgate.device.doubt`.)
"""

from __future__ import annotations

from pathlib import Path

from fleetgate.device.errors import ConnectionFailed, ProvisioningError, StorageRefused
from fleetgate.device.journal import Journal


def does_not_connect(
    journal: Journal, directory: Path, error: ProvisioningError, waited: float
) -> ConnectionFailed:
    """The error when a registered device cannot connect; `waited` seconds were spent on it."""
    explained = ConnectionFailed(
        f"the device is registered ({journal}) and stays so, but it does not connect. "
        "Run this again to try its certificate again, with another client id if its policy "
        "wants that (--own-client-id, `own_client_id`), or abandon it (`fleetgate "
        f"abandon {directory}`) to start again with another one. What "
        f"happened: {error.message}",
        waited=waited,
        retry=error.retry,
    )
    explained.step = error.step
    return explained


def not_written(journal: Journal, error: ProvisioningError) -> StorageRefused:
    """The error when nothing but files is missing to a device that has connected."""
    explained = StorageRefused(
        f"the device is registered ({journal}) and stays so, and its certificate works. When what "
        "is wrong with the disk is mended (when there is space again, for instance), run the same "
        f"again, which ends it. What happened: {error.message}"
    )
    explained.step = error.step
    return explained


def not_remembered(journal: Journal, error: StorageRefused) -> StorageRefused:
    """The error when the journal cannot be written that says that the device is registered."""
    return StorageRefused(
        f"the device is registered ({journal}) and stays so, but that could not be remembered. "
        "When what is wrong with the disk is mended (when there is space again, for instance), "
        f"run the same again while its token lives. What happened: {error.message}"
    )


def another_thing(journal: Journal, directory: Path, present: str) -> StorageRefused:
    """The error when a renewal of the thing `present` has registered another one."""
    return StorageRefused(
        f"`{directory}` is of thing `{present}`, and stays so, but what the renewal has registered "
        f"is another one ({journal}): are the parameters those of this device? To give it up, "
        f"`fleetgate abandon {directory}`, and delete on the server what nobody needs; to make "
        "this device the other thing, run this again with --new-thing (`new_thing`)"
    )


def another_journey(journal: Journal, directory: Path, differences: list[str]) -> StorageRefused:
    """The error when what is, or may be, registered is not what is asked for now."""
    what = "was registered" if journal.registration else "may have been registered"
    return StorageRefused(
        f"`{directory}` holds a device that {what} and was not finished ({journal}), with "
        f"{' and '.join(differences)}: ask for the same as then to finish it, choose another "
        f"directory, or abandon it (`fleetgate abandon {directory}`)"
    )

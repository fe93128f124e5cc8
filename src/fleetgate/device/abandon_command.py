"""``fleetgate abandon``: a provisioning or renewal that was not finished is given up."""

from __future__ import annotations

import argparse

from fleetgate.device import options
from fleetgate.device.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``fleetgate abandon``."""
    parser.description = (
        "Give up a provisioning or renewal that was not finished, with its key. The active "
        "identity stays. A device that was registered stays so on the server, until somebody "
        "deletes it there."
    )
    parser.add_argument(
        "directory", type=options.directory_of, metavar="DIR", help="the directory of the identity"
    )


def run(args: argparse.Namespace) -> int:
    """Carry it out; the exit code. Raises NoIdentity and StorageRefused."""
    from fleetgate.device.errors import NoIdentity
    from fleetgate.device.provision import abandon

    if not args.directory.exists():
        raise NoIdentity(f"`{args.directory}` is not there: nothing was begun in it")
    if abandon(args.directory):
        say(f"what was not finished in `{args.directory}` is given up")
    else:
        say(f"nothing in `{args.directory}` was unfinished")
    return 0

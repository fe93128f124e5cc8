"""All functions that can be run: those of the configuration, and uploaded ones as they come."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fleetgate.functions.configured import Configured


class Functions:
    """What runs functions, by their names.

    `configured` are those of the configuration; `directory` is where uploaded code is unpacked.
    """

    def __init__(
        self, configured: Mapping[str, Configured] | None = None, directory: Path | None = None
    ) -> None:
        self.configured = dict(configured or {})
        self._directory = directory

    async def reset(self) -> None:
        """Ends everything that was uploaded."""

    async def close(self) -> None:
        """Ends everything."""

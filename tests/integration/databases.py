"""Servers with SQLite and with PostgreSQL."""

from __future__ import annotations

import pytest

from tests.postgresql import Cluster

KINDS = ("sqlite", "postgresql")


def settings_of(kind: str, request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings (environment) of a server with an empty database of this kind."""
    if kind == "sqlite":
        return {}
    cluster: Cluster = request.getfixturevalue("cluster")
    return {"FLEETGATE_DATABASE": cluster.url(cluster.create_database())}

"""What a database is called, and that no message tells its password."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fleetgate.store.engine import StoreError
from fleetgate.store.libpq import Refused, connect
from fleetgate.store.target import Target, target, without_password
from tests.postgresql import Cluster


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Variables of the environment for libpq; what is put there goes after the test."""
    before = dict(os.environ)
    yield os.environ  # type: ignore[misc]
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@db.example/fleet", "database `fleet` on db.example:5432"),
        ("postgres://u:secret@10.1.2.3:6543/fleet", "database `fleet` on 10.1.2.3:6543"),
        ("postgresql://u@/fleet?host=/run/pg", "database `fleet` on /run/pg:5432"),
        ("postgresql://secret@[::1]/f", "database `f` on ::1:5432"),
        ("postgresql://u:s@a:1,b:2/f", "database `f` on a:1, b:2"),
    ],
)
def test_a_database_is_called_by_host_port_and_name(url: str, shown: str) -> None:
    where = target(url, 10.0)
    assert where.shown == shown
    assert "secret" not in repr(where)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:sec/ret@host/db",
        "postgresql://u:sec@ret@host/db",
        "postgresql://u:sec%ret@host/db",
        "postgresql://u:secret/db",
        "postgresql://u:secret@host/db?nonsense=secret",
        "postgresql://u:secret@host:x/db",
    ],
)
def test_a_url_that_cannot_be_read_is_not_shown(url: str) -> None:
    with pytest.raises(StoreError, match="percent-encoded") as caught:
        target(url, 10.0)
    assert "sec" not in caught.value.message
    assert "ret" not in caught.value.message


@pytest.mark.parametrize(
    ("variables", "url", "shown"),
    [
        ({"PGHOST": "db.example"}, "postgresql://u@/f", "database `f` on db.example:5432"),
        ({"PGHOST": "a", "PGPORT": "6"}, "postgresql://u@/f", "database `f` on a:6"),
        ({"PGHOST": "a,b", "PGPORT": "6,7"}, "postgresql://u@/f", "database `f` on a:6, b:7"),
        ({"PGHOST": "a"}, "postgresql://u@b/f", "database `f` on b:5432"),
        ({"PGHOSTADDR": "192.0.2.1"}, "postgresql://u@b/f", "database `f` on b (192.0.2.1):5432"),
        ({"PGDATABASE": "fleet"}, "postgresql://u@b", "database `fleet` on b:5432"),
        ({"PGUSER": "ann"}, "postgresql://b", "database `ann` on b:5432"),
        ({}, "postgresql://u@a,b:7/f", "database `f` on a:5432, b:7"),
        ({}, "postgresql://u@a,b/f?port=8", "database `f` on a:8, b:8"),
        ({}, "postgresql://u@/f", "database `f` on the local socket:5432"),
        ({}, "postgresql://u@/f?hostaddr=192.0.2.7", "database `f` on 192.0.2.7:5432"),
        ({}, "postgresql://u@/f?service=s", "database `f` on the host of service s:5432"),
    ],
)
def test_what_the_url_leaves_open_comes_from_libpqs_environment(
    environment: dict[str, str], variables: dict[str, str], url: str, shown: str
) -> None:
    """Source: PostgreSQL documentation, "Environment Variables"."""
    environment.update(variables)
    assert target(url, 10.0).shown == shown


def test_once_connected_it_is_called_by_the_host_that_answered(cluster: Cluster) -> None:
    url = cluster.url("postgres").replace("@127", "@127.0.0.1:1,127")
    where = target(url, 10.0)
    assert where.shown == f"database `postgres` on 127.0.0.1:1, 127.0.0.1:{cluster.port}"
    link = connect(where)
    assert link.shown == f"database `postgres` on 127.0.0.1:{cluster.port}"
    link.close()


def test_of_several_hosts_each_failure_is_named() -> None:
    where = target("postgresql://u:e@127.0.0.1:1,127.0.0.1:2/f", 10.0)
    with pytest.raises(Refused, match=r"port 1 failed: Connection refused.*") as caught:
        connect(where)
    assert "port 2 failed: Connection refused" in str(caught.value)


@pytest.mark.parametrize("password", ["e", "o", "1", "re", "postgres"])
def test_a_short_password_neither_garbles_a_message_nor_is_told_by_it(
    cluster: Cluster, password: str
) -> None:
    with pytest.raises(Refused) as caught:
        connect(target(f"postgresql://u:{password}@127.0.0.1:1/f", 10.0))
    assert 'connection to server at "127.0.0.1", port 1 failed: Connection refused' in str(
        caught.value
    )
    with pytest.raises(Refused) as caught:
        connect(target(cluster.url("postgres", password=password), 10.0))
    assert 'password authentication failed for user "postgres"' in str(caught.value)
    assert "***" not in str(caught.value)


@pytest.mark.parametrize("password", ["e", "p@ss w'rd", "0123456789"])
def test_a_connection_string_in_a_message_has_no_password(password: str) -> None:
    from psycopg.conninfo import make_conninfo

    text = make_conninfo("", host="h", password=password)
    where = Target(text, "it", 1.0)
    assert without_password(f"bad: {text}, he said", where) == "bad: host=h password=***, he said"
    url = f"postgresql://u:{password}@h/f"
    assert without_password(f"bad: {url}", where) == "bad: postgresql://u:***@h/f"

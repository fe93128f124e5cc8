"""Whose database it is, whichever way leads to it; and that it is whole and may be used."""

from __future__ import annotations

import asyncio
import threading
import time
from hashlib import sha256
from pathlib import Path

import pytest

from fleetgate.errors import InvalidRequestException, ServiceUnavailableException
from fleetgate.store.engine import StoreError, add_setting
from fleetgate.store.opening import migrate
from fleetgate.store.schema import MIGRATIONS, REGISTRY_TABLES
from tests.store.conftest import Opened, Owner, names

NEWEST = len(MIGRATIONS)


def path(owner: Owner, *schemas: str) -> str:
    """The database's URL with this search path."""
    return f"{owner.url}&options=-csearch_path%3D{'%2C'.join(schemas)}"


def schemas(owner: Owner) -> list[str]:
    """The schemas with tables of ours."""
    found = owner.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'fleetgate'")
    return sorted(str(row[0]) for row in found)


# --- one registry, one server -------------------------------------------------------------------


def test_another_search_path_to_the_same_tables_meets_the_same_owner(
    owner: Owner, opened: Opened, tmp_path: Path
) -> None:
    owner.execute("CREATE SCHEMA other", owner.role)
    first = opened(owner.url)
    url = path(owner, "other", "public")
    with pytest.raises(StoreError, match="is in use by another fleetgate process"):
        opened(url)
    with pytest.raises(StoreError, match="is in use by another fleetgate process"):
        migrate(tmp_path, url, 10.0)
    assert schemas(owner) == ["public"]
    asyncio.run(first.write(add_setting, "a", "1"))
    assert asyncio.run(first.read(names)) == ["a"]


@pytest.mark.parametrize("whose", ["ROLE {role}", "DATABASE {database}"])
def test_so_does_a_default_that_changed_meanwhile(owner: Owner, opened: Opened, whose: str) -> None:
    owner.execute("CREATE SCHEMA other", owner.role)
    first = opened(owner.url)
    whose = whose.format(role=owner.role, database=owner.database)
    owner.execute(f"ALTER {whose} SET search_path = other, public")
    with pytest.raises(StoreError, match="is in use by another fleetgate process"):
        opened(owner.url)
    # the first goes on where it is, on new connections too
    owner.execute(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                  f"WHERE usename = '{owner.role}'")  # fmt: skip
    asyncio.run(first.write(add_setting, "a", "1"))
    first.close()
    second = opened(owner.url)
    assert asyncio.run(second.read(names)) == ["a"]
    assert schemas(owner) == ["public"]


def test_a_server_stays_in_its_schema_when_one_with_the_roles_name_appears(
    owner: Owner, opened: Opened
) -> None:
    """PostgreSQL's own default search path is "$user", public."""
    first = opened(owner.url)
    owner.execute(f"CREATE SCHEMA {owner.role} AUTHORIZATION {owner.role}")
    asyncio.run(first.write(add_setting, "a", "1"))
    with pytest.raises(StoreError, match="is in use by another fleetgate process"):
        opened(owner.url)
    first.close()
    assert asyncio.run(opened(owner.url).read(names)) == ["a"]


def test_a_schema_that_is_renamed_keeps_its_owner(owner: Owner, opened: Opened) -> None:
    owner.execute("CREATE SCHEMA one", owner.role)
    opened(path(owner, "one"))
    owner.execute("ALTER SCHEMA one RENAME TO two", owner.role)
    with pytest.raises(StoreError, match="is in use by another fleetgate process"):
        opened(path(owner, "two"))


def test_a_schema_with_an_odd_name_is_as_good_as_any(owner: Owner, opened: Opened) -> None:
    owner.execute('CREATE SCHEMA "a, ""B"" c"', owner.role)
    store = opened(path(owner, "%22a%2C%5C%20%22%22B%22%22%5C%20c%22"))
    asyncio.run(store.write(add_setting, "a", "1"))
    assert schemas(owner) == ['a, "B" c']


# --- whole, and to be used ------------------------------------------------------------------------


def test_an_empty_version_table_is_a_restore_in_part(
    owner: Owner, opened: Opened, tmp_path: Path
) -> None:
    opened(owner.url).close()
    owner.execute("DELETE FROM fleetgate")
    for attempt in (lambda: opened(owner.url), lambda: migrate(tmp_path, owner.url, 10.0)):
        with pytest.raises(StoreError, match=r"table `fleetgate`.* empty.*restore the whole dump"):
            attempt()


def test_so_is_one_with_two_rows(owner: Owner, opened: Opened, tmp_path: Path) -> None:
    opened(owner.url).close()
    owner.execute("INSERT INTO fleetgate SELECT * FROM fleetgate")
    for attempt in (lambda: opened(owner.url), lambda: migrate(tmp_path, owner.url, 10.0)):
        with pytest.raises(StoreError, match=r"more than one row.*restore the whole dump"):
            attempt()


def test_so_is_a_missing_table(owner: Owner, opened: Opened) -> None:
    opened(owner.url).close()
    owner.execute("DROP TABLE thing_group_member")
    with pytest.raises(StoreError, match=r"no table `thing_group_member`.*restore the whole dump"):
        opened(owner.url)


@pytest.mark.parametrize("right", ["SELECT", "INSERT", "UPDATE", "DELETE"])
@pytest.mark.parametrize("table", ["fleetgate", "setting", "policy_attachment"])
def test_a_right_that_is_missing_is_told_at_the_start(
    owner: Owner, opened: Opened, table: str, right: str
) -> None:
    opened(owner.url).close()
    owner.execute(f"REVOKE {right} ON {table} FROM {owner.role}")
    said = f"role `{owner.role}` lacks the right to {right} on the table `{table}`: GRANT"
    with pytest.raises(StoreError, match=said):
        opened(owner.url)
    owner.execute(f"GRANT {right} ON {table} TO {owner.role}")
    opened(owner.url).close()


def test_a_role_that_may_only_look_is_told_so_in_one_line(owner: Owner, opened: Opened) -> None:
    opened(owner.url).close()
    tables = ", ".join(["fleetgate", "setting", *REGISTRY_TABLES])
    owner.execute(f"REVOKE INSERT, DELETE ON {tables} FROM {owner.role}")
    owner.execute(f"GRANT INSERT, DELETE ON fleetgate TO {owner.role}")
    with pytest.raises(StoreError, match=r"DELETE and INSERT.*and rights on [0-9]+ further") as no:
        opened(owner.url)
    assert "\n" not in no.value.message


def test_a_right_that_is_revoked_meanwhile_is_no_defect_of_the_server(
    owner: Owner, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(owner.url)
    owner.execute(f"REVOKE INSERT ON setting FROM {owner.role}")
    with pytest.raises(ServiceUnavailableException):
        asyncio.run(store.write(add_setting, "a", "1"))
    assert "permission denied for table setting" in caplog.text
    owner.execute(f"GRANT INSERT ON setting TO {owner.role}")
    asyncio.run(store.write(add_setting, "a", "1"))


def test_text_that_no_index_has_room_for_is_a_wrong_request(owner: Owner, opened: Opened) -> None:
    """SQLSTATE 54000, program_limit_exceeded."""
    store = opened(owner.url)
    text = "".join(sha256(b"%d" % number).hexdigest() for number in range(500))
    with pytest.raises(InvalidRequestException, match="too long"):
        asyncio.run(store.write(add_setting, text, "1"))
    asyncio.run(store.write(add_setting, "a", "1"))


# --- locks of others ------------------------------------------------------------------------------


def in_version_1(owner: Owner, opened: Opened) -> None:
    """Makes the registry one of version 1: its newest tables and columns are taken away."""
    opened(owner.url).close()
    tables = [row[0] for row in owner.execute("SELECT tablename FROM pg_tables "
                                              "WHERE schemaname = 'public'")]  # fmt: skip
    owner.execute(f"DROP TABLE {', '.join(str(table) for table in tables)}")
    for statement in MIGRATIONS[0]:
        owner.execute(statement, owner.role)
    owner.execute("CREATE TABLE fleetgate AS SELECT CAST(1 AS BIGINT) version, '' owner",
                  owner.role)  # fmt: skip


def test_whoever_migrates_is_told_what_is_waited_for(
    owner: Owner, opened: Opened, tmp_path: Path
) -> None:
    in_version_1(owner, opened)
    said: list[str] = []
    told = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        told.set()

    def run() -> None:
        done.append(migrate(tmp_path, owner.url, 30.0, say))

    done: list[tuple[int, int]] = []
    with owner.cluster.connect(owner.database) as other:
        other.execute("SET application_name = 'psql'")
        other.execute("BEGIN")
        other.execute("SELECT * FROM thing")
        pid = other.info.backend_pid
        thread = threading.Thread(target=run)
        thread.start()
        begun = time.monotonic()
        assert told.wait(10)
        assert time.monotonic() - begun < 6
        other.execute("COMMIT")
    thread.join(30)
    assert done == [(1, NEWEST)]
    assert said == [
        f"waiting for the table `thing`, in use by process {pid} (user postgres, application psql)"
    ]


def test_a_lock_that_is_never_given_is_given_up(
    owner: Owner, opened: Opened, tmp_path: Path
) -> None:
    in_version_1(owner, opened)
    with owner.cluster.connect(owner.database) as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE fleetgate IN SHARE MODE")
        said: list[str] = []
        with pytest.raises(
            StoreError, match=r"gave up after 1 s of waiting for the table `fleetgate`, in use by"
        ):
            migrate(tmp_path, owner.url, 1.0, said.append)
        assert len(said) == 1
        other.execute("COMMIT")
    assert migrate(tmp_path, owner.url, 30.0, said.append) == (1, NEWEST)
    assert len(said) == 1


def test_whoever_waits_for_another_that_migrates_is_told(
    owner: Owner, opened: Opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_version_1(owner, opened)
    with owner.cluster.connect(owner.database) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM thing")
        thread = threading.Thread(target=migrate, args=(tmp_path, owner.url, 30.0, print))
        thread.start()
        while not owner.execute("SELECT 1 FROM pg_locks WHERE NOT granted"):
            time.sleep(0.01)
        with pytest.raises(
            StoreError, match="waiting for another fleetgate process that starts or migrates, in us"
        ):
            migrate(tmp_path, owner.url, 0.5)
        with pytest.raises(StoreError, match="waiting for another fleetgate process"):
            opened(owner.url, timeout=0.5)
        assert "event=waiting-for-database cause=waiting for another" in caplog.text
        other.execute("COMMIT")
    thread.join(30)
    opened(owner.url)

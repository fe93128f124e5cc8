"""What holds for the store on both databases: all or nothing, one order, the same values."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from fleetgate.errors import InvalidRequestException, ResourceAlreadyExistsException
from fleetgate.store.engine import Store, Tx, add_setting, find_setting
from fleetgate.store.schema import REGISTRY_TABLES


def names(tx: Tx) -> list[str]:
    return [row[0] for row in tx.all("SELECT name FROM setting ORDER BY name")]


def columns(tx: Tx, table: str) -> list[str]:
    """The columns of a table, in any order, read in a way both databases know."""
    found = tx.one(f"SELECT * FROM (SELECT 1 AS one) x LEFT JOIN {table} t ON 1 = 0")
    assert found is not None
    return ["1"] * (len(found) - 1)


def test_what_a_write_returned_is_seen_by_a_read(store: Store) -> None:
    async def scenario() -> str | None:
        await store.write(add_setting, "a", "1")
        return await store.read(find_setting, "a")

    assert asyncio.run(scenario()) == "1"


def test_a_write_that_raises_leaves_nothing_and_spares_those_beside_it(store: Store) -> None:
    gate = threading.Event()

    def hold(tx: Tx) -> None:
        gate.wait(10)

    def half(tx: Tx) -> None:
        add_setting(tx, "half", "1")
        assert names(tx)
        raise LookupError("the second half")

    async def scenario() -> list[object]:
        held = asyncio.create_task(store.write(hold))
        await asyncio.sleep(0)
        # on SQLite these wait together and so share one commit
        rest = [
            asyncio.create_task(store.write(add_setting, "before", "1")),
            asyncio.create_task(store.write(half)),
            asyncio.create_task(store.write(add_setting, "after", "1")),
        ]
        await asyncio.sleep(0)
        gate.set()
        await held
        return list(await asyncio.gather(*rest, return_exceptions=True))

    before, half_way, after = asyncio.run(scenario())
    assert (before, after) == (None, None)
    assert isinstance(half_way, LookupError)
    assert asyncio.run(store.read(names)) == ["after", "before"]


def test_a_transaction_sees_what_it_has_done_itself(store: Store) -> None:
    def work(tx: Tx) -> tuple[int, int, list[str]]:
        tx.send("INSERT INTO setting (name, value) VALUES ('a', '1'), ('b', '1')")
        changed = tx.run("UPDATE setting SET value = :new WHERE value = :old", new="2", old="1")
        gone = tx.run("DELETE FROM setting WHERE name = :name", name="b")
        return changed, gone, names(tx)

    assert asyncio.run(store.write(work)) == (2, 1, ["a"])


def test_what_is_sent_last_is_stored_too_and_what_it_breaks_undoes_all(store: Store) -> None:
    def twice(tx: Tx) -> None:
        tx.send("INSERT INTO setting (name, value) VALUES ('c', '1')")
        tx.send("INSERT INTO setting (name, value) VALUES ('a', '1')")

    asyncio.run(store.write(add_setting, "a", "1"))
    with pytest.raises(Exception, match=r"(?i)unique"):
        asyncio.run(store.write(twice))
    assert asyncio.run(store.read(names)) == ["a"]
    asyncio.run(store.write(add_setting, "b", "1"))
    assert asyncio.run(store.read(names)) == ["a", "b"]


def test_more_than_travels_together_is_sent(store: Store) -> None:
    def many(tx: Tx) -> None:
        for number in range(250):
            add_setting(tx, f"{number:03}", "x")

    asyncio.run(store.write(many))
    assert asyncio.run(store.read(names)) == [f"{number:03}" for number in range(250)]


def test_a_failure_that_is_swallowed_is_no_success(store: Store, database: str) -> None:
    def work(tx: Tx) -> str:
        tx.run("INSERT INTO setting (name, value) VALUES ('b', '1')")
        try:
            tx.run("INSERT INTO setting (name, value) VALUES ('a', '1')")
        except Exception:  # of whichever driver
            return "fine"
        return "not refused"

    asyncio.run(store.write(add_setting, "a", "1"))
    if database == "sqlite":  # a statement that fails is undone alone
        assert asyncio.run(store.write(work)) == "fine"
        assert asyncio.run(store.read(names)) == ["a", "b"]
    else:  # PostgreSQL carries out nothing after it, so nothing may be promised
        with pytest.raises(Exception, match="unique"):
            asyncio.run(store.write(work))
        assert asyncio.run(store.read(names)) == ["a"]


def test_a_read_cannot_write(store: Store) -> None:
    with pytest.raises(Exception, match=r"(?i)read.?only|cannot do this now"):
        asyncio.run(
            store.read(lambda tx: tx.run("INSERT INTO setting (name, value) VALUES ('a', '1')"))
        )
    assert asyncio.run(store.read(names)) == []
    asyncio.run(store.write(add_setting, "a", "1"))


def test_counting_at_the_same_time_loses_nothing(store: Store) -> None:
    def count(tx: Tx) -> None:
        value = find_setting(tx, "count")
        tx.run("UPDATE setting SET value = :v WHERE name = 'count'", v=str(int(value or 0) + 1))

    async def scenario() -> str | None:
        await store.write(add_setting, "count", "0")
        await asyncio.gather(*(store.write(count) for _ in range(60)))
        return await store.read(find_setting, "count")

    assert asyncio.run(scenario()) == "60"


def test_of_many_who_create_the_same_one_does_and_the_others_are_told(store: Store) -> None:
    def create(tx: Tx, who: str) -> str:
        found = find_setting(tx, "name")
        if found is not None:
            raise ResourceAlreadyExistsException(found)
        add_setting(tx, "name", who)
        return who

    async def scenario() -> list[object]:
        tasks = (store.write(create, str(number)) for number in range(20))
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    outcomes = asyncio.run(scenario())
    [winner] = [each for each in outcomes if isinstance(each, str)]
    told = [each.message for each in outcomes if isinstance(each, ResourceAlreadyExistsException)]
    assert told == [winner] * 19


def test_two_that_would_break_a_rule_together_do_not(store: Store) -> None:
    """Write skew: each finds the other's row missing, and adds its own."""

    def add(tx: Tx, name: str, other: str) -> None:
        if find_setting(tx, other) is None:
            add_setting(tx, name, "1")

    async def scenario(number: int) -> int:
        one, two = f"one{number}", f"two{number}"
        await asyncio.gather(store.write(add, one, two), store.write(add, two, one))
        return len([each for each in await store.read(names) if each in (one, two)])

    for number in range(20):
        assert asyncio.run(scenario(number)) == 1


TEXTS = (
    *("", "0", "9", "A", "Z", "_", "a", "a b", "a-b", "a_b", "ab", "b", "z", "~", "ä", "é", "ſ"),
    *("\u2028", "\ud7ff", "\ue000", "\uffff", "\U0001f600", "\x01", "'", "\\", '"', "%s", ":x"),
)


def test_text_sorts_by_its_bytes_and_comes_back_as_it_was(store: Store) -> None:
    def fill(tx: Tx) -> None:
        for text in TEXTS:
            add_setting(tx, text, text * 3)

    asyncio.run(store.write(fill))
    by_bytes = sorted(TEXTS, key=str.encode)
    assert asyncio.run(store.read(names)) == by_bytes

    def behind(tx: Tx, after: str) -> list[str]:
        rows = tx.all(
            "SELECT name, value FROM setting WHERE name > :after ORDER BY name LIMIT :limit",
            after=after,
            limit=3,
        )
        assert [row[1] for row in rows] == [row[0] * 3 for row in rows]
        return [row[0] for row in rows]

    for index, text in enumerate(by_bytes):
        assert asyncio.run(store.read(behind, text)) == by_bytes[index + 1 : index + 4]


def test_numbers_come_back_as_they_were(store: Store) -> None:
    whole = [0, 1, -1, 2**31, 2**63 - 1, -(2**63)]
    broken = [0.0, 0.1, 1e-300, 1e300, 1_790_000_000.123456, 2.5e9, 3]

    def work(tx: Tx) -> list[tuple[int, float]]:
        for number, (version, created) in enumerate(zip(whole, broken, strict=False)):
            tx.send(
                "INSERT INTO billing_group VALUES (:name, 'id', NULL, :version, :created)",
                name=str(number),
                version=version,
                created=created,
            )
        rows = tx.all("SELECT version, created_at FROM billing_group ORDER BY billing_group_name")
        return [(row[0], row[1]) for row in rows]

    found = asyncio.run(store.write(work))
    assert found == list(zip(whole, broken, strict=False))
    assert {tuple(map(type, row)) for row in found} == {(int, float)}


def test_what_is_computed_is_of_the_same_kind_on_both(store: Store) -> None:
    def work(tx: Tx) -> object:
        for number in range(3):
            tx.send(
                "INSERT INTO billing_group VALUES (:name, 'id', NULL, :version, 1)",
                name=str(number),
                version=number,
            )
        return tx.one(
            "SELECT count(*), sum(version), max(version), EXISTS(SELECT 1 FROM billing_group), "
            "sum(created_at), CAST(:text AS TEXT) || 'b', NULL, NULLIF(1, 1) FROM billing_group",
            text="a",
        )

    found = asyncio.run(store.write(work))
    assert repr(found) == "(3, 3, 2, 1, 3.0, 'ab', None, None)"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a\0b", "value: U+0000 cannot be stored"),
        ("a\ud800b", "value: it is no Unicode text (a lone surrogate)"),
        (2**63, f"value: `{2**63}` is no whole number of 64 bits"),
        (-(2**63) - 1, f"value: `{-(2**63) - 1}` is no whole number of 64 bits"),
    ],
)
@pytest.mark.parametrize("how", ["read", "write", "send"])
def test_a_value_that_not_every_database_can_hold_is_refused(
    store: Store, value: object, message: str, how: str
) -> None:
    ways: dict[str, Callable[[Tx], object]] = {
        "read": lambda tx: tx.one("SELECT 1 FROM setting WHERE value = :value", value=value),
        "write": lambda tx: tx.run("UPDATE setting SET value = :value", value=value),
        "send": lambda tx: tx.send("UPDATE setting SET value = :value", value=value),
    }

    async def scenario() -> None:
        await store.write(add_setting, "a", "1")
        with pytest.raises(InvalidRequestException) as caught:
            await (store.read if how == "read" else store.write)(ways[how])
        assert caught.value.message == message
        assert await store.read(find_setting, "a") == "1"
        await store.write(add_setting, "b", "1")

    asyncio.run(scenario())


def test_a_caller_that_goes_away_does_no_harm(store: Store) -> None:
    async def scenario() -> list[str]:
        gone = asyncio.create_task(store.write(add_setting, "a", "1"))
        await asyncio.sleep(0)
        gone.cancel()
        await store.write(add_setting, "b", "1")
        return await store.read(names)

    assert "b" in asyncio.run(scenario())


def test_reset_empties_the_registry_and_keeps_the_settings(store: Store) -> None:
    def fill(tx: Tx) -> None:
        add_setting(tx, "account", "000000000000")
        for table in REGISTRY_TABLES:
            # every column takes '1', whichever type it has
            values = ", ".join(["'1'"] * len(columns(tx, table)))
            tx.run(f"INSERT INTO {table} VALUES ({values})")

    def count(tx: Tx) -> int:
        return sum(tx.all(f"SELECT count(*) FROM {each}")[0][0] for each in REGISTRY_TABLES)

    asyncio.run(store.write(fill))
    assert asyncio.run(store.read(count)) == len(REGISTRY_TABLES)
    asyncio.run(store.reset())
    assert asyncio.run(store.read(count)) == 0
    assert asyncio.run(store.read(names)) == ["account"]


def test_every_table_is_either_the_registry_or_settings(store: Store, database: str) -> None:
    ours = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
        "postgresql": "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() "
        "AND tablename <> 'fleetgate'",
    }
    tables = asyncio.run(store.read(lambda tx: tx.all(ours[database])))
    assert {row[0] for row in tables} == {*REGISTRY_TABLES, "setting"}

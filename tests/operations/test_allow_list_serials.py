"""What operators do with allow-lists. Rules: docs/built-in-functions.md."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fleetgate.errors import InvalidRequestException, ResourceNotFoundException
from fleetgate.operations import allow_list_serials
from fleetgate.operations.allow_list_serials import MAX_BATCH, MAX_OVERRIDES, New
from fleetgate.operations.call import Call
from tests.operations.built_ins import hooked
from tests.operations.conftest import START, Registry
from tests.operations.test_allow_list import come


def do(
    registry: Registry, fn: Callable[..., Awaitable[dict[str, Any]]], *given: Any, **more: Any
) -> Any:
    async def run() -> dict[str, Any]:
        return await fn(
            Call(registry.services, "request", registry.clock()), "gate", *given, **more
        )

    return registry.runner.run(run())


def add(registry: Registry, *serials: str | New) -> None:
    new = [each if isinstance(each, New) else New(each) for each in serials]
    do(registry, allow_list_serials.add_serials, new)


def names(registry: Registry, *, used: bool = False, page: int = 3) -> list[list[str]]:
    """The serial numbers of each page."""
    pages, token = [], None
    while True:
        found = do(registry, allow_list_serials.list_serials, page, token, used=used)
        pages.append([each["serialNumber"] for each in found["serialNumbers"]])
        token = found["nextToken"]
        if token is None:
            return pages


def describe(registry: Registry, serial: str) -> Any:
    return do(registry, allow_list_serials.describe_serial, serial)


def release(registry: Registry, serial: str, by: str | None = None, *, every: bool = False) -> int:
    found = do(registry, allow_list_serials.release_serial, serial, by, every=every)
    return int(found["released"])


def test_pages_of_a_list(registry: Registry) -> None:
    hooked(registry, "allow-list")
    add(registry, *"gfedcba")
    come(registry, "e")
    assert names(registry) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert names(registry, page=7) == [["a", "b", "c", "d", "e", "f", "g"]]
    assert names(registry, used=True) == [["e"]]
    first = do(registry, allow_list_serials.list_serials, 3, None, used=False)
    with pytest.raises(InvalidRequestException):
        do(registry, allow_list_serials.list_serials, 3, first["nextToken"], used=True)


def test_what_is_put_on_a_list(registry: Registry) -> None:
    hooked(registry, "allow-list", overrides=True)
    add(registry, New(" x ", 2, {"Site": "B"}), New("x", "3"), New("y", "unlimited"), "z")
    shown = describe(registry, "x")
    assert (shown["uses"], shown["overrides"], shown["addedAt"]) == (3, {}, START)
    assert (describe(registry, "y")["uses"], describe(registry, "z")["uses"]) == ("unlimited", 1)
    add(registry, New("z", 1, {"Site": "B"}))
    assert come(registry, "z")["deviceConfiguration"] == {"site": "B", "Site": "B"}
    hooked(registry, "allow-list")
    add(registry, New("v", 2, {"Site": "B"}))
    assert come(registry, "v")["deviceConfiguration"] == {"site": "A"}


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ([New("a"), New(" ")], "serial number 2 is empty"),
        ([New("a\0")], "without U+0000"),
        ([New("a" * 1025)], "at most 1024 bytes"),
        ([New("a", 0)], "serial number 1 (`a`): `uses`: a whole number from 1"),
        ([New("a", None, {"x": "y" * MAX_OVERRIDES})], "characters as JSON, at most are"),
        ([], f"a request has 1 to {MAX_BATCH} serial numbers, not 0"),
        ([New("a")] * (MAX_BATCH + 1), f"not {MAX_BATCH + 1}"),
    ],
)
def test_what_is_not_put_on_a_list(registry: Registry, new: list[New], words: str) -> None:
    hooked(registry, "allow-list")
    with pytest.raises(InvalidRequestException) as caught:
        add(registry, *new) if new else do(registry, allow_list_serials.add_serials, [])
    assert words in caught.value.message
    assert names(registry) == [[]]


def test_what_is_taken_away_is_remembered_when_it_was_used(registry: Registry) -> None:
    hooked(registry, "allow-list")
    add(registry, "a", "b")
    come(registry, "a")
    removed = do(registry, allow_list_serials.remove_serials, ["a", "b", "c", "\0"])
    assert removed == {"removed": ["a", "b"]}
    assert names(registry) == [["a"]]
    shown = describe(registry, "a")
    assert (shown["listed"], shown["uses"], shown["used"]) == (False, None, 1)
    with pytest.raises(ResourceNotFoundException):
        describe(registry, "b")
    add(registry, "a")
    assert describe(registry, "a")["used"] == 1


def test_uses_are_given_back(registry: Registry) -> None:
    hooked(registry, "allow-list", uses=3)
    add(registry, "a")
    for _ in range(3):
        registry.clock.now += 1
        come(registry, "a")
    by = [each["certificateId"] for each in describe(registry, "a")["usedBy"]]
    assert [each["usedAt"] - START for each in describe(registry, "a")["usedBy"]] == [3, 2, 1]
    assert release(registry, "a", by[1]) == 1
    assert [each["certificateId"] for each in describe(registry, "a")["usedBy"]] == [by[0], by[2]]
    assert release(registry, "a") == 1
    assert [each["certificateId"] for each in describe(registry, "a")["usedBy"]] == [by[2]]
    come(registry, "a")
    assert describe(registry, "a")["used"] == 2
    assert release(registry, "a", every=True) == 2
    assert describe(registry, "a")["used"] == 0
    for serial, certificate in (("a", None), ("b", None), ("a", by[0]), ("\0", None)):
        with pytest.raises(ResourceNotFoundException):
            release(registry, serial, certificate)


def test_a_list_in_a_file(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "s.csv"
    file.write_text("s,uses,Site\na,,B\nb,2,\n")
    hooked(registry, "allow-list", tmp_path, file="s.csv", overrides=True)
    for fn, given in (
        (allow_list_serials.add_serials, [New("c")]),
        (allow_list_serials.remove_serials, ["a"]),
    ):
        with pytest.raises(InvalidRequestException) as caught:
            do(registry, fn, given)
        assert f"are in `{file}`: change the file" in caught.value.message
    assert names(registry) == [["a", "b"]]
    assert names(registry, used=True) == [[]]
    come(registry, "a")
    assert names(registry, used=True) == [["a"]]
    shown = describe(registry, "a")
    assert (shown["listed"], shown["uses"], shown["used"]) == (True, 1, 1)
    assert (shown["overrides"], len(shown["usedBy"])) == ({"Site": "B"}, 1)
    shown = describe(registry, "b")
    assert (shown["listed"], shown["uses"], shown["used"], shown["usedBy"]) == (True, 2, 0, [])
    file.write_text("s\nc\n")
    shown = describe(registry, "a")
    assert (shown["listed"], shown["uses"]) == (False, None)
    assert release(registry, "a") == 1
    file.unlink()
    with pytest.raises(InvalidRequestException):
        describe(registry, "a")
    with pytest.raises(ResourceNotFoundException):
        release(registry, "b")


def test_a_listing_of_a_file_says_what_the_file_says(registry: Registry, tmp_path: Path) -> None:
    hooked(registry, "allow-list")
    add(registry, "before")  # of a list in the database: no business of a file's
    file = tmp_path / "s.csv"
    file.write_text("s,uses,Site\ng,,\nf,unlimited,B\nc,3,\na,2,\nx,1,\n")
    hooked(registry, "allow-list", tmp_path, file="s.csv", overrides=True)
    for serial in "ffffacx":
        come(registry, serial)
    file.write_text("s,uses,Site\ng,,\nf,unlimited,B\nc,5,\na,2,\nb,,\n")
    assert names(registry) == [["a", "b", "c"], ["f", "g", "x"]]
    assert names(registry, used=True, page=2) == [["a", "c"], ["f", "x"]]
    found = do(registry, allow_list_serials.list_serials, 9, None, used=False)["serialNumbers"]
    told = {each["serialNumber"]: each for each in found}
    assert {name: (each["listed"], each["uses"], each["used"]) for name, each in told.items()} == {
        "a": (True, 2, 1),
        "b": (True, 1, 0),
        "c": (True, 5, 1),
        "f": (True, "unlimited", 4),
        "g": (True, 1, 0),
        "x": (False, None, 1),
    }
    assert told["f"]["overrides"] == {"Site": "B"}
    for name, each in told.items():
        assert describe(registry, name) == {**each, "usedBy": describe(registry, name)["usedBy"]}
    file.unlink()
    with pytest.raises(InvalidRequestException, match="the file cannot be used"):
        names(registry)

"""What is kept while there is room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetgate.operations.kept import ENTRY, SHARE, Kept

ROOM = SHARE * 10 * ENTRY


def test_what_was_used_last_stays_longest() -> None:
    kept = Kept[str, int](3 * ENTRY)
    for number, key in enumerate("abc"):
        kept.put(key, number, 0)
    assert kept.get("a") == 0
    kept.put("d", 3, 0)
    assert [kept.get(each) for each in "abcd"] == [0, None, 2, 3]
    kept.put("a", 9, 0)
    assert kept.get("a") == 9
    assert len(kept) == 3


def test_what_is_large_takes_the_room_of_several() -> None:
    kept = Kept[str, int](4 * ENTRY)
    for key in "abcd":
        kept.put(key, 0, 0)
    kept.put("e", 1, 2 * ENTRY)
    assert [key for key in "abcde" if kept.get(key) is not None] == ["d", "e"]
    kept.put("f", 1, 4 * ENTRY)  # larger than all the room
    assert len(kept) == 0


def test_an_owner_has_a_share_and_drives_out_nobody_else() -> None:
    kept = Kept[tuple[str, int], int](ROOM)
    kept.put(("other", 0), 7, 0, "other")
    for number in range(1000):
        kept.put(("one", number), number, 0, "one")
    assert kept.get(("other", 0)) == 7
    assert len(kept) == 1 + 10
    assert kept.get(("one", 999)) == 999
    assert kept.get(("one", 989)) is None


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5 * ENTRY), st.sampled_from("xyz"))))
def test_there_is_never_more_than_there_is_room_for(
    puts: list[tuple[int, int, str]],
) -> None:
    kept = Kept[int, int](12 * ENTRY)
    sizes: dict[int, int] = {}
    for key, size, owner in puts:
        kept.put(key, key, size, "" if owner == "z" else owner)
        sizes[key] = size + ENTRY
        assert sum(sizes[each] for each in sizes if kept.get(each) is not None) <= 12 * ENTRY

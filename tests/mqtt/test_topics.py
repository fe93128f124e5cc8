from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import ProtocolError
from fleetgate.mqtt.topics import Subscriptions, check_filter, check_topic, matches, split_shared

# Few letters and short levels, so that filters and topics meet.
levels = st.sampled_from(["", "a", "b", "$a"])
topics = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
filters = st.builds(
    lambda body, tail: "/".join(body + tail),
    st.lists(levels | st.just("+"), max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)


def oracle(topic_filter: str, topic: str) -> bool:
    """The rules once more as a regular expression."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    pattern = re.escape(topic_filter).replace(r"\+", "[^/]*")
    return re.fullmatch(re.sub(r"\\#$", ".*", pattern), topic) is not None


# MQTT 5.0 section 4.7.1 and 4.7.2, with "sport/#" as AWS IoT does it ("MQTT topics", "Topic
# filters": it matches what is below, not `sport` itself).
@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/tennis/player1/#", "sport/tennis/player1", False),  # AWS
        ("sport/#", "sport", False),  # AWS
        ("sport/#", "sport/", True),
        ("#", "sport", True),
        ("#", "/", True),
        ("sport/tennis/+", "sport/tennis/player1", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("+/tennis/#", "sport/tennis/x", True),
        ("#", "$SYS/x", False),
        ("+/monitor/Clients", "$SYS/monitor/Clients", False),
        ("$SYS/#", "$SYS/", True),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", True),
        ("a/#", "a/$x", True),
        ("a/+", "a/$x", True),
        ("ACCOUNTS", "Accounts", False),
        ("/finance", "finance", False),
    ],
)
def test_matching_follows_the_standard_and_aws(
    topic_filter: str, topic: str, expected: bool
) -> None:
    assert matches(topic_filter, topic) is expected
    assert oracle(topic_filter, topic) is expected


@given(filters, topics)
def test_matches_equals_the_naive_oracle(topic_filter: str, topic: str) -> None:
    assert matches(topic_filter, topic) == oracle(topic_filter, topic)


entries = st.tuples(filters, st.integers(0, 3))


@given(st.lists(st.tuples(st.booleans(), entries), max_size=20), topics)
def test_the_trie_equals_matches(steps: list[tuple[bool, tuple[str, int]]], topic: str) -> None:
    trie = Subscriptions[int, int]()
    model: dict[tuple[str, int], int] = {}
    for number, (adding, entry) in enumerate(steps):
        if adding:
            assert trie.add(*entry, number) is (entry not in model)
            model[entry] = number
        else:
            assert trie.remove(*entry) is (model.pop(entry, None) is not None)
    assert len(trie) == len(model)
    expected = sorted((e[1], value) for e, value in model.items() if matches(e[0], topic))
    assert sorted(trie.match(topic)) == expected


@given(st.lists(entries, unique=True, max_size=12))
def test_a_trie_that_lost_everything_is_empty(added: list[tuple[str, int]]) -> None:
    trie = Subscriptions[int, None]()
    for entry in added:
        trie.add(*entry, None)
    for entry in reversed(added):
        assert trie.remove(*entry)
    assert len(trie) == 0
    assert not trie._root.below


def test_matching_a_topic_of_many_levels_does_not_recurse() -> None:
    trie = Subscriptions[str, int]()
    trie.add("/" * 5000 + "#", "deep", 1)
    trie.add("#", "all", 2)
    assert sorted(trie.match("/" * 6000)) == [("all", 2), ("deep", 1)]


def test_split_shared_takes_the_share_off() -> None:
    assert split_shared("$share/group/a/+") == ("group", "a/+")
    assert split_shared("a/+") == (None, "a/+")
    assert split_shared("$share/group") == (None, "$share/group")
    assert split_shared("$share/group/") == (None, "$share/group/")
    assert split_shared("$share//a") == (None, "$share//a")


# AWS IoT Core endpoints and quotas, "message broker and protocol limits": 256 bytes, 7 slashes.
@pytest.mark.parametrize(
    "topic",
    [
        "a",
        "/",
        "a" * 256,
        "\u00e9" * 128,
        "/".join("abcdefgh"),
        "$aws/rules/my_rule/" + "/".join("abcdefgh"),
        "$aws/rules/my_rule/" + "a" * 256,
        "$aws/provisioning-templates/t/provision/json/accepted",
    ],
)
def test_a_topic_within_the_limits_is_accepted(topic: str) -> None:
    check_topic(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "a/+",
        "#",
        "a\0",
        "a" * 257,
        "\u00e9" * 129,
        "/".join("abcdefghi"),
        "$aws/rules/my_rule",
        "$aws/rules/my_rule/",
        "$aws/rules/my_rule/" + "/".join("abcdefghi"),
    ],
)
def test_a_topic_beyond_the_limits_is_refused(topic: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_topic(topic)
    assert caught.value.reason == 0x90


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+",
        "a/+/b/#",
        "/".join("abcdefgh"),
        "$share/g/#",
        "$share/" + "g" * 128 + "/" + "/".join("abcdefgh"),
        "$share/g/" + "a" * 256,
        "$aws/things/+/shadow/update",
    ],
)
def test_a_filter_within_the_limits_is_accepted(topic_filter: str) -> None:
    check_filter(topic_filter)


# MQTT 5.0 section 4.7.1 and 4.8.2; the AWS limits as above.
@pytest.mark.parametrize(
    "topic_filter",
    [
        "",
        "a#",
        "a/#/b",
        "sport+",
        "a/+b/c",
        "##",
        "a" * 257,
        "/".join("abcdefghi"),
        "a\0",
        "$share/",
        "$share/g",
        "$share/g/",
        "$share//a",
        "$share/+/a",
        "$share/g#/a",
        "$share/g/a#",
        "$share/" + "g" * 129 + "/a",
        "$share/g/" + "/".join("abcdefghi"),
    ],
)
def test_a_filter_beyond_the_rules_is_refused(topic_filter: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        check_filter(topic_filter)
    assert caught.value.reason == 0x8F


@given(st.text(max_size=300))
def test_checking_any_text_raises_nothing_but_protocol_errors(text: str) -> None:
    for check in (check_topic, check_filter):
        message = ""
        try:
            check(text)
        except ProtocolError as error:
            message = error.message
        assert len(message) < 200

"""Topic names and topic filters (MQTT 5.0 section 4.7), by the rules of AWS IoT Core.

Two implementations of matching live here side by side and are tested against each other:
:func:`matches` compares one filter with one topic, :class:`Subscriptions` finds all filters that
match a topic. AWS IoT Core differs from the standard in one point: the filter ``a/#`` matches
``a/`` and everything below it but not ``a`` (AWS IoT Developer Guide, "MQTT topics"; MQTT 5.0
section 4.7.1.2 would match ``a`` too).

Filters here are plain ones; :func:`split_shared` takes the ``$share/{name}/`` off first.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, NoReturn, TypeVar

from fleetgate.errors import ProtocolError
from fleetgate.mqtt.fields import shown
from fleetgate.mqtt.reasons import Reason

# AWS IoT Core endpoints and quotas, "AWS IoT Core message broker and protocol limits".
MAX_TOPIC_BYTES: Final = 256
MAX_SLASHES: Final = 7
MAX_SHARE_NAME: Final = 128

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def matches(topic_filter: str, topic: str) -> bool:
    """Does the plain filter `topic_filter` match `topic`? Both must be valid."""
    if "+" not in topic_filter and "#" not in topic_filter:
        return topic_filter == topic
    if topic[:1] == "$" and topic_filter[:1] in ("+", "#"):
        return False  # MQTT-4.7.2-1
    wanted = topic_filter.split("/")
    levels = topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        if len(levels) <= len(wanted):
            return False
    elif len(levels) != len(wanted):
        return False
    return all(want in ("+", level) for want, level in zip(wanted, levels, strict=False))


def split_shared(topic_filter: str) -> tuple[str | None, str]:
    """Split ``$share/{name}/{filter}`` into name and filter; the name of others is None."""
    if topic_filter.startswith("$share/"):
        name, slash, rest = topic_filter[7:].partition("/")
        if name and slash and rest:
            return name, rest
    return None, topic_filter


def check_topic(topic: str) -> None:
    """Refuse what cannot be the topic of a PUBLISH on AWS IoT Core.

    Raises ProtocolError 0x90 for an empty topic, wildcards, U+0000, more than 256 UTF-8 bytes or
    more than 7 slashes; the first three levels of Basic Ingest topics do not count.
    """
    if "+" in topic or "#" in topic:
        _refuse(Reason.TOPIC_NAME_INVALID, "topic", topic, "must not contain wildcards")
    counted = topic
    if topic.startswith("$aws/rules/"):
        counted = topic[11:].partition("/")[2]
        if not counted:
            _refuse(Reason.TOPIC_NAME_INVALID, "topic", topic, "must go on after the rule name")
    _check_size(Reason.TOPIC_NAME_INVALID, "topic", topic, counted)


def check_filter(topic_filter: str) -> None:
    """Refuse what cannot be the topic filter of a SUBSCRIBE on AWS IoT Core.

    Knows shared subscriptions, ``$share/{name}/{filter}`` (MQTT 5.0 section 4.8.2). Raises
    ProtocolError 0x8F for misplaced wildcards, U+0000, more than 256 UTF-8 bytes or more than 7
    slashes (``$share/{name}/`` does not count) and share names that are empty, longer than 128
    characters or contain a wildcard.
    """
    reason = Reason.TOPIC_FILTER_INVALID
    counted = topic_filter
    if topic_filter.startswith("$share/"):
        name, counted = split_shared(topic_filter)
        if name is None:
            _refuse(reason, "topic filter", topic_filter, "must be $share/{name}/{filter}")
        if len(name) > MAX_SHARE_NAME:
            _refuse(
                reason,
                "topic filter",
                topic_filter,
                f"has a share name of {len(name)} characters, more than {MAX_SHARE_NAME}",
            )
        if "+" in name or "#" in name:
            _refuse(reason, "topic filter", topic_filter, "has a wildcard in its share name")
    _check_size(reason, "topic filter", topic_filter, counted)
    levels = counted.split("/")
    for number, level in enumerate(levels, 1):
        if len(level) > 1 and ("+" in level or "#" in level):
            _refuse(reason, "topic filter", topic_filter, "wildcards must fill a whole level")
        if level == "#" and number < len(levels):
            _refuse(reason, "topic filter", topic_filter, "`#` must be the last level")


def _check_size(reason: Reason, what: str, text: str, counted: str) -> None:
    if not counted:
        _refuse(reason, what, text, "must not be empty")
    if "\0" in text:
        _refuse(reason, what, text, "must not contain U+0000")
    size = len(counted.encode(errors="surrogatepass"))
    if size > MAX_TOPIC_BYTES:
        _refuse(reason, what, text, f"is {size} bytes long, more than {MAX_TOPIC_BYTES}")
    slashes = counted.count("/")
    if slashes > MAX_SLASHES:
        _refuse(reason, what, text, f"has {slashes} slashes, more than {MAX_SLASHES}")


def _refuse(reason: Reason, what: str, text: str, rule: str) -> NoReturn:
    raise ProtocolError(reason, f"{what} {shown(text)} {rule}")


class _Level(Generic[K, V]):
    """One level of the trie: the levels below it and the subscriptions that end here."""

    __slots__ = ("below", "entries")

    def __init__(self) -> None:
        self.below: dict[str, _Level[K, V]] = {}
        self.entries: dict[K, V] = {}


class Subscriptions(Generic[K, V]):
    """All subscriptions of a broker, as a trie over the levels of their filters.

    An entry is a plain filter, a key (who subscribed) and a value (how). Matching walks only
    levels that exist, so its cost depends on the filters that fit the topic, not on how many
    there are; empty branches are cut off on removal.
    """

    __slots__ = ("_root", "_size")

    def __init__(self) -> None:
        self._root: _Level[K, V] = _Level()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, topic_filter: str, key: K, value: V) -> bool:
        """Add a subscription, or replace its value. True when it is new."""
        node = self._root
        for level in topic_filter.split("/"):
            child = node.below.get(level)
            if child is None:
                child = node.below[level] = _Level()
            node = child
        new = key not in node.entries
        node.entries[key] = value
        self._size += new
        return new

    def remove(self, topic_filter: str, key: K) -> bool:
        """Remove a subscription. False when there was none."""
        path = []
        node = self._root
        levels = topic_filter.split("/")
        for level in levels:
            child = node.below.get(level)
            if child is None:
                return False
            path.append(node)
            node = child
        if key not in node.entries:
            return False
        del node.entries[key]
        self._size -= 1
        for parent, level in zip(reversed(path), reversed(levels), strict=True):
            child = parent.below[level]
            if child.entries or child.below:
                break
            del parent.below[level]
        return True

    def match(self, topic: str) -> list[tuple[K, V]]:
        """Key and value of every subscription whose filter matches `topic`.

        A key comes once for each of its filters that match.
        """
        found: list[tuple[K, V]] = []
        nodes = [self._root]
        wild = topic[:1] != "$"  # MQTT-4.7.2-1: not on the first level of a `$` topic
        for level in topic.split("/"):
            reached = []
            for node in nodes:
                below = node.below
                child = below.get(level)
                if child is not None:
                    reached.append(child)
                if wild:
                    child = below.get("+")
                    if child is not None:
                        reached.append(child)
                    child = below.get("#")
                    if child is not None:
                        found.extend(child.entries.items())
            if not reached:
                return found
            nodes = reached
            wild = True
        for node in nodes:
            found.extend(node.entries.items())
        return found

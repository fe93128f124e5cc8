"""What the values of a template may become, as far as it is known before any device comes.

`Options` works out for an Expression which texts and lists there can be. It is bounded, since
servers do this for anybody's template; what it does not know is taken to be anything.

Sources: as in template_functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleetgate.domain.document import quoted
from fleetgate.domain.resources import Kind
from fleetgate.domain.template import CERTIFICATE_ID, Template
from fleetgate.domain.template_constants import SOME_ID
from fleetgate.domain.template_functions import (
    Expression,
    FindInMap,
    Function,
    Join,
    Mappings,
    Ref,
    Select,
    Split,
    Sub,
    find_in_map,
    is_index,
)
from fleetgate.errors import InvalidTemplate

WHATEVER: Final = "whatever is brought"
"""How rules say that no value makes it better."""

_MOST = 16  # options of a text put together of others
_LONGEST = 1024  # characters that are kept: more than any name or attribute may have
_TRIES = 5000  # options that are looked at


@dataclass(frozen=True, slots=True)
class Text:
    """A text: how it begins, and if it is not `exact`, something unknown and then `rest`.

    What stands between several unknown parts is in `rest`.
    """

    head: str
    rest: str = ""
    exact: bool = True

    @property
    def least(self) -> str:
        """The characters it has in any case."""
        return self.head + self.rest


Option = Text | tuple[str, ...] | None
"""What a value may become: a text, a list; None is what nobody can tell."""

_ANY = Text("", exact=False)


class Options:
    """What the values of one template may become."""

    def __init__(self, template: Template) -> None:
        self._mappings: Mappings = template.mappings
        # of an id it is known how long it is, and of which characters
        own = Text("", SOME_ID, exact=False)
        self._known = {} if template.kind is Kind.INLINE else {CERTIFICATE_ID: own}
        self._found: dict[tuple[str | None, ...], list[Option]] = {}
        self._tries = 0

    def try_one(self) -> bool:
        """Whether one more option may be looked at."""
        self._tries += 1
        return self._tries <= _TRIES

    def texts(self, value: Expression) -> Sequence[Text]:
        """One or more texts; raises InvalidTemplate when there cannot be one."""
        if isinstance(value, str):
            return [Text(value)]
        found = [_ANY if each is None else each for each in self.of(value)]
        texts = [each for each in found if isinstance(each, Text)]
        if not texts:
            raise InvalidTemplate(value.path, "it gives a list where a string must be")
        return texts

    def of(self, function: Function) -> Sequence[Option]:
        """One or more options; raises InvalidTemplate when there cannot be one."""
        match function:
            case Ref():
                return [self._known.get(function.name, _ANY)]
            case Join():
                return self._join(function)
            case Select():
                return self._select(function)
            case FindInMap():
                return self._entries(function)
            case Split():
                return [
                    tuple(each.head.split(function.delimiter)) if each.exact else None
                    for each in self.texts(function.source)
                ]
            case Sub():
                values = {name: self.texts(value) for name, value in function.values}
                return _concatenated(
                    [Text(part)]
                    if isinstance(part, str)
                    else values.get(part.name) or self.texts(part)
                    for part in function.parts
                )

    def _lists(self, items: Function) -> list[tuple[str, ...] | None]:
        """One or more lists, None for what nobody can tell."""
        lists = [each for each in self.of(items) if not isinstance(each, Text)]
        if not lists:
            raise InvalidTemplate(items.path, "it gives a string where a list must be")
        return lists

    def _join(self, function: Join) -> list[Text]:
        if not isinstance(function.items, tuple):
            return [
                _ANY if each is None else Text(function.delimiter.join(each))
                for each in self._lists(function.items)
            ]
        parts: list[Sequence[Text]] = []
        for each in function.items:
            parts += [[Text(function.delimiter)]] if parts else []
            parts.append(self.texts(each))
        return _concatenated(parts)

    def _select(self, function: Select) -> list[Text]:
        indices = self.texts(function.index)
        lists: Iterable[Sequence[Sequence[Text]] | None]
        if isinstance(function.items, tuple):
            lists = [[self.texts(each) for each in function.items]]
        else:
            lists = [
                None if each is None else [[Text(text)] for text in each]
                for each in self._lists(function.items)
            ]
        found: dict[Text, None] = {}
        for items in lists:
            for index in indices[:_MOST]:
                if items is None or len(indices) > _MOST:
                    return [_ANY]
                if not index.exact:
                    chosen = list(items)
                elif is_index(index.head):
                    chosen = list(items[int(index.head) :][:1])
                else:
                    chosen = []
                found.update((text, None) for texts in chosen for text in texts)
        if not found:
            raise InvalidTemplate(function.path, "the index is outside the list")
        return list(found)

    def _entries(self, function: FindInMap) -> list[Option]:
        map_name, key, name = asked = tuple(
            self._word(each) for each in (function.map_name, function.key, function.name)
        )
        if asked not in self._found:
            found: list[Any] = [self._mappings]
            for each in asked:
                found = [entry for members in found for entry in _among(members, each)]
            self._found[asked] = list(dict.fromkeys(map(_option, found)))
        if self._found[asked]:
            return self._found[asked]
        rule = f"no mapping has such an entry, {WHATEVER}"
        if map_name is not None and key is not None and name is not None:
            find_in_map(self._mappings, function.path, map_name, key, name)
        elif map_name is not None and map_name not in self._mappings:
            rule = f"there is no mapping {quoted(map_name)}"
        elif map_name is not None and key is None and name is not None:
            rule = f"no key of mapping {quoted(map_name)} has {quoted(name)}"
        elif map_name is not None:
            rule = f"mapping {quoted(map_name)} has no such entry, {WHATEVER}"
        raise InvalidTemplate(function.path, rule)

    def _word(self, value: Expression) -> str | None:
        """The one text a value can be, None if it may be another."""
        texts = self.texts(value)
        return texts[0].head if len(texts) == 1 and texts[0].exact else None


def _among(members: Mapping[str, Any], name: str | None) -> list[Any]:
    """The member of that name, or all."""
    if name is None:
        return list(members.values())
    return [members[name]] if name in members else []


def _option(entry: Any) -> Option:
    if isinstance(entry, str):
        return Text(entry)
    if isinstance(entry, list) and all(isinstance(each, str) for each in entry):
        return tuple(entry)
    return None


def _concatenated(parts: Iterable[Sequence[Text]]) -> list[Text]:
    """What texts make that stand behind one another, each being one of several."""
    made = [Text("")]
    for texts in parts:
        chosen = texts if len(made) * len(texts) <= _MOST else [_ANY]
        made = [_followed(each, text) for each in made for text in chosen]
    return list(dict.fromkeys(made))


def _followed(one: Text, other: Text) -> Text:
    if one.exact:
        made = Text(one.head + other.head, other.rest, other.exact)
    else:
        made = Text(one.head, one.rest + other.least, exact=False)
    if len(made.head) <= _LONGEST and len(made.rest) <= _LONGEST:
        return made
    return Text(made.head[:_LONGEST], made.rest[:_LONGEST], exact=False)

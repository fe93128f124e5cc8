"""Registry events: what an operation changed, said to those who subscribed to it.

An operation asks for the events of its change while it still has what was and what is now, in
most cases inside the transaction, and gives them back with its result; `publish` sends them once
the transaction is stored, so that nobody hears of a change that was refused or undone. For types
that are switched off nothing is looked up and nothing is made.

Source: AWS IoT Developer Guide, "Event messages" and "Registry events".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import msgspec

from fleetgate.domain import events, steps
from fleetgate.domain.events import Event, Named, Occasion
from fleetgate.domain.provisioning import ExistingThing
from fleetgate.operations.call import Call
from fleetgate.store import groups, things
from fleetgate.store.engine import Tx

_OF_PLANS = frozenset({events.THING, events.THING_TYPE_ASSOCIATION, events.THING_GROUP_MEMBERSHIP})
"""The types of what a template changes; it makes no types and no groups."""

_MANY = 1000
"""Groups of a thing that are looked up: more than it can be in."""

_encode = msgspec.json.Encoder().encode


def publish(call: Call, made: Iterable[Event]) -> None:
    """Sends events, in their order. To be called after the change is stored, never before."""
    for event in made:
        call.services.publish(event.topic, _encode(event.payload))


def of_thing(call: Call, before: things.Thing | None, after: things.Thing | None) -> list[Event]:
    """A thing was created (`before` is None), updated, or deleted (`after` is None).

    The type is bound after the thing is there and let go before it is gone.
    """
    enabled = call.services.enabled_events
    subject = after or before
    made: list[Event] = []
    if events.THING in enabled and subject is not None:
        made.append(
            events.thing(
                _occasion(call),
                _change(before, after),
                _named_thing(subject),
                version=subject.version,
                type_name=subject.thing_type_name,
                attributes=subject.attributes,
            )
        )
    if events.THING_TYPE_ASSOCIATION in enabled and subject is not None:
        bonds = _types(call, before, after, _named_thing(subject))
        made = made + bonds if after is not None else bonds + made
    return made


def of_members(
    tx: Tx, call: Call, thing: things.Thing, left: Iterable[str], joined: Iterable[str]
) -> list[Event]:
    """A thing left groups (by name), then joined others; groups that do not exist are left out."""
    if events.THING_GROUP_MEMBERSHIP not in call.services.enabled_events:
        return []
    member = _named_thing(thing)
    links: list[tuple[events.Link, str]] = [("REMOVED", name) for name in left]
    links += [("ADDED", name) for name in joined]
    return [
        events.thing_group_membership(_occasion(call), link, _named_group(group), member)
        for link, name in links
        if (group := groups.find_thing_group(tx, name)) is not None
    ]


def of_all_members(tx: Tx, call: Call, thing: things.Thing) -> list[Event]:
    """A thing is about to leave all groups it is in, because it is deleted."""
    if events.THING_GROUP_MEMBERSHIP not in call.services.enabled_events:
        return []
    left = groups.list_groups_of_thing(tx, thing.thing_name, "", _MANY)
    return of_members(tx, call, thing, left, ())


def of_thing_type(
    call: Call, before: things.ThingType | None, after: things.ThingType | None
) -> list[Event]:
    """A thing type was created, updated (deprecation is an update) or deleted."""
    subject = after or before
    if events.THING_TYPE not in call.services.enabled_events or subject is None:
        return []
    return [
        events.thing_type(
            _occasion(call),
            _change(before, after),
            Named(subject.thing_type_name, subject.thing_type_id),
            deprecated_at=subject.deprecated_at,
            searchable=subject.searchable_attributes,
            propagating=subject.propagating_attributes or (),
            description=subject.description,
        )
    ]


def of_group(
    tx: Tx, call: Call, before: groups.ThingGroup | None, after: groups.ThingGroup | None
) -> list[Event]:
    """A thing group was created, updated or deleted; call it while the group is in the store.

    Its place below its parent is taken after it is there and left before it is gone.
    """
    enabled = call.services.enabled_events
    subject = after or before
    if subject is None or enabled.isdisjoint((events.THING_GROUP, events.THING_GROUP_HIERARCHY)):
        return []
    above = groups.list_group_ancestors(tx, subject.thing_group_name)
    ancestors = [_named_group(group) for group in above]
    named = _named_group(subject)
    made: list[Event] = []
    if events.THING_GROUP in enabled:
        made.append(
            events.thing_group(
                _occasion(call),
                _change(before, after),
                named,
                version=subject.version,
                ancestors=ancestors,
                description=subject.description,
                attributes=subject.attributes,
            )
        )
    if events.THING_GROUP_HIERARCHY in enabled and ancestors:
        if before is None:
            made += [events.thing_group_hierarchy(_occasion(call), "ADDED", ancestors[-1], named)]
        elif after is None:
            left = events.thing_group_hierarchy(_occasion(call), "REMOVED", ancestors[-1], named)
            made = [left, *made]
    return made


def of_steps(
    tx: Tx, call: Call, taken: Sequence[steps.Step], existing: ExistingThing | None
) -> list[Event]:
    """The steps of a provisioning plan that have been taken; `existing` is the thing before."""
    if call.services.enabled_events.isdisjoint(_OF_PLANS):
        return []
    made: list[Event] = []
    for step in taken:
        match step:
            case steps.CreateThing(name):
                made += of_thing(call, None, things.find_thing(tx, name))
            case steps.UpdateThing(name) if existing is not None:
                after = things.find_thing(tx, name)
                before = after and replace(after, thing_type_name=existing.type_name)
                made += of_thing(call, before, after)
            case steps.AddThingToGroup(name, group):
                if (thing := things.find_thing(tx, name)) is not None:
                    made += of_members(tx, call, thing, (), (group,))
            case steps.RemoveThingFromGroup(name, group):
                if (thing := things.find_thing(tx, name)) is not None:
                    made += of_members(tx, call, thing, (group,), ())
    return made


def _types(
    call: Call, before: things.Thing | None, after: things.Thing | None, named: Named
) -> list[Event]:
    """The type a thing lost, then the one it was given."""
    was = None if before is None else before.thing_type_name
    has = None if after is None else after.thing_type_name
    if was == has:
        return []
    links: tuple[tuple[events.Link, str | None], ...] = (("REMOVED", was), ("ADDED", has))
    return [
        events.thing_type_association(_occasion(call), link, named, type_name)
        for link, type_name in links
        if type_name is not None
    ]


def _change(before: object, after: object) -> events.Change:
    if before is None:
        return "CREATED"
    return "UPDATED" if after is not None else "DELETED"


def _occasion(call: Call) -> Occasion:
    return Occasion(call.account, call.services.new_id(), events.milliseconds(call.now))


def _named_thing(thing: things.Thing) -> Named:
    return Named(thing.thing_name, thing.thing_id)


def _named_group(group: groups.ThingGroup) -> Named:
    return Named(group.thing_group_name, group.thing_group_id)

"""How the plan of a registration tells why it cannot be carried out.

A failure names the place in the template, what it asks for, and what would settle it. Over MQTT it
reaches whoever holds a token, and a device chooses the name of its thing: so the message never has
what the registry knows of a thing that exists (values of its attributes, its type, its groups), or
a device could read of any thing what it is not allowed to. The message has the names of attributes
that differ, and the template's side. The registry's side is a note of the exception (PEP 678):
logs have it, and callers who may look the thing up themselves are told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from fleetgate.domain.document import quoted
from fleetgate.domain.resources import Certificate, Override, Policy, Thing
from fleetgate.domain.template_functions import step
from fleetgate.errors import InvalidRequestException, ResourceRegistrationFailureException

_SHOWN: Final = 3
"""How many of several names a message has."""

_SHORT: Final = 40
"""Characters of a name or value in a list of a message: replies go to small devices."""

_MERGEABLE: Final = ("DO_NOTHING", "REPLACE", "MERGE")


def certificate_path(certificate: Certificate) -> str:
    """The place in the template that says which certificate it is."""
    if certificate.csr is not None:
        return property_path(certificate, "CertificateSigningRequest")
    method = "CertificateId" if certificate.pem is None else "CertificatePem"
    return property_path(certificate, method)


def resource_path(resource: Thing | Certificate | Policy) -> str:
    """The place of a resource in the template."""
    return step("Resources", resource.logical_id)


def property_path(resource: Thing | Certificate | Policy, name: str) -> str:
    """The place of a property of a resource in the template."""
    return f"{resource_path(resource)}.Properties.{name}"


def failure(path: str, rule: str, known: str = "") -> ResourceRegistrationFailureException:
    """What is wrong at a place in the template.

    `known` is what the registry has: a note, for those who may see it (see the module).
    """
    error = ResourceRegistrationFailureException(f"{path}: {rule}")
    if known:
        error.add_note(known)
    return error


@contextlib.contextmanager
def checking(path: str, rule: str = "") -> Iterator[None]:
    """What a rule of the registry refuses, as a failure at `path`.

    With a `rule` that is told, and the words of the registry are among what it knows.
    """
    try:
        yield
    except InvalidRequestException as error:
        known = error.message if rule else ""
        raise failure(path, rule or error.message, known) from None


def other_value(
    thing: Thing, name: str, override: Override | None, rule: str, known: str, at: str | None = None
) -> ResourceRegistrationFailureException:
    """A thing that exists differs in the property `name`, and the settings let nothing happen.

    `rule` says what the template wants, `known` what the thing has; `at` is the place, when that
    is inside the property.
    """
    choices = _MERGEABLE[:2] if name == "ThingTypeName" else _MERGEABLE
    setting = f"OverrideSettings.{name}"
    found = f"{setting} is FAIL" if override else f"there is no {setting}"
    return failure(
        at or property_path(thing, name),
        f"thing {quoted(thing.name)} exists with other {rule}; {found} in the template "
        f"({' or '.join(choices)} would settle it)",
        f"the thing has {known}",
    )


def names_of(names: Iterable[str]) -> str:
    """The first few names, as a message has them."""
    return ", ".join(_few([quoted(name, _SHORT) for name in names])) or "none"


def _few(shown: list[str]) -> list[str]:
    over = len(shown) - _SHOWN
    return [*shown[:_SHOWN], f"{over} more"] if over > 0 else shown


def other_attributes(
    thing: Thing, current: Mapping[str, str], wanted: Mapping[str, str]
) -> ResourceRegistrationFailureException:
    """The attributes of a thing differ from those `wanted`, and the settings do not allow it."""
    # those of the template come first
    names = [
        name
        for name in (*wanted, *sorted(current.keys() - wanted.keys()))
        if wanted.get(name) != current.get(name)
    ]
    to_be = _few([f"{quoted(name, _SHORT)} is to be {_value(name, wanted)}" for name in names])
    known = _few([f"{quoted(name, _SHORT)} {_value(name, current)}" for name in names])
    at = property_path(thing, "AttributePayload")
    return other_value(
        thing,
        "AttributePayload",
        thing.overrides.attributes,
        f"attributes than the template's: {', '.join(to_be)}",
        ", ".join(known),
        step(at, names[0]) if len(names) == 1 and names[0] in (thing.attributes or {}) else at,
    )


def _value(name: str, attributes: Mapping[str, str]) -> str:
    return quoted(attributes[name], _SHORT) if name in attributes else "absent"

"""What a provisioning template asks for on behalf of one device: plain values, all resolved.

`template.render` makes them, `provisioning.plan` turns them into steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

PrincipalType = Literal["EXCLUSIVE_THING", "NON_EXCLUSIVE_THING"]


class Kind(StrEnum):
    """What a template is for, which decides what it may contain."""

    FLEET = "FLEET_PROVISIONING"
    """For devices that have been given a certificate and prove it with a token."""
    JITP = "JITP"
    """For devices that bring a certificate of a registered authority (just-in-time)."""
    INLINE = "INLINE"
    """The body in a RegisterThing call over HTTP, under the rights of the caller."""


class Override(StrEnum):
    """What to do with a property of a resource that exists and differs from the template."""

    DO_NOTHING = "DO_NOTHING"
    REPLACE = "REPLACE"
    MERGE = "MERGE"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Overrides:
    """The OverrideSettings of a thing; None where the template is silent."""

    attributes: Override | None = None
    type_name: Override | None = None
    groups: Override | None = None


@dataclass(frozen=True, slots=True)
class Thing:
    """A thing to be registered. None (attributes, groups, ...): not the template's concern."""

    logical_id: str
    name: str
    attributes: Mapping[str, str] | None = None
    type_name: str | None = None
    groups: tuple[str, ...] | None = None
    billing_group: str | None = None
    overrides: Overrides = Overrides()


@dataclass(frozen=True, slots=True)
class Certificate:
    """The device's certificate and the status it is to have in the end.

    A template names a registered one by `certificate_id`, or asks for a new one by `csr` or by
    `pem`: exactly one of the three. The id of a new one is entered once it is known.
    """

    logical_id: str
    certificate_id: str | None
    status: Literal["ACTIVE", "INACTIVE"] = "ACTIVE"
    override: Override | None = None
    principal_type: PrincipalType | None = None
    """How the certificate is attached to the thing; None, like the default, shares it."""
    csr: str | None = None
    """A signing request (PEM) for which a certificate is to be issued."""
    pem: str | None = None
    """A certificate (PEM) of a registered authority, to be registered."""
    ca_pem: str | None = None
    """The certificate (PEM) of that authority, when the template gives it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy to be attached; with a `document`, one to be created under `name` if need be."""

    logical_id: str
    name: str
    document: str | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """What a template asks for on behalf of one device."""

    thing: Thing | None
    certificate: Certificate | None
    policies: tuple[Policy, ...]
    device_configuration: Mapping[str, str]

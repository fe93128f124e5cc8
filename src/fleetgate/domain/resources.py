"""What a provisioning template asks for on behalf of one device: plain values, all resolved.

`template.render` makes them, `provisioning.plan` turns them into steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


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
    """The device's certificate and the status it is to have in the end."""

    logical_id: str
    certificate_id: str
    status: Literal["ACTIVE", "INACTIVE"] = "ACTIVE"
    override: Override | None = None


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

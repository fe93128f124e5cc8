"""Policies in a provisioning template: how they are parsed and rendered.

Sources: AWS IoT Developer Guide, "Provisioning templates", sections "Resources section" and
"Intrinsic functions" (which of them a policy may use).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from fleetgate.domain import document as json_document
from fleetgate.domain import policy, registry, resources
from fleetgate.domain.document import minified
from fleetgate.domain.template_functions import (
    UNREADABLE,
    Expression,
    Function,
    Scope,
    step,
    text,
)
from fleetgate.domain.template_parsing import Context, is_function, parse_function
from fleetgate.domain.template_resources import checked, parse_named, parse_object
from fleetgate.errors import InvalidTemplate, MalformedPolicyException

NEITHER: Final = "Neither policyName nor policyDocument is present in the Template."
"""The rule a policy of nothing breaks, in AWS's own words."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy in a template; `path` is that of its properties, or of its document."""

    logical_id: str
    path: str
    name: Expression | None
    document: Any
    """JSON in which functions have been parsed."""
    ready: resources.Policy | None
    """The rendered policy, when no device can change it."""
    max_characters: int
    """The quota of its document, white space not counted."""


def parse_policy(
    logical_id: str, resource: dict[str, Any], path: str, context: Context, max_characters: int
) -> Policy:
    """A resource of type AWS::IoT::Policy; raises InvalidTemplate."""
    with context.noting():
        settings = resource.get("OverrideSettings", {})
        parse_object(settings, f"{path}.OverrideSettings", context, ())
    path = f"{path}.Properties"
    properties = parse_object(
        resource.get("Properties", {}), path, context, {"PolicyName", "PolicyDocument"}
    )
    if len(properties) == 2:
        raise InvalidTemplate(path, "`PolicyName` and `PolicyDocument` exclude each other")
    if not properties:
        raise InvalidTemplate(path, NEITHER)
    context = context.of_policy()
    name = parse_named(properties, "PolicyName", registry.check_policy_name, path, context)
    if name is not None:
        ready = resources.Policy(logical_id, name) if isinstance(name, str) else None
        return Policy(logical_id, path, name, None, ready, max_characters)
    path = f"{path}.PolicyDocument"
    value = properties["PolicyDocument"]
    if not isinstance(value, str | dict):
        raise InvalidTemplate(path, "it must be a JSON object or a string of JSON")
    document = _parse_document(value, path, context)
    ready = None
    if not _has_function(document):
        with context.noting():
            ready = _named_by_document(logical_id, document, path, max_characters)
    return Policy(logical_id, path, None, document, ready, max_characters)


def render_policy(parsed: Policy, scope: Scope) -> resources.Policy:
    """The policy for one device; raises InvalidTemplate."""
    if parsed.ready is not None:
        return parsed.ready
    if parsed.name is not None:
        name = text(parsed.name, scope)
        checked(registry.check_policy_name, name, f"{parsed.path}.PolicyName")
        return resources.Policy(parsed.logical_id, name)
    document = _render_document(parsed.document, scope)
    return _named_by_document(parsed.logical_id, document, parsed.path, parsed.max_characters)


def _parse_document(value: Any, path: str, context: Context) -> Any:
    if is_function(value):
        with context.noting():
            return parse_function(value, path, context)
        return UNREADABLE
    if isinstance(value, dict):
        return {key: _parse_document(each, step(path, key), context) for key, each in value.items()}
    if isinstance(value, list):
        return [
            _parse_document(each, f"{path}[{index}]", context) for index, each in enumerate(value)
        ]
    return value


def _has_function(document: Any) -> bool:
    if isinstance(document, dict):
        return any(map(_has_function, document.values()))
    if isinstance(document, list):
        return any(map(_has_function, document))
    return isinstance(document, Function)


def _render_document(document: Any, scope: Scope) -> Any:
    if isinstance(document, dict):
        return {key: _render_document(value, scope) for key, value in document.items()}
    if isinstance(document, list):
        return [_render_document(value, scope) for value in document]
    if isinstance(document, Function):
        return document.evaluate(scope)
    return document


def _named_by_document(
    logical_id: str, document: Any, path: str, max_characters: int
) -> resources.Policy:
    """The policy a document makes, named by the SHA-1 of its minified text.

    Devices with the same document so share one policy. AWS's names have this form, 40 upper-case
    hex digits; what exactly AWS hashes is not published.
    """
    if not isinstance(document, str | dict):
        raise InvalidTemplate(path, "it must give a JSON object or a string of JSON")
    written = document if isinstance(document, str) else minified(document)
    try:
        policy.parse(written, max_characters=max_characters)
    except MalformedPolicyException as error:
        raise InvalidTemplate(path, error.message) from None
    canonical = minified(json_document.read(written, max_depth=policy.MAX_DEPTH))
    digest = hashlib.sha1(canonical.encode(), usedforsecurity=False).hexdigest()
    return resources.Policy(logical_id, digest.upper(), written)

"""What of a template can never be carried out, whatever values are brought.

Theory of operation. A value of a template may become one of several Options: texts of which some
characters are known, lists, or what nobody can tell. `impossible` works them out, and tells of a
property when none of its options is accepted. What it cannot tell it takes to be fine: nothing it
names could be carried out for any device.

The rules for names and attributes ask for a number of characters from a set. A text that is only
known in part so breaks such a rule for ever if it does both with nothing and with one good
character for what is unknown.

Sources: as in template_functions, template_resources and template_policies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fleetgate.domain import policy, registry
from fleetgate.domain.document import minified
from fleetgate.domain.policy_resources import may_be_arn
from fleetgate.domain.resources import Kind
from fleetgate.domain.template import CERTIFICATE_ID, Template
from fleetgate.domain.template_constants import SOME_ID
from fleetgate.domain.template_functions import (
    UNREADABLE,
    Expression,
    Function,
    Scope,
    expressions,
)
from fleetgate.domain.template_options import WHATEVER, Options, Text
from fleetgate.domain.template_policies import Policy
from fleetgate.domain.template_resources import (
    Certificate,
    Thing,
    check_attribute,
    checked,
    render_certificate,
)
from fleetgate.errors import InvalidTemplate, MalformedPolicyException

_VARIABLE = re.compile(r"\$\{[^{}]*\}")
_PART_OF_AN_ID = re.compile(r"[0-9a-f]{0,64}")


def impossible(template: Template) -> Iterator[tuple[str, str]]:
    """Path and rule of what breaks that rule whatever is brought."""
    options = Options(template)
    for attempt in _attempts(template, options):
        try:
            attempt()
        except InvalidTemplate as error:
            yield error.path, error.rule


def _attempts(template: Template, options: Options) -> Iterator[Callable[[], object]]:
    if template.thing is not None:
        yield from _thing(template.thing, options)
    if template.certificate is not None:
        yield from _certificate(template.certificate, template.kind, options)
    for each in template.policies:
        if each.ready is None:
            yield partial(_policy, each, options)
    for value in template.device_configuration.values():
        yield partial(options.texts, value)


def _thing(thing: Thing, options: Options) -> Iterator[Callable[[], object]]:
    named = (
        ("ThingName", thing.name, registry.check_thing_name),
        ("ThingTypeName", thing.type_name, registry.check_thing_type_name),
        ("BillingGroup", thing.billing_group, registry.check_billing_group_name),
    )
    for name, value, check in named:
        if isinstance(value, Function):
            rule = partial(checked, check, path=f"{thing.path}.{name}")
            yield partial(_accepted, value, rule, options)
    for attribute, value in (thing.attributes or {}).items():
        if isinstance(value, Function):
            fits = partial(check_attribute, attribute, path=f"{thing.path}.AttributePayload")
            yield partial(_accepted, value, fits, options)
    if isinstance(thing.groups, Function):
        yield partial(_group_list, thing.groups, f"{thing.path}.ThingGroups", options)
    for index, value in enumerate(thing.groups if isinstance(thing.groups, tuple) else ()):
        if isinstance(value, Function):
            path = f"{thing.path}.ThingGroups[{index}]"
            yield partial(
                _accepted,
                value,
                partial(checked, registry.check_thing_group_name, path=path),
                options,
            )


def _certificate(
    certificate: Certificate, kind: Kind, options: Options
) -> Iterator[Callable[[], object]]:
    if isinstance(certificate.source, Function):
        own = partial(_check_id, path=f"{certificate.path}.CertificateId")
        anything = kind is Kind.INLINE
        yield partial(_accepted, certificate.source, (lambda _: None) if anything else own, options)
    if certificate.ca_pem is not None:
        yield partial(options.texts, certificate.ca_pem)
    scope = Scope({CERTIFICATE_ID: SOME_ID}, {}, {})
    bare = replace(certificate, source=SOME_ID, ca_pem=None, status="ACTIVE", principal_type=None)
    for value, with_value in (
        (certificate.status, lambda it: replace(bare, status=it)),
        (certificate.principal_type, lambda it: replace(bare, principal_type=it)),
    ):
        if isinstance(value, Function):

            def word(it: str, put: Callable[[str], Certificate] = with_value) -> object:
                return render_certificate(put(it), scope, kind)

            yield partial(_accepted, value, word, options, words=True)


def _check_id(value: str, path: str) -> None:
    if not _PART_OF_AN_ID.fullmatch(value):
        raise InvalidTemplate(
            path, f'it must be the device\'s own certificate, {{"Ref": "{CERTIFICATE_ID}"}}'
        )


def _group_list(groups: Function, path: str, options: Options) -> None:
    found = options.of(groups)
    lists = [each for each in found if not isinstance(each, Text)]
    if not lists:
        raise InvalidTemplate(groups.path, "it gives a string where a list must be")
    refused: InvalidTemplate | None = None
    for each in lists:
        try:
            if not options.try_one():
                return
            for index, group in enumerate(each or ()):
                checked(registry.check_thing_group_name, group, f"{path}[{index}]")
        except InvalidTemplate as error:
            refused = refused or error
        else:
            return
    if refused is not None:
        raise _at_all(refused, certain=len(found) == 1)


def _accepted(
    value: Expression, check: Callable[[str], object], options: Options, *, words: bool = False
) -> None:
    """Raises InvalidTemplate when `check` refuses all that a value may become.

    With `words`, `check` is for whole words, and a text that is not exact may be any.
    """
    found = options.texts(value)
    refused: InvalidTemplate | None = None
    for each in found:
        if (words and not each.exact) or not options.try_one():
            return
        for tried in (each.least,) if each.exact else (each.least, f"{each.head}x{each.rest}"):
            try:
                check(tried)
            except InvalidTemplate as error:
                refused = refused or error
            else:
                return
    if refused is not None:
        raise _at_all(refused, certain=len(found) == 1 and found[0].exact)


def _at_all(error: InvalidTemplate, *, certain: bool) -> InvalidTemplate:
    return error if certain else InvalidTemplate(error.path, f"{error.rule}, {WHATEVER}")


# --- policies ------------------------------------------------------------------------------------


def _policy(parsed: Policy, options: Options) -> None:
    """Raises InvalidTemplate when no value makes it a policy."""
    if parsed.name is not None:
        check = partial(checked, registry.check_policy_name, path=f"{parsed.path}.PolicyName")
        _accepted(parsed.name, check, options)
        return
    for function in _outermost(parsed.document):
        if any(each is UNREADABLE for each in expressions(function)):
            return
        options.of(function)
    if not isinstance(parsed.document, dict):
        return
    best = minified(_best(parsed.document, options))
    try:
        policy.parse(best, max_characters=parsed.max_characters)
    except MalformedPolicyException as error:
        raise InvalidTemplate(parsed.path, error.message) from None


def _outermost(document: Any) -> Iterator[Function]:
    if isinstance(document, Function):
        yield document
    elif isinstance(document, dict):
        for each in document.values():
            yield from _outermost(each)
    elif isinstance(document, list):
        for each in document:
            yield from _outermost(each)


def _best(document: Mapping[str, Any], options: Options) -> Any:
    """The document with values that serve it best, in as few characters as there can be."""
    best = dict(document)
    if isinstance(best.get("Version"), Function):
        best["Version"] = "2012-10-17"
    statements = best.get("Statement")
    if isinstance(statements, list):
        best["Statement"] = [_best_statement(each, options) for each in statements]
    elif isinstance(statements, dict):
        best["Statement"] = _best_statement(statements, options)
    return _plain(best)


def _best_statement(statement: Any, options: Options) -> Any:
    if not isinstance(statement, dict):
        return statement
    best: dict[str, Any] = {}
    for key, value in statement.items():
        if key in ("Resource", "NotResource"):
            best[key] = _each(value, partial(_best_resource, options=options))
        elif key in ("Action", "NotAction"):
            best[key] = _each(value, lambda _: "*")
        elif key == "Effect" and isinstance(value, Function):
            best[key] = "Deny"  # as good as Allow, and shorter
        elif key != "Condition" or not any(expressions(value)):
            best[key] = value
    return best


def _each(value: Any, best: Callable[[Function], str]) -> Any:
    if isinstance(value, list):
        return [best(each) if isinstance(each, Function) else each for each in value]
    return best(value) if isinstance(value, Function) else value


def _best_resource(function: Function, options: Options) -> str:
    found = options.of(function)
    texts = [each for each in found if isinstance(each, Text)]
    if len(texts) == len(found) and not any(map(_may_be_arn, texts)):
        return texts[0].head if texts[0].exact else f"{texts[0].head}...{texts[0].rest}"
    if len(found) > 1 or not texts:
        return "*"
    (text,) = texts
    # what is brought may end a policy variable, and an ARN
    told = text.exact or (may_be_arn(text.least) and "$" not in text.least)
    return text.least if told else "*"


def _may_be_arn(text: Text) -> bool:
    if text.exact:
        return may_be_arn(text.head)
    begun = "$" in _VARIABLE.sub("", text.head)
    return begun or may_be_arn(f"{text.head}*")


def _plain(document: Any) -> Any:
    """The document without the functions that are left: they stand where any text is as good."""
    if isinstance(document, dict):
        return {key: _plain(value) for key, value in document.items()}
    if isinstance(document, list):
        return [_plain(each) for each in document]
    return "" if isinstance(document, Function) else document

"""``POST /_fleetgate/templates/render``: what a template makes for one device, and all problems.

Nothing is changed. The request is a JSON object; `templateBody` is the only member that has to
be there:

* `templateBody`: text; `templateType`: FLEET_PROVISIONING (default), JITP or INLINE;
* `parameters`: text to text; `certificateSigningRequest`, `certificatePem`: what the device has;
* `deviceBuffer`: bytes the reply of RegisterThing has to fit into.

The answer has `problems`, each with `severity`, `path`, `rule` and `value`; among them is what the
template names and the registry lacks. `rendered` is null when there are errors.

The path is authenticated like the API, by a signature for ``iot``. Who is known may have any
template looked at; what the registry has is told only to those who may look it up by the API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import msgspec

from fleetgate.domain.resources import Kind, Resources
from fleetgate.domain.template import Template, parse
from fleetgate.domain.template_lint import Finding, lint
from fleetgate.errors import (
    InvalidCsr,
    InvalidRequestException,
    InvalidTemplate,
    SerializationException,
)
from fleetgate.operations import template_checks
from fleetgate.operations.call import Call

_Text = Annotated[str, msgspec.Meta(max_length=65_536)]


class _Asked(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    template_body: _Text
    template_type: str = Kind.FLEET.value
    parameters: dict[str, str] | None = None
    certificate_signing_request: _Text | None = None
    certificate_pem: _Text | None = None
    device_buffer: Annotated[int, msgspec.Meta(ge=1, le=1 << 28)] | None = None


_decoder = msgspec.json.Decoder(_Asked)


async def render(call: Call, body: bytes) -> Mapping[str, Any]:
    """The answer to a request.

    Raises SerializationException for what is no JSON, InvalidRequestException for members that
    are missing, unknown or wrong.
    """
    try:
        asked = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequestException(f"the request is wrong: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SerializationException(f"the request is no JSON: {error}") from None
    kind = template_checks.kind_called(asked.template_type)
    limits = call.services.limits
    linted = lint(asked.template_body, kind, limits)
    problems = list(linted.findings)
    if asked.device_buffer is not None and kind is Kind.FLEET:
        problems += template_checks.too_large(linted, asked.device_buffer)
    wanted = {(each.type, each.name): each for each in linted.names}
    shown = None
    if not linted.failed:
        template = parse(asked.template_body, kind, limits.policy_document_characters)
        resources = _resources(template, asked, problems)
        if resources is not None:
            for each in template_checks.names(template, resources):
                wanted.setdefault((each.type, each.name), each)
            shown = _shown(kind, resources, asked, problems)
    problems += await call.read(template_checks.missing, call, wanted.values())
    problems.sort(key=lambda each: each.severity)
    return {"problems": [asdict(each) for each in problems], "rendered": shown}


def _resources(template: Template, asked: _Asked, problems: list[Finding]) -> Resources | None:
    try:
        return template_checks.resources_for(
            template,
            asked.parameters or {},
            asked.certificate_signing_request,
            asked.certificate_pem,
        )
    except InvalidTemplate as error:
        problems.append(Finding("error", error.path, error.rule))
    except InvalidRequestException as error:
        problems.append(Finding("error", "", error.message))
    return None


def _shown(
    kind: Kind, resources: Resources, asked: _Asked, problems: list[Finding]
) -> dict[str, Any] | None:
    try:
        return template_checks.shown(kind, resources, asked.certificate_signing_request)
    except (InvalidCsr, InvalidRequestException) as error:
        problems.append(Finding("error", "", error.message))
    return None

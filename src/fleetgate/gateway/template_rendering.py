"""``POST /_fleetgate/templates/render``: what a template makes for one device, and all problems.

Nothing is changed. The request is a JSON object; `templateBody` is the only member that has to
be there:

* `templateBody`: text; `templateType`: FLEET_PROVISIONING (default), JITP or INLINE;
* `parameters`: text to text; `certificateSigningRequest`, `certificatePem`: what the device has;
* `deviceBuffer`: bytes the reply of RegisterThing has to fit into.

The answer has `problems`, each with `severity`, `path`, `rule` and `value`; among them is what the
template names and the registry lacks. `rendered` is null when the template or what the device
brings has errors; it is there when the registry lacks something.

The path is authenticated like the API, by a signature for ``iot``. Who is known may have any
template looked at: it is theirs, nothing is touched, and what it costs is bounded by the size a
template may have. What the registry has is told only to those who may look it up by the API.

Templates are looked at by a thread of its own, one at a time, so that devices are served meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Annotated, Any

import msgspec

from fleetgate.domain.limits import Limits
from fleetgate.domain.resources import Kind, Resources
from fleetgate.domain.template import Template, parse
from fleetgate.domain.template_constants import Named
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
_LOOKING = ThreadPoolExecutor(1, thread_name_prefix="fleetgate-template")


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
    problems, wanted, shown = await asyncio.get_running_loop().run_in_executor(
        _LOOKING, _look, asked, kind, call.services.limits
    )
    problems += await call.read(template_checks.missing, call, wanted)
    problems.sort(key=lambda each: each.severity)
    return {"problems": [asdict(each) for each in problems], "rendered": shown}


def _look(
    asked: _Asked, kind: Kind, limits: Limits
) -> tuple[list[Finding], Collection[Named], dict[str, Any] | None]:
    """All that can be said without the registry: problems, what has to exist, one device's."""
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
    return problems, wanted.values(), shown


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

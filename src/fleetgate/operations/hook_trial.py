"""A pre-provisioning hook tried without a device: all that RegisterThing does, and nothing kept.

Theory of operation. A certificate is made and not stored: by the account's certificate provider
when there is one and the device's signing request is given, else by this server. The hook is asked
with it as for a device, through the same door. When it allows, the template is worked through in a
transaction that is undone at its end, the last word of a function of ours included: whatever would
be refused there is refused here in the same words, and nothing is built or used up.

The one difference: a template that is disabled is tried all the same, with a note. So is a function
that the template does not name, when one is asked for.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from fleetgate.domain import document as json_document
from fleetgate.domain.document import printable
from fleetgate.domain.resources import Kind
from fleetgate.domain.template_constants import SOME_ID
from fleetgate.errors import (
    CertificateValidationException,
    InvalidCsr,
    InvalidCsrException,
    InvalidParametersException,
    InvalidRequestException,
    ResourceNotFoundException,
    ServiceError,
)
from fleetgate.functions.target import Failure, FunctionError
from fleetgate.names import Account
from fleetgate.operations import hooks, invocation, provider_signing, provisioning, template_checks
from fleetgate.operations.authorization import require
from fleetgate.operations.call import Call
from fleetgate.operations.certificate_providers import provider_arn
from fleetgate.operations.certificates import issue_certificate, parse_csr, registered
from fleetgate.operations.function_permissions import INVOKE
from fleetgate.operations.identity import Identity
from fleetgate.operations.invocation import Invoked
from fleetgate.operations.templates import require_template, template_arn
from fleetgate.pki.csr import SigningRequest
from fleetgate.store import certificates, templates
from fleetgate.store.certificate_providers import CertificateProvider
from fleetgate.store.certificates import Certificate
from fleetgate.store.engine import Tx
from fleetgate.store.templates import Hook, InForce

log = logging.getLogger("fleetgate.provisioning")

PRESENT: Final = "present"
MISSING: Final = "missing"
NOT_LOOKED_AT: Final = "not looked at"
"""Whether AWS IoT may invoke a function."""

_MAX_OUTPUT: Final = 4000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be tried: a device's request, and what takes the place of the stored.

    `claim_certificate_id` is that of the connection there would be, some id when it is not said;
    `version_id` a version of the template that is not in force, `function_name` a function that
    the template does not name, or its ARN.
    """

    template_name: str
    parameters: Mapping[str, str]
    csr: str | None = None
    client_id: str = "hook-test"
    claim_certificate_id: str = SOME_ID
    version_id: int | None = None
    function_name: str | None = None


@dataclass(slots=True)
class Tried:
    """What came of it. `members` are those of the answer, as far as it got.

    `step` is where it was refused, empty when the device would have been provisioned; `kind` and
    `reason` are those of the log; `heard` is what the device would have heard.
    """

    members: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    step: str = ""
    kind: str = ""
    reason: str = ""
    heard: ServiceError | None = None


class _Refused(Exception):
    """The device would not be provisioned."""

    def __init__(self, step: str, kind: str, reason: str, heard: ServiceError) -> None:
        super().__init__(reason)
        self.step, self.kind, self.reason, self.heard = step, kind, reason, heard


class _Undone(Exception):
    """Ends a transaction that is not to be kept; `given` is what it gave."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given


@dataclass(frozen=True, slots=True)
class _Issued:
    """A certificate that is not stored; `signed` is there when the provider has signed it."""

    certificate: Certificate
    signed: provider_signing.Signed | None

    def add(self, tx: Tx) -> None:
        """Stores it as CreateCertificateFromCsr does."""
        if self.signed is None:
            certificates.add_certificate(tx, self.certificate)
        else:
            provider_signing.add(tx, self.signed, self.certificate)


async def try_hook(call: Call, asked: Asked) -> Tried:
    """Tries the hook of a template.

    Raises AccessDeniedException without iot:DescribeProvisioningTemplate for the template and
    lambda:InvokeFunction for the functions that are run, ResourceNotFoundException when there is
    no such template or version, InvalidRequestException when it has no hook.
    """
    provider = call.services.certificate_provider if asked.csr is not None else None
    found, version_id = await call.read(_allowed, call, asked, provider)
    as_device = replace(
        call,
        client_id=asked.client_id,
        identity=Identity(asked.claim_certificate_id, None, math.inf),
        caller=None,
    )
    arn = template_arn(call.account, asked.template_name)
    tried = Tried(
        {
            "template": {
                "templateName": asked.template_name,
                "templateArn": arn,
                "versionId": version_id,
            },
            "certificate": None,
            "certificateProvider": None,
            "hook": None,
            "parameterOverrides": {},
            "rendered": None,
        }
    )
    if not found.enabled:
        tried.notes.append("the template is disabled: devices are refused, the hook is not asked")
    try:
        issued = await _certificate(as_device, asked, provider, tried)
        consent = await _consent(as_device, asked, found, issued.certificate, tried)
        await _worked_through(as_device, asked, found, issued, consent, tried)
    except _Refused as refused:
        tried.step, tried.kind, tried.reason = refused.step, refused.kind, refused.reason
        tried.heard = refused.heard
    log.info(
        "event=hook-tried template=%s function=%s by=%s verdict=%s step=%s kind=%s reason=%r "
        "request=%s",
        *(asked.template_name, "none" if found.hook is None else found.hook.target_arn),
        "-" if call.caller is None else call.caller.arn,
        "refused" if tried.step else "allowed",
        *(tried.step.replace(" ", "-") or "-", tried.kind or "-"),
        *(printable(tried.reason, 1500), call.request_id),
    )
    return tried


def _allowed(
    tx: Tx, call: Call, asked: Asked, provider: CertificateProvider | None
) -> tuple[InForce, int]:
    """The template as it is to be tried, and the id of its version."""
    name = asked.template_name
    ask = require(tx, call)
    arn = template_arn(call.account, name)
    ask("iot:DescribeProvisioningTemplate", arn, {})
    template = require_template(tx, name)
    hooks.check_kind(template.kind)
    found = templates.find_in_force(tx, name)
    if found is None:
        raise ResourceNotFoundException(f"Template {name} not found")
    version_id = template.default_version_id
    if asked.version_id is not None:
        ask("iot:DescribeProvisioningTemplateVersion", arn, {})
        version_id = asked.version_id
        version = templates.find_template_version(tx, name, version_id)
        if version is None:
            raise ResourceNotFoundException(f"Template {name} has no version {version_id}")
        found = replace(found, body=version.body)
    if asked.function_name is not None:
        target = asked.function_name
        if not target.startswith("arn:"):
            target = call.account.lambda_arn(target)
        found = replace(found, hook=Hook(target, hooks.PAYLOAD_VERSION))
    if found.hook is None:
        raise InvalidRequestException(
            f"template `{name}` has no pre-provisioning hook, and no function to be tried is named"
        )
    ask(INVOKE, _unqualified(call.account, found.hook.target_arn), {})
    if provider is not None:
        known_as = call.account.known_as(provider_arn(call.account, provider.name))
        ask("iot:DescribeCertificateProvider", known_as, {})
        ask(INVOKE, _unqualified(call.account, provider.function_arn), {})
    return found, version_id


def _unqualified(account: Account, function_arn: str) -> str:
    return account.lambda_arn(invocation.function_name(account, function_arn))


# --- the certificate -----------------------------------------------------------------------


async def _certificate(
    call: Call, asked: Asked, provider: CertificateProvider | None, tried: Tried
) -> _Issued:
    """A certificate as a device would have got it."""
    profile, signed = call.services.device_profile, None
    if asked.csr is None:
        key = ec.generate_private_key(ec.SECP256R1())
        facts = issue_certificate(call, profile, key.public_key())
    else:
        try:
            request = parse_csr(call, asked.csr)
        except InvalidCsr as error:
            heard = InvalidCsrException(error.message)
            raise _Refused("csr", "invalid", error.message, heard) from None
        if provider is None:
            facts = issue_certificate(call, profile, request.public_key, request.subject)
        else:
            signed = await _signed(call, provider, request, asked.csr, tried)
            facts = signed.facts
    until = call.now + call.services.ownership_token_seconds
    issued = _Issued(registered(call, facts, "PENDING_ACTIVATION", pending_until=until), signed)
    tried.members["certificate"] = {
        "certificateId": facts.certificate_id,
        "certificatePem": facts.pem if signed is None else signed.pem,
        "key": "made up for this" if asked.csr is None else "that of the signing request",
        "signedBy": "the server" if provider is None or signed is None else provider.name,
    }
    if signed is not None:
        try:
            await _undone(call, issued.add)
        except CertificateValidationException as error:
            raise _not_issued(provider_signing.REFUSED, error.message) from None
    return issued


async def _signed(
    call: Call, provider: CertificateProvider, request: SigningRequest, csr: str, tried: Tried
) -> provider_signing.Signed:
    """What the certificate provider makes of a signing request."""
    source = provider_arn(call.account, provider.name)
    event = provider_signing.payload(call, csr)
    members, came = await _run(
        *(call, provider.function_arn, source, event),
        *(call.services.hook_seconds, "certificate-provider"),
    )
    tried.members["certificateProvider"] = {"certificateProviderName": provider.name, **members}
    if isinstance(came, FunctionError):
        raise _not_issued(came.kind, came.message)
    try:
        return await provider_signing.checked(call, provider, request, came)
    except FunctionError as error:
        raise _not_issued(error.kind, error.message) from None
    except CertificateValidationException as error:
        raise _not_issued(provider_signing.REFUSED, error.message) from None


def _not_issued(kind: str, reason: str) -> _Refused:
    heard = provider_signing.NOT_ISSUED(provider_signing.MESSAGE)
    return _Refused("certificate provider", kind, reason, heard)


# --- the hook ------------------------------------------------------------------------------


async def _consent(
    call: Call, asked: Asked, found: InForce, certificate: Certificate, tried: Tried
) -> hooks.Consent:
    """The hook's yes."""
    name, hook = asked.template_name, found.hook
    assert hook is not None  # noqa: S101 - _allowed has seen to that
    try:
        await call.read(provisioning.check_before_hook, call, name, found, certificate)
    except ServiceError as error:
        raise _Refused("before the hook", _code(error), error.message, error) from None
    source = template_arn(call.account, name)
    question = hooks.Question(hook, name, source, found.created_at, certificate)
    members, came = await _run(
        call,
        hook.target_arn,
        source,
        hooks.payload(call, question, asked.parameters),
        call.services.hook_seconds,
        f"hook-of-{name}",
    )
    tried.members["hook"] = members
    if isinstance(came, FunctionError):
        raise _Refused("hook", came.kind, came.message, hooks.failed(name))
    try:
        refusal, overrides = hooks.verdict(came.value)
    except FunctionError as error:
        raise _Refused("hook", error.kind, error.message, hooks.failed(name)) from None
    said = "" if came.answer is None else came.answer.reason
    if refusal:
        reason = f"{refusal}: {said}" if said else refusal
        raise _Refused("hook", "denied", reason, hooks.refused(name))
    tried.reason = said
    tried.members["parameterOverrides"] = overrides
    return hooks.Consent(question, overrides, came.target, came.answer)


async def _worked_through(
    call: Call,
    asked: Asked,
    found: InForce,
    issued: _Issued,
    consent: hooks.Consent,
    tried: Tried,
) -> None:
    """What the template makes of it, and all that the registry may have against that."""
    name, certificate = asked.template_name, issued.certificate
    id_ = certificate.certificate_id
    try:
        resources = provisioning.resources_of(call, found, id_, asked.parameters, consent.overrides)
    except InvalidParametersException as error:
        raise _Refused("template", _code(error), error.message, error) from None
    tried.members["rendered"] = template_checks.shown(Kind.FLEET, resources, asked.csr, name)

    def build(tx: Tx) -> Sequence[str]:
        issued.add(tx)
        provisioning.build(tx, call, name, found, certificate, resources)
        return hooks.settle(tx, call, consent, id_, resources)

    try:
        ended = await _undone(call, build)
    except hooks.Unsettled as error:
        raise _Refused("hook", "denied", error.message, hooks.refused(name)) from None
    except ServiceError as error:
        raise _Refused("registration", _code(error), error.message, error) from None
    for each in ended:
        tried.notes.append(f"certificate {each} would become INACTIVE")


# --- how -----------------------------------------------------------------------------------


async def _undone(call: Call, change: Callable[[Tx], T]) -> T:
    """What a transaction gives that is undone at its end; raises what `change` raises."""

    def tried(tx: Tx) -> None:
        raise _Undone(change(tx))

    try:
        await call.write(tried)
    except _Undone as end:
        given: T = end.given
        return given
    raise AssertionError("it was kept")


async def _run(
    call: Call,
    function_arn: str,
    source_arn: str,
    event: Mapping[str, Any],
    seconds: float,
    statement_id: str,
) -> tuple[dict[str, Any], Invoked | FunctionError]:
    """Runs a function as AWS IoT does: what is shown of it, and what it answered or why not."""
    began = monotonic()
    came: Invoked | FunctionError
    try:
        came = await invocation.invoke_for_iot(
            call, function_arn, source_arn, event, seconds=seconds
        )
    except FunctionError as error:
        came = error
    took = monotonic() - began
    permission, command = PRESENT, None
    output: object = None
    written = ""
    if isinstance(came, Invoked):
        output, written = came.value, came.log
    else:
        if came.kind is Failure.NO_PERMISSION:
            permission, command = (
                MISSING,
                _add_permission(call.account, function_arn, source_arn, statement_id),
            )
        elif not came.target:
            permission = NOT_LOOKED_AT
        if came.run is not None:
            output, written = _readable(came.run.payload), came.run.log
    members = {
        "functionArn": function_arn,
        "target": came.target or None,
        "permission": permission,
        "addPermission": command,
        "input": event,
        "output": output,
        "log": written,
        "seconds": round(took, 4),
        "limitSeconds": seconds,
    }
    return members, came


def _code(error: ServiceError) -> str:
    return error.code().removesuffix("Exception")


def _readable(payload: bytes) -> object:
    """An answer that cannot be used, as it is if it is short JSON, else its beginning as text."""
    if len(payload) <= _MAX_OUTPUT:
        with contextlib.suppress(ValueError):
            return json_document.read(payload.decode(), max_depth=invocation.MAX_DEPTH)
    return payload[:_MAX_OUTPUT].decode(errors="replace")


def _add_permission(account: Account, function_arn: str, source_arn: str, statement_id: str) -> str:
    """The command that lets AWS IoT invoke a function for a template or provider."""
    return shlex.join(
        [
            *("aws", "lambda", "add-permission"),
            *("--function-name", invocation.function_name(account, function_arn)),
            *("--statement-id", statement_id),
            *("--action", INVOKE),
            *("--principal", invocation.IOT),
            *("--source-arn", source_arn),
            *("--source-account", account.id),
        ]
    )

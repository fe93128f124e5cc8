"""Pre-provisioning hooks: the operator's function says whether a device may be provisioned.

Theory of operation. A registration that finds a hook at its template in force and has no consent
of that hook yet builds nothing and ends with a Question (operations/provisioning.py). The question
is asked outside of any transaction (`ask`), then the registration is done again, with the Consent.
When the template has another hook by then, or is another template, that is one more question;
all of them together have Services.hook_seconds, waiting for a free process included. A device that
may not ask any more by then gets nothing for the consent.

Whatever goes wrong, the answer is no: the device hears AccessDenied and which hook it was, the
reason is told in the log, in one line. What the function adds to the parameters is laid over those
of the device when the template is evaluated, and over the device configuration the device gets.

Sources: AWS IoT developer guide, "Pre-provisioning hooks", today's text and the earlier one, which
had `claimId`, `mqttClientId` and `incomingParameters` in the input and put `parameterOverrides`
into `deviceConfiguration`; API reference, ProvisioningHook.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from fleetgate.domain.document import minified, printable, quoted
from fleetgate.domain.resources import Kind, Resources
from fleetgate.errors import AccessDeniedException, InvalidRequestException
from fleetgate.functions.target import Failure, FunctionError
from fleetgate.operations import admission, invocation
from fleetgate.operations.built_in import Answer
from fleetgate.operations.call import Call
from fleetgate.store.certificates import Certificate
from fleetgate.store.engine import Tx
from fleetgate.store.templates import Hook

log = logging.getLogger("fleetgate.provisioning")

PAYLOAD_VERSION: Final = "2020-04-01"
"""The only version of a hook's input there is, and what a hook without one has."""

MAX_NAME: Final = 2048
MAX_VALUE: Final = 4096
"""Characters of the name and of the value of a parameter (Parameter and Value of the model)."""

NOT_ALLOWED: Final = "not-allowed"
"""The kind of a refusal when the device may not ask any more, whatever the hook says."""

_PSEUDO: Final = "AWS::"
_ALLOW: Final = "allowProvisioning"
_OVERRIDES: Final = "parameterOverrides"
_MAX_NAMES: Final = 20
_MAX_SHOWN: Final = 500


class Unsettled(AccessDeniedException):
    """A function of ours takes back its consent inside the registration, which is undone."""

    def __init__(self, consent: Consent, message: str) -> None:
        super().__init__(message)
        self.consent = consent


class Overtaken(Unsettled):
    """The device may not ask any more: its certificate was taken from it in the last moment."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a registration has to ask before it goes on.

    `template_created_at` tells the template from a later one of its name; `certificate` is the one
    to be registered.
    """

    hook: Hook
    template_name: str
    template_arn: str
    template_created_at: float
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Consent:
    """The hook's yes to a question, with what it adds to the parameters.

    `target` is what was asked; `answer` is that of a function of ours, which has something left
    to do.
    """

    question: Question
    overrides: Mapping[str, str]
    target: str
    answer: Answer | None = None

    def covers(self, hook: Hook, template_created_at: float) -> bool:
        """Is it the consent of this hook of this template?"""
        asked = self.question
        return (asked.hook, asked.template_created_at) == (hook, template_created_at)


# --- templates -----------------------------------------------------------------------------


async def checked_hook(
    call: Call, hook: Mapping[str, str] | None, kind: Kind, template_name: str
) -> Hook | None:
    """The hook a template is to have; raises InvalidRequestException.

    A function that does not exist, or may not be invoked, yet is worth a warning alone: it has to
    be there before a device is provisioned, not before the template.
    """
    if hook is None:
        return None
    check_kind(kind)
    version = hook.get("payloadVersion", PAYLOAD_VERSION)
    if version != PAYLOAD_VERSION:
        raise InvalidRequestException(
            f"preProvisioningHook.payloadVersion: {quoted(version)} is no version of the input; "
            f"the only one is {PAYLOAD_VERSION}"
        )
    arn = hook["targetArn"]
    try:
        name = invocation.function_name(call.account, arn)
    except InvalidRequestException as error:
        raise InvalidRequestException(f"preProvisioningHook.targetArn: {error.message}") from None
    source = call.account.arn(f"provisioningtemplate/{template_name}")
    try:
        await invocation.require_permission(call, await invocation.resolve(call, name), source)
    except FunctionError as error:
        log.warning(
            "event=hook-not-ready template=%s function=%s kind=%s reason=%r request=%s",
            *(template_name, name, error.kind, error.message, call.request_id),
        )
    return Hook(arn, version)


def check_kind(kind: Kind) -> None:
    """Raises InvalidRequestException for a template of a type that has no hooks.

    Source: API reference, CreateProvisioningTemplate: hooks are for FLEET_PROVISIONING only.
    """
    if kind is not Kind.FLEET:
        raise InvalidRequestException(
            f"preProvisioningHook: a template of type {kind} has none, only one of type "
            f"{Kind.FLEET} has"
        )


def shown_hook(hook: Hook | None) -> dict[str, str] | None:
    """A hook as DescribeProvisioningTemplate answers it."""
    if hook is None:
        return None
    return {"payloadVersion": hook.payload_version, "targetArn": hook.target_arn}


# --- asking --------------------------------------------------------------------------------


def payload(call: Call, question: Question, parameters: Mapping[str, str]) -> dict[str, Any]:
    """The input of a hook: the members of today's guide, then those of the earlier one."""
    claim = "" if call.identity is None else call.identity.certificate_id
    return {
        "claimCertificateId": claim,
        "certificateId": question.certificate.certificate_id,
        "certificatePem": question.certificate.pem,
        "templateArn": question.template_arn,
        "clientId": call.client_id,
        "parameters": dict(parameters),
        "claimId": claim,
        "mqttClientId": call.client_id,
        "incomingParameters": dict(parameters),
    }


async def ask(
    call: Call, question: Question, parameters: Mapping[str, str], deadline: float
) -> Consent:
    """Asks the hook, until `deadline` (of time.monotonic).

    Raises AccessDeniedException when it does not allow the registration, or fails, or when the
    device may not ask any more when it has answered.
    """
    began = monotonic()
    arn = question.hook.target_arn
    try:
        invoked = await invocation.invoke_for_iot(
            call,
            arn,
            question.template_arn,
            payload(call, question, parameters),
            seconds=max(0.0, deadline - began),
        )
    except FunctionError as error:
        _tell("failed", call, question, began, error.target, error.kind, error.message)
        raise failed(question.template_name) from None
    try:
        refusal, overrides = verdict(invoked.value)
    except FunctionError as error:
        _tell("failed", call, question, began, invoked.target, error.kind, error.message)
        raise failed(question.template_name) from None
    said = "" if invoked.answer is None else invoked.answer.reason
    if refusal:
        reason = f"{refusal}: {said}" if said else refusal
        _tell("refused", call, question, began, invoked.target, "denied", reason)
        raise refused(question.template_name)
    try:
        await call.read(admission.require_still, call)
    except AccessDeniedException as error:
        _tell("refused", call, question, began, invoked.target, NOT_ALLOWED, error.message)
        raise
    log.info(
        "event=hook-allowed %s target=%r seconds=%.3f overrides=%s%s",
        *(_subject(call, question), invoked.target, invoked.seconds),
        repr(",".join(sorted(overrides)[:_MAX_NAMES])[:_MAX_SHOWN]) if overrides else "-",
        f" reason={printable(said, 500)!r}" if said else "",
    )
    return Consent(question, overrides, invoked.target, invoked.answer)


def verdict(value: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """What a hook's answer says: why it is no, else the empty text, and the overrides.

    Raises FunctionError(MALFORMED) for an answer that says neither yes nor no. AWS's guide has a
    boolean, and ``"true"``; nothing else means yes. Further members are nobody's concern.
    """
    if _ALLOW not in value:
        names = ", ".join(quoted(printable(name, 80)) for name in sorted(value)[:_MAX_NAMES])
        raise _malformed(f"`{_ALLOW}` is missing; it has {names or 'no members'}")
    allowed = value[_ALLOW]
    if allowed is False or allowed == "false":
        return f"`{_ALLOW}` is {_json(allowed)}", {}
    # 1 == True in Python, and is no boolean in JSON
    if allowed is not True and allowed != "true":
        raise _malformed(f'`{_ALLOW}` must be true or "true", not {_json(allowed)}')
    overrides = value.get(_OVERRIDES)
    if overrides is None:
        return "", {}
    if not isinstance(overrides, dict):
        raise _malformed(f"`{_OVERRIDES}` must be an object, not {_json(overrides)}")
    for name, text in overrides.items():
        member = f"`{_OVERRIDES}`.{quoted(printable(name, 80))}"
        if not isinstance(text, str):
            raise _malformed(f"{member} must be a string, not {_json(text)}")
        if not 1 <= len(name) <= MAX_NAME or len(text) > MAX_VALUE:
            raise _malformed(
                f"{member}: names have 1 to {MAX_NAME} characters and values up to {MAX_VALUE}, "
                f"not {len(name)} and {len(text)}"
            )
    # as from devices: a name of this kind is no pseudo parameter, and stands for nothing else
    return "", {name: text for name, text in overrides.items() if not name.startswith(_PSEUDO)}


# --- the last word -------------------------------------------------------------------------


def require_standing(tx: Tx, call: Call, consent: Consent) -> None:
    """Returns when the certificate of the device may still be used.

    Raises Overtaken.
    """
    try:
        admission.require_standing(tx, call)
    except AccessDeniedException as error:
        raise Overtaken(consent, error.message) from None


def settle(
    tx: Tx, call: Call, consent: Consent, certificate_id: str, resources: Resources
) -> Sequence[str]:
    """Lets a function of ours say the last word, inside the registration's transaction.

    Returns the ids of other certificates it made INACTIVE. Raises Unsettled.
    """
    answer = consent.answer
    if answer is None or answer.settle is None:
        return ()
    try:
        return answer.settle(tx, call, certificate_id, resources)
    except AccessDeniedException as error:
        raise Unsettled(consent, error.message) from None


def taken_back(call: Call, error: Unsettled, began: float) -> AccessDeniedException:
    """Tells of a consent that led to nothing, and what the device hears."""
    question, overtaken = error.consent.question, isinstance(error, Overtaken)
    kind = NOT_ALLOWED if overtaken else "denied"
    _tell("refused", call, question, began, error.consent.target, kind, error.message)
    return AccessDeniedException(error.message) if overtaken else refused(question.template_name)


def settled(call: Call, consent: Consent, ended: Sequence[str]) -> None:
    """Tells everybody of what was settled: to be called when it is stored, not before."""
    for certificate_id in ended:
        call.services.certificate_changed(certificate_id)
    if ended:
        call.policies_changed()
    if consent.answer is not None and consent.answer.announce is not None:
        consent.answer.announce(call)


# --- what is told --------------------------------------------------------------------------


def refused(template_name: str) -> AccessDeniedException:
    """What a device hears whom the hook does not allow in."""
    return AccessDeniedException(
        f"the pre-provisioning hook of template `{template_name}` did not allow the provisioning"
    )


def failed(template_name: str) -> AccessDeniedException:
    """What a device hears when the hook gave no answer; why is for the log."""
    return AccessDeniedException(f"the pre-provisioning hook of template `{template_name}` failed")


def _tell(
    what: str, call: Call, question: Question, began: float, target: str, kind: str, reason: str
) -> None:
    log.warning(
        "event=hook-%s %s target=%r kind=%s seconds=%.3f reason=%r",
        *(what, _subject(call, question), target or "none", kind, monotonic() - began),
        printable(reason, 1500),
    )


def _subject(call: Call, question: Question) -> str:
    return (
        f"template={question.template_name} certificate={question.certificate.certificate_id} "
        f"client={call.client_id!r} function={question.hook.target_arn} request={call.request_id}"
    )


def _malformed(rule: str) -> FunctionError:
    return FunctionError(Failure.MALFORMED, f"the answer of the hook cannot be used: {rule}")


def _json(value: object) -> str:
    return quoted(printable(minified(value), 120), 120)

"""Just-in-time provisioning: the template of a CA, carried out for a certificate under it.

A certificate that was registered by its first connect, under a CA with a registration
configuration, is WAITING in the store. Its template is carried out behind the device's back, in one
transaction with the rights of the provisioning role, and the certificate is activated by it; or it
fails, everything is undone, and the certificate is FAILED with the reason. What a crash or the end
of the server leaves WAITING is taken up when the server starts, or when the device connects again;
so is what failed because the database was away.

Any other failure, a defect of ours too, is for good: the certificate stays PENDING_ACTIVATION.
Deleting it lets the device begin anew, since the certificate is not known then.

Source: AWS IoT Developer Guide, "Just-in-time provisioning".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fleetgate.domain import template
from fleetgate.domain.document import printable
from fleetgate.errors import (
    AccessDeniedException,
    Error,
    InvalidTemplate,
    ServiceError,
    ServiceUnavailableException,
    told,
)
from fleetgate.operations.call import Call, Services
from fleetgate.operations.registration import (
    Plan,
    allow_by_role,
    announce,
    carry_out,
    parsed_template,
    plan,
)
from fleetgate.pki import pem
from fleetgate.pki.subject_parameters import subject_parameters
from fleetgate.store import ca_certificates, certificates, templates
from fleetgate.store.certificates import Certificate
from fleetgate.store.engine import Tx

log = logging.getLogger("fleetgate.just_in_time")

AT_ONCE: Final = 16
"""Templates that are carried out at a time."""

IN_LINE: Final = 10_000
"""Certificates that wait for that in memory. More stay in the store until they connect again."""

_REASON: Final = 1000  # characters of a failure that are kept
_PAGE: Final = 500


class _Failed(Error):
    """The template could not be carried out; the message begins with the step that failed."""

    def __init__(self, step: str, message: str) -> None:
        super().__init__(f"step {step}: {message}")


@dataclass(frozen=True, slots=True)
class _Configuration:
    """What is to be carried out: `source_arn` is what names the role, `name` is for the log."""

    body: str
    role_arn: str
    source_arn: str
    name: str


@dataclass(frozen=True, slots=True)
class _Done:
    """What was done for a certificate."""

    plan: Plan
    thing_name: str | None
    status: str
    template: str


class Provisioning:
    """The certificates that wait for their template, and the few that are being provisioned."""

    __slots__ = ("_closing", "_known", "_line", "_services", "_tasks", "_workers")

    def __init__(self, services: Services) -> None:
        self._services = services
        self._line: deque[str] = deque()
        self._known: set[str] = set()  # in line, or being provisioned
        self._tasks: set[asyncio.Task[None]] = set()
        self._workers = 0
        self._closing = False

    def start(self) -> None:
        """Takes up what an earlier run of the server has left."""
        self._keep(asyncio.create_task(self._resume(), name="just-in-time-resume"))

    def add(self, certificate_id: str) -> None:
        """Has a WAITING certificate provisioned, soon; twice is once."""
        if self._closing or certificate_id in self._known or len(self._known) >= IN_LINE:
            return
        self._known.add(certificate_id)
        self._line.append(certificate_id)
        if self._workers < AT_ONCE:
            self._workers += 1
            self._keep(asyncio.create_task(self._work_off(), name="just-in-time"))

    async def settled(self) -> None:
        """Returns when nothing is in line and nothing is being done."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self, grace: float) -> None:
        """Finishes what has been begun, for `grace` seconds; the rest waits in the store."""
        self._closing = True
        self._line.clear()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=grace)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resume(self) -> None:
        store, after, count = self._services.store, "", 0
        try:
            while not self._closing:
                found = await store.read(certificates.list_waiting_certificates, after, _PAGE)
                for certificate_id in found:
                    await self._provision_once(certificate_id)
                count += len(found)
                if len(found) < _PAGE:
                    break
                after = found[-1]
        except ServiceUnavailableException as error:
            log.warning("event=not-resumed cause=%r", error.message)
        if count:
            log.info("event=resumed certificates=%d", count)

    async def _provision_once(self, certificate_id: str) -> None:
        """One that was found waiting, unless its device has connected meanwhile."""
        if certificate_id not in self._known and not self._closing:
            self._known.add(certificate_id)
            await self._provision(certificate_id)

    async def _work_off(self) -> None:
        while self._line:
            await self._provision(self._line.popleft())
        self._workers -= 1

    async def _provision(self, certificate_id: str) -> None:
        services = self._services
        call = Call(services, services.new_id(), services.now())
        try:
            await _provision(call, certificate_id)
        except ServiceUnavailableException as error:
            log.warning(
                "event=not-provisioned certificate=%s cause=%r",
                *(certificate_id, f"{error.message}; it will be tried at the next connect"),
            )
        except Exception:
            log.exception("event=defect certificate=%s", certificate_id)
        finally:
            self._known.discard(certificate_id)


async def _provision(call: Call, certificate_id: str) -> None:
    """Carries out the template of one certificate, or notes why that failed."""
    try:
        done = await call.write(_carry_out, call, certificate_id)
    except ServiceUnavailableException:
        raise
    except Exception as error:
        if isinstance(error, _Failed):
            reason = printable(error.message, _REASON)  # with what a subject may hold: anything
        else:
            log.exception("event=defect certificate=%s request=%s", certificate_id, call.request_id)
            reason = f"internal error; the server's log has more, request {call.request_id}"
        if await call.write(certificates.update_provisioning_failure, certificate_id, reason):
            log.warning(
                "event=provisioning-failed certificate=%s request=%s cause=%r",
                *(certificate_id, call.request_id, reason),
            )
        return
    if done is None:
        return
    announce(call, done.plan)
    log.info(
        "event=provisioned certificate=%s template=%s thing=%s status=%s request=%s",
        *(certificate_id, done.template, done.thing_name, done.status, call.request_id),
    )


def _carry_out(tx: Tx, call: Call, certificate_id: str) -> _Done | None:
    """Everything in one transaction; None when the certificate does not wait any more.

    Raises _Failed.
    """
    certificate = certificates.find_certificate(tx, certificate_id)
    if certificate is None or certificate.provisioning_state != certificates.WAITING:
        return None
    configuration = _configuration(tx, call, certificate)
    with _step("template"):
        parsed = parsed_template(call, configuration.body, template.Kind.JITP)
        parameters = subject_parameters(pem.decode(certificate.pem, "CERTIFICATE"))
        resources = template.render(parsed, parameters)
    wanted = resources.certificate
    if wanted is None or wanted.certificate_id != certificate_id:
        raise _Failed(
            "template",
            "its AWS::IoT::Certificate resource is another certificate than the device's, which "
            "would never be activated",
        )
    with _step("plan"):
        planned = plan(tx, call, resources, certificate)
    with _step("resources"):
        allow = allow_by_role(tx, call, configuration.role_arn, configuration.source_arn)
        carry_out(tx, call, planned, allow)
    thing_name = None if resources.thing is None else resources.thing.name
    return _Done(planned, thing_name, wanted.status, configuration.name)


def _configuration(tx: Tx, call: Call, certificate: Certificate) -> _Configuration:
    """What the CA of a certificate says at this moment; raises _Failed."""
    ca_id = certificate.ca_certificate_id or ""
    found = ca_certificates.find_ca_certificate(tx, ca_id)
    if found is None:
        raise _Failed("configuration", f"CA certificate {ca_id} has been deleted")
    if found.template_name is not None:
        return _named(tx, call, found.template_name)
    if found.template_body is None or found.role_arn is None:
        raise _Failed(
            "configuration", f"CA certificate {ca_id} has no registration configuration any more"
        )
    arn = call.account.arn(f"cacert/{ca_id}")
    return _Configuration(found.template_body, found.role_arn, arn, "inline")


def _named(tx: Tx, call: Call, name: str) -> _Configuration:
    """The default version of a template; raises _Failed unless it may be used."""
    found = templates.find_in_force(tx, name)
    if found is None:
        raise _Failed("configuration", f"template `{name}` does not exist")
    if found.kind is not template.Kind.JITP:
        raise _Failed("configuration", f"template `{name}` is of type {found.kind}, not JITP")
    if not found.enabled:
        raise _Failed("configuration", f"template `{name}` is disabled")
    arn = call.account.arn(f"provisioningtemplate/{name}")
    return _Configuration(found.body, found.role_arn, arn, name)


@contextlib.contextmanager
def _step(name: str) -> Iterator[None]:
    """What a step refuses, as _Failed."""
    try:
        yield
    except AccessDeniedException as error:
        raise _Failed("role", told(error)) from None
    except ServiceUnavailableException:
        raise
    except (InvalidTemplate, ServiceError) as error:
        raise _Failed(name, told(error)) from None

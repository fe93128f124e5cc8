"""A journey to a new identity: what the journal says is done, and written into the journal.

:func:`fleetgate.device.journal.next_step` decides, :class:`Journey` does it: one step, then the
journal is asked again. A step that fails and may be repeated is just not done yet, so trying again
and going on after a crash are the same. The connection of the claim (or of the present identity)
is opened when a step needs it, kept from one to the next, and closed when one failed in any other
way than by an answer.

Two failures of RegisterThing are told apart. When the very first request was refused, nothing was
registered, and the journey may be given up; when it was sent before, a refusal says nothing about
what the first one has done. Nor do "too many requests" and an error of the server say that nothing
was done. What was refused is tried all the same before its key is given up, because that costs
little.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import replace
from typing import cast

from fleetgate.device import doubt, explanations, identity, keys, operations, protocol
from fleetgate.device import journal as journals
from fleetgate.device.directory import IdentityDirectory
from fleetgate.device.endpoint import AnyCredentials
from fleetgate.device.errors import (
    BadRequest,
    ConnectionFailed,
    NotAuthorized,
    ProvisioningError,
    Rejected,
    StorageRefused,
)
from fleetgate.device.journal import Journal, NextStep, Registration
from fleetgate.device.mqtt_client import MqttClient
from fleetgate.device.new_identity import NewIdentity
from fleetgate.device.plan import Connect, Plan
from fleetgate.device.retry import Surroundings
from fleetgate.device.steps import Steps

logger = logging.getLogger("fleetgate.device")

_INVALID_TOKEN = "InvalidCertificateOwnershipToken"  # noqa: S105 - the name of an error
_PROBES = 2
_GOODBYE_SECONDS = 5.0


class Journey:
    """One run of a journey, in the open `directory`; it may be the last of several."""

    def __init__(
        self,
        plan: Plan,
        directory: IdentityDirectory,
        connect: Connect,
        steps: Steps,
        around: Surroundings,
        stop: threading.Event | None,
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._connect = connect
        self._steps = steps
        self._around = around
        self._stop = stop
        self._begun_at = around.monotonic()
        self._client: MqttClient | None = None
        self._over = False
        self._given_up = False
        self._sent_before = False
        self._anew = False
        self._claim_failures = 0
        self._token_refused: Rejected | None = None
        self._now: Journal

    def prepare(self) -> None:
        """Read the journal, and begin unless it is to be gone on with. Raises StorageRefused."""
        found = self._directory.journal()
        if found is not None and not journals.may_begin_anew(found):
            self._refuse_another(found)
        elif found is not None and self._is_another(found):
            if found.rejected and self._of(found).has_usable_key():
                self._now, self._given_up = found, True
                return
            found = None
        if found is not None:
            self._now = found
            own = self._chosen_client_id(found)
            if own is not None:
                self._write(journals.called(found, own))
        self._sent_before = found is not None and found.state == "registering"
        if journals.next_step(found, self._around.wall()) is NextStep.BEGIN:
            self._anew = found is not None
            self._begin()
        self._new.make_files()

    def run(self) -> None:
        """Everything else, until the new identity is the active one.

        Raises ProvisioningError; what is done by then stays done.
        """
        failures = 0
        try:
            while not self._over:
                if self._stop is not None and self._stop.is_set():
                    raise ProvisioningError("stopped, as was asked for; it goes on when run again")
                step = self._next_step()
                try:
                    self._take(step)
                    failures = 0
                except ProvisioningError as error:
                    failures += 1
                    self._after(step, error, failures)
        finally:
            self._hang_up()

    def _next_step(self) -> NextStep:
        if self._given_up:
            return NextStep.TRY
        return journals.next_step(self._now, self._around.wall())

    # --- trying again ---

    def _after(self, step: NextStep, error: ProvisioningError, failures: int) -> None:
        """Wait until the step may be tried again. Raises the error when it may not."""
        if not isinstance(error, Rejected):
            self._hang_up()
        retries = self._plan.retries
        pause = retries.pause(failures, self._around.chance())
        spent = self._around.monotonic() - self._begun_at
        again = error.retry and failures < retries.attempts and spent + pause <= retries.seconds
        logger.warning(
            "event=journey-step-failed step=%s attempt=%d pause=%s cause=%r",
            error.step,
            failures,
            f"{pause:.2f}" if again else "none",
            error.message,
        )
        if not again:
            raise self._explained(step, error, spent) from error
        self._steps.tell(
            error.step or "prepare", f"{error.message} (trying again in {pause:.1f} s)"
        )
        if self._stop is not None:
            if self._stop.wait(pause):
                raise error
        else:
            self._around.sleep(pause)

    def _explained(
        self, step: NextStep, error: ProvisioningError, spent: float
    ) -> ProvisioningError:
        if error.step == "finish":
            return explanations.not_written(self._now, error)
        if step is not NextStep.PROVE or isinstance(error, StorageRefused):
            return error
        return explanations.does_not_connect(self._now, self._directory.path, error, spent)

    # --- the steps ---

    def _take(self, step: NextStep) -> None:
        match step:
            case NextStep.BEGIN:
                with self._steps("prepare", "beginning anew: the token is over"):
                    if self._anew:
                        raise ProvisioningError(
                            "by this device's clock the token of a certificate is over again, "
                            f"{self._plan.token_seconds:g} s (token_seconds) after it was asked "
                            "for: does the clock jump, or is token_seconds too short?"
                        )
                    self._anew = True
                    self._begin()
                    self._new.make_files()
            case NextStep.CREATE:
                self._create()
            case NextStep.REGISTER:
                self._register()
            case NextStep.TRY:
                self._try()
            case NextStep.PROVE:
                self._prove()
            case NextStep.SWITCH:
                self._switch()

    def _begin(self) -> None:
        """A new journal, for a new number; then what the old one was about goes."""
        number = self._directory.next_number()
        previous = self._plan.present.number if self._plan.present else None
        begun = journals.begun(
            self._plan.goal, number, previous, self._plan.key_name, self._plan.client_id
        )
        self._write(begun)
        self._sent_before = False
        self._token_refused = None
        self._directory.remove_identities(but=(previous, number))

    def _create(self) -> None:
        client = self._session()
        server_side = self._plan.key == "server"
        kind = "create" if server_side else "create-from-csr"
        with self._steps("create", f"asking for a certificate on `$aws/certificates/{kind}`"):
            terms = self._plan.terms
            asked_at = self._around.wall()
            if server_side:
                operation = protocol.create_keys_and_certificate(terms.payload_format)
                issued = operations.create_keys_and_certificate(client, terms)
                public_key = keys.public_key_of(operation, issued)
            else:
                operation = protocol.create_certificate_from_csr(terms.payload_format)
                csr, public_key = self._new.signing_request()
                issued = operations.create_certificate_from_csr(client, csr, terms)
            keys.check_issued(operation, issued, public_key)
        with self._steps("store", f"storing certificate {issued.certificate_id}"):
            files: dict[str, str | bytes] = {identity.CERTIFICATE: issued.certificate_pem}
            if issued.private_key is not None:
                files = {identity.PRIVATE_KEY: issued.private_key, **files}
            self._directory.write(self._now.number, files)
            self._write(
                journals.issued(
                    self._now,
                    issued.certificate_id,
                    issued.ownership_token,
                    asked_at,
                    self._plan.token_seconds,
                )
            )

    def _register(self) -> None:
        if self._token_refused is not None:  # it will be again: only the certificate is tried
            with self._steps("register", "trying the certificate, whose token is no good any more"):
                self._doubt(self._token_refused)
            return
        try:
            client = self._session()
        except ConnectionFailed as error:
            self._claim_failures += 1
            for_good = error.refused or not error.retry
            # the claim may be gone, and not be needed any more
            last = for_good or self._claim_failures >= self._plan.retries.attempts
            names = doubt.likely_names(self._plan, self._now)
            if self._sent_before and last and self._tried(names) is None:
                return
            raise
        goal, terms = self._plan.goal, self._plan.terms
        with self._steps("register", f"registering by the template `{goal.template}`"):
            if self._now.state != "registering":
                self._write(journals.registering(self._now))
            sent_before, self._sent_before = self._sent_before, True
            try:
                answer = operations.register_thing(
                    client, goal.template, self._now.token, self._plan.parameters, terms
                )
            except ProvisioningError as error:
                invalid = isinstance(error, Rejected) and error.error_code == _INVALID_TOKEN
                if not sent_before and _not_carried_out(error):
                    rejected = isinstance(error, Rejected)
                    self._write(journals.not_registered(self._now, rejected=rejected))
                    self._sent_before = False
                if isinstance(error, Rejected) and invalid:
                    self._doubt(error)
                    return
                raise
            registration = Registration(
                answer.thing_name,
                self._plan.own_client_id or answer.thing_name or self._plan.client_id,
                answer.device_configuration,
            )
            self._write(journals.registered(self._now, registration))

    def _doubt(self, said: Rejected) -> None:
        """The token is no good: find out whether it has done its duty already.

        Begins anew when it has not beyond doubt, or the caller wants that. Raises InDoubt, and
        ConnectionFailed when it could not be found out; and `said` when it is no good again.
        """
        self._hang_up()
        names = doubt.likely_names(self._plan, self._now)
        why = self._tried(names, _PROBES if self._sent_before else 1)
        if why is None:
            return
        if not why.refused:
            self._token_refused = said
            raise doubt.not_known(self._now, self._directory.path, said, why) from said
        if self._sent_before and not self._plan.begin_anew:
            path = self._directory.path
            raise doubt.in_doubt(self._now, path, said, names, why) from said
        self._session()  # if this fails, so did the attempts before, for the same cause
        if self._anew:
            raise said
        self._anew = True
        self._steps.tell("register", f"{said.message}; beginning anew")
        self._begin()
        self._new.make_files()

    def _try(self) -> None:
        """A certificate whose registration was rejected is tried before it is given up.

        Begins anew when it is refused. Raises StorageRefused when it connects, and is not what is
        wanted now; and ConnectionFailed when it could not be found out.
        """
        now = self._now
        sentence = f"trying certificate {now.certificate_id} before it is given up"
        with self._steps("reconnect", sentence):
            why = self._tried(doubt.likely_names(self._plan, now), 1)
            if why is not None and not why.refused:
                raise doubt.not_tried(now, self._directory.path, why) from why
        with self._steps("prepare", "looking at what was found out"):
            another, self._given_up = self._given_up, False
            if why is None:
                self._refuse_another(self._now)
                return
            self._anew = self._anew or not another
            self._begin()
            self._new.make_files()

    def _tried(self, names: list[str], probes: int = _PROBES) -> ConnectionFailed | None:
        """None when the new certificate connects: it is registered. Else why it does not."""
        home, credentials = self._new.home(), self._new.credentials()
        for attempt in range(probes):
            if attempt:
                self._around.sleep(self._plan.retries.pause(1, 1.0))
            for name in names:
                try:
                    client = self._connect(home, credentials, name)
                except ConnectionFailed as error:
                    why = error
                    if not why.refused:
                        return why  # so it would be with the other names
                    continue
                self._goodbye(client)
                self._write(journals.registered(self._now, doubt.found_out(self._plan, name)))
                return None
        return why

    def _prove(self) -> None:
        self._hang_up()  # it may have the same client id
        registration = self._registration
        with self._steps(
            "reconnect", f"connecting as `{registration.client_id:.128}` with the new certificate"
        ):
            self._check_thing()
            self._goodbye(self._dial(self._new.credentials(), registration.client_id))
        with self._steps("finish", f"writing `{identity.CONFIGURATION}`"):
            self._directory.write_configuration(
                self._now.number, self._new.configuration(registration)
            )
            self._write(journals.proven(self._now))

    def _switch(self) -> None:
        with self._steps("finish", f"switching `{self._directory.path / identity.CURRENT}`"):
            journal = self._now
            self._directory.switch(journal.number)
            self._directory.remove_identities(but=(journal.number, journal.previous))
            self._directory.forget_journal(switched=True)
            self._over = True

    # --- what the steps need ---

    @property
    def _new(self) -> NewIdentity:
        return self._of(self._now)

    def _of(self, journal: Journal) -> NewIdentity:
        return NewIdentity(self._plan, self._directory, journal)

    @property
    def _registration(self) -> Registration:
        return cast("Registration", self._now.registration)  # there in the states that need it

    def _write(self, journal: Journal) -> None:
        try:
            self._directory.write_journal(journal)
        except StorageRefused as error:
            if journal.state != "registered":
                raise
            raise explanations.not_remembered(journal, error) from error
        self._now = journal
        logger.info(
            "event=journal-written state=%s number=%d certificate=%s",
            journal.state,
            journal.number,
            journal.certificate_id or "none",
        )

    def _session(self) -> MqttClient:
        """The connection of the claim, or of the present identity."""
        if self._client is None:
            plan = self._plan
            sentence = f"connecting to {plan.endpoint.shown} as `{plan.client_id}`"
            with self._steps("connect", sentence):
                self._client = self._dial(plan.credentials, plan.client_id)
        return self._client

    def _dial(self, credentials: AnyCredentials, client_id: str) -> MqttClient:
        endpoint = self._plan.endpoint
        if self._plan.authorities is not None:
            endpoint = replace(endpoint, ca=self._directory.file(self._now.number, identity.CA))
        return self._connect(endpoint, credentials, client_id)

    def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            self._goodbye(client)

    def _goodbye(self, client: MqttClient) -> None:
        with suppress(TimeoutError):
            client.disconnect().result(_GOODBYE_SECONDS)

    def _is_another(self, found: Journal) -> bool:
        """Whether `found` is for something else than what is asked for."""
        return found.goal != self._plan.goal or found.key != self._plan.key_name

    def _chosen_client_id(self, found: Journal) -> str | None:
        """The client id for what was registered, when it is another one than a former run's."""
        done = found.registration
        if found.state != "registered" or done is None:
            return None
        own = self._plan.own_client_id or (done.thing_name if self._plan.new_thing else None)
        return None if own == done.client_id else own

    def _check_thing(self) -> None:
        """Raises StorageRefused when a renewal would make the device another thing, unasked."""
        present, new = self._plan.present, self._registration.thing_name
        old = present.thing_name if present else None
        if old is None or new in (None, old) or self._plan.new_thing:
            return
        raise explanations.another_thing(self._now, self._directory.path, old)

    def _refuse_another(self, found: Journal) -> None:
        """Raises StorageRefused unless `found` may be gone on with. Kinds of keys do not count."""
        differences = self._plan.goal.differences(found.goal)
        if not self._of(found).has_usable_key():
            differences.append("another key")
        if differences:
            raise explanations.another_journey(found, self._directory.path, differences)


def _not_carried_out(error: ProvisioningError) -> bool:
    """Whether the server has refused the request, or never got it, beyond doubt."""
    if isinstance(error, Rejected):
        return not error.retry and 400 <= (error.status_code or 0) < 500
    return error.step == "subscribe" or isinstance(error, NotAuthorized | BadRequest)

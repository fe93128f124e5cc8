"""Fleet provisioning by claim: a device comes with a certificate that all its kind share, and
leaves with one of its own; and renewal: it comes with its own, and leaves with a new one.

The steps, in order: ``prepare`` (look at the arguments, their files and the directory, and make the
key), ``connect`` (with the claim certificate), ``create`` (the certificate), ``store`` (on disk,
before the device is registered), ``register``, ``reconnect`` (with the new certificate, which
proves that it works) and ``finish`` (the configuration, and the switch that makes the identity the
active one). What is refused while topics are subscribed to has ``subscribe`` as its step.

When a step fails nothing is undone, and nothing is lost: `provision` and `renew` called again for
the same go on where they ended, whether they raised, were killed or lost their power. What is
remembered, and what follows from it, is told in :mod:`fleetgate.device.journal`; what is on disk in
:mod:`fleetgate.device.identity`. A certificate that was never registered is deleted by the server
when its token ends; one that was stays, with its thing, and is tried again by the next run for the
same. :func:`abandon` forgets it.

Time. Each wait is bounded by the endpoint's and the terms' time-outs; a step that may be repeated
is, within the bounds of `retries`: connecting, subscribing, time-outs, a lost connection, and
answers with status code 429 or from 500 on. Other refusals end the run at once.

Source: AWS IoT Core Developer Guide, "Provisioning devices that don't have device certificates
using fleet provisioning" (provisioning by claim).
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fleetgate.device import arguments, directory, disk, identity, keys
from fleetgate.device.disk import Disk
from fleetgate.device.endpoint import AnyCredentials, Credentials, Endpoint
from fleetgate.device.errors import BadRequest, Step, StorageRefused
from fleetgate.device.exchange import Terms
from fleetgate.device.identity import Identity
from fleetgate.device.journal import TOKEN_SECONDS
from fleetgate.device.journey import Journey
from fleetgate.device.mqtt_client import MqttClient
from fleetgate.device.plan import Connect, Key, Plan
from fleetgate.device.retry import Retries, Surroundings
from fleetgate.device.steps import Progress, Steps

__all__ = [
    "Connect",
    "Key",
    "Progress",
    "Provisioned",
    "Retries",
    "Surroundings",
    "abandon",
    "provision",
    "provision_async",
    "renew",
    "renew_async",
]

_TERMS = Terms()
_RETRIES = Retries()
_AROUND = Surroundings()
_DISK = Disk()


@dataclass(frozen=True, slots=True)
class Provisioned:
    """The active identity, proven by a connection.

    ``seconds`` is how long each step of this run took. ``already`` says that there was nothing to
    do: a former run for the same had finished, and no connection was made.
    """

    identity: Identity
    seconds: dict[Step, float]
    already: bool = False

    @property
    def thing_name(self) -> str | None:
        """None when the template makes no thing."""
        return self.identity.thing_name

    @property
    def certificate_id(self) -> str:
        """The id of the new certificate."""
        return self.identity.certificate_id

    @property
    def client_id(self) -> str:
        """The one it connected with."""
        return self.identity.client_id

    @property
    def device_configuration(self) -> dict[str, str]:
        """What the template had for the device."""
        return self.identity.device_configuration

    @property
    def files(self) -> dict[str, Path]:
        """The paths to give to other programs, which stay the same; by name."""
        missing = {
            identity.PRIVATE_KEY: self.identity.key is None,
            identity.CA: self.identity.ca is None,
        }
        return {
            name: self.identity.directory / name for name in identity.FILES if not missing.get(name)
        }


def provision(
    endpoint: Endpoint,
    claim: AnyCredentials,
    template: str,
    parameters: Mapping[str, str] | None,
    out: Path | str,
    *,
    key: Key = "P-256",
    subject: str | None = None,
    client_id: str | None = None,
    own_client_id: str | None = None,
    terms: Terms = _TERMS,
    retries: Retries = _RETRIES,
    token_seconds: float = TOKEN_SECONDS,
    begin_anew: bool = False,
    connect: Connect | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    around: Surroundings = _AROUND,
    calls: Disk = _DISK,
) -> Provisioned:
    """Get this device its own identity and put it into the directory `out`.

    `claim` is what to connect to `endpoint` with. `template` is the name of the provisioning
    template and `parameters` what it asks for, with all of which the request may have 128 KiB; None
    is for nothing.

    `key` is the kind of the key, which is made here and never leaves `out`; a key on a PKCS#11
    token, which signs; or ``"server"``: the server makes it (RSA 2048) and sends it. `subject` is
    that of the signing request (``CN=lamp-1,O=Example``), by default the client id.

    `client_id` is the one for the claim's connection, by default a random one; `own_client_id` the
    one of the new identity, by default the name of its thing, or `client_id` when there is none.
    `token_seconds` is how long the server's ownership tokens live. With `begin_anew` a device that
    may be registered, but whose token is over and whose certificate is refused, gets another
    certificate and key instead of InDoubt; the server may keep the first one for good. `connect`
    is that of an adapter (paho-mqtt's, or awscrt's for a key on a token). `progress` is called with
    each step. When `stop` is set, it ends before the next step, and goes on when it is called
    again.

    `out` is made (mode 0700) when it is missing. A complete identity in it is never replaced: when
    it was made for the same endpoint, template and parameters it is returned and nothing is done,
    else StorageRefused. The claim's files are never written to, and its key must not be readable
    by others.

    Raises ProvisioningError: its class says what went wrong, ``step`` where, ``retry`` whether it
    may be called again with hope.
    """
    arguments.check_types(
        out,
        endpoint=endpoint,
        claim=claim,
        template=template,
        key=key,
        subject=subject,
        terms=terms,
        retries=retries,
        token_seconds=token_seconds,
        begin_anew=begin_anew,
        connect=connect,
        progress=progress,
    )
    parameters = {} if parameters is None else parameters
    steps = Steps(progress, around.monotonic)
    with ExitStack() as cleanup:
        with steps("prepare", f"preparing `{out}`"):
            goal = arguments.goal_of("provision", endpoint, template, parameters, terms)
            arguments.check_key(key, subject, connect, claim)
            of_csr = None if subject is None else keys.subject_of(subject)
            authorities: bytes | None = None
            if not disk.exists(Path(out)):  # else the claim may not be needed any more, and be gone
                authorities = arguments.authorities_of(endpoint)
                arguments.check_claim(endpoint, claim, retries)
            name = f"fleetgate-{secrets.token_hex(8)}" if client_id is None else client_id
            arguments.check(key, name, own_client_id, terms, token_seconds, template)
            place = cleanup.enter_context(directory.open_directory(Path(out), calls))
            place.check(arguments.strangers(endpoint, claim, Path(out)))
            found = place.journal()
            if place.current() is not None and (found is None or found.goal.purpose == "renew"):
                same = _same(identity.load(out), arguments.digest_of(goal))
                return Provisioned(same, steps.seconds, already=True)
            if found is None or not (
                found.registration or (found.state == "registering" and arguments.is_gone(claim))
            ):
                retries = arguments.check_claim(endpoint, claim, retries)
            _open_token(key)
            plan = Plan(
                goal,
                arguments.digest_of(goal),
                endpoint,
                authorities or arguments.authorities_of(endpoint),
                claim,
                name,
                own_client_id,
                parameters,
                key,
                of_csr,
                None,
                terms,
                retries,
                token_seconds,
                begin_anew,
            )
            adapter = connect or _adapter(key, claim)
            journey = Journey(plan, place, adapter, steps, around, stop)
            journey.prepare()
        journey.run()
        return Provisioned(identity.load(out), steps.seconds)


def renew(
    out: Path | str,
    template: str,
    parameters: Mapping[str, str] | None,
    *,
    endpoint: Endpoint | None = None,
    keep_key: bool = False,
    key: Key | None = None,
    subject: str | None = None,
    client_id: str | None = None,
    own_client_id: str | None = None,
    terms: Terms = _TERMS,
    retries: Retries = _RETRIES,
    token_seconds: float = TOKEN_SECONDS,
    begin_anew: bool = False,
    new_thing: bool = False,
    connect: Connect | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    around: Surroundings = _AROUND,
    calls: Disk = _DISK,
) -> Provisioned:
    """Get the identity in the directory `out` a new certificate, by its present one.

    The present certificate's policy has to allow what a claim's does, for `template`. The new
    identity becomes the active one, in one step, when it has connected; until then, and whatever
    happens, the present one is. It is kept on disk until the next renewal; what becomes of its
    certificate on the server is for the server's owner to say.

    `endpoint` is that of the present identity when it is left out; a proxy has to be given. With
    `keep_key` the new certificate is for the present key, in its file or on its token, else for
    one as `key` says. Without either it is for a new key of the present one's kind, made here; a
    key on a token is kept, because only its owner can make another one there.

    `client_id` and `own_client_id` are that of the present identity by default: an application that
    is connected with it meanwhile is disconnected by the server. The others are as for
    :func:`provision`.

    When the template makes the device another thing than it is, it stops before that is taken over,
    with StorageRefused: call it again with `new_thing` to go on, or :func:`abandon` it. With
    `new_thing` the client id becomes the new thing's name, if it was the present one's. Names that
    are not known do not count.

    A renewal that was interrupted is gone on with when it is called again for the same. Raises
    NoIdentity when there is no identity, and ProvisioningError.
    """
    chosen = {"endpoint": endpoint, "key": key}
    arguments.check_types(
        out,
        **{name: value for name, value in chosen.items() if value is not None},
        template=template,
        subject=subject,
        terms=terms,
        retries=retries,
        token_seconds=token_seconds,
        keep_key=keep_key,
        begin_anew=begin_anew,
        new_thing=new_thing,
        connect=connect,
        progress=progress,
    )
    parameters = {} if parameters is None else parameters
    steps = Steps(progress, around.monotonic)
    with ExitStack() as cleanup:
        with steps("prepare", f"preparing `{out}`"):
            arguments.check(
                key or "P-256", client_id, own_client_id, terms, token_seconds, template
            )
            if keep_key and key is not None:
                raise BadRequest("either `keep_key` or `key`: the present key or another one")
            present = identity.load(out)  # NoIdentity before anything is made
            if present.token is not None:
                disk.check_secret(present.token.pin_file, "the PIN in")
            arguments.check_key(key, subject, connect, present.credentials)
            place = cleanup.enter_context(directory.open_directory(Path(out), calls))
            place.check([])
            present = identity.load(out)
            next_key = arguments.next_key(present, keep_key, key)
            found = place.journal()
            finished = found is not None and found.number == present.number
            if found is not None and finished:  # all but forgetting the journal was done
                place.remove_identities(but=(found.previous,))
                place.forget_journal()
            endpoint = endpoint or present.endpoint()
            plan = Plan(
                arguments.goal_of("renew", endpoint, template, parameters, terms),
                present.goal,
                endpoint,
                arguments.authorities_of(endpoint),
                present.credentials,
                present.client_id if client_id is None else client_id,
                own_client_id or arguments.next_client_id(present, new_thing),
                parameters,
                next_key,
                None if subject is None else keys.subject_of(subject),
                present,
                terms,
                retries,
                token_seconds,
                begin_anew,
                new_thing,
            )
            if found is not None and finished and found.goal == plan.goal:
                return Provisioned(present, steps.seconds, already=True)
            _open_token(present.token if next_key == "kept" else next_key)
            adapter = connect or _adapter(plan.key, present.credentials)
            journey = Journey(plan, place, adapter, steps, around, stop)
            journey.prepare()
        journey.run()
        return Provisioned(identity.load(out), steps.seconds)


def abandon(out: Path | str, *, calls: Disk = _DISK) -> bool:
    """Forget a journey in the directory `out` that was not finished; whether there was one.

    The active identity stays. What was registered stays so on the server, but nobody has its key
    any more. Raises StorageRefused, and BadRequest when `out` is no path.
    """
    arguments.check_types(out)
    path = Path(out)
    if not disk.exists(path):
        return False
    with directory.open_directory(path, calls) as place:
        place.check([])
        found = place.journal()
        if found is None:
            return False
        place.remove_identities(but=(found.previous,))
        place.forget_journal()
    return True


async def provision_async(*positional: Any, **options: Any) -> Provisioned:
    """As :func:`provision`, in a thread, for use from asyncio.

    `progress` is called on that thread. When it is cancelled it stops before the next step, which
    is waited for, and goes on when it is called again.
    """
    return await _in_thread(partial(provision, *positional), options)


async def renew_async(*positional: Any, **options: Any) -> Provisioned:
    """As :func:`renew`, in a thread; see :func:`provision_async`."""
    return await _in_thread(partial(renew, *positional), options)


async def _in_thread(call: Callable[..., Provisioned], options: dict[str, Any]) -> Provisioned:
    stop = options.setdefault("stop", threading.Event())
    running = asyncio.ensure_future(asyncio.to_thread(call, **options))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # it is known: it was stopped
        raise


def _same(present: Identity, goal: str) -> Identity:
    if present.goal == goal:
        return present
    whose = "" if present.thing_name is None else f"thing `{present.thing_name}`, "
    raise StorageRefused(
        f"`{present.directory}` already holds a complete identity ({whose}certificate "
        f"{present.certificate_id}) for another endpoint, template or parameters; it is never "
        "replaced: choose another directory, or move it away"
    )


def _open_token(key: object) -> None:
    """Have the module that signs in this process before anybody connects with it, and the key."""
    if isinstance(key, identity.KeyOnToken):
        keys.check_on_token(key)


def _adapter(key: object, by: AnyCredentials) -> Connect:
    if isinstance(key, identity.KeyOnToken) or not isinstance(by, Credentials):
        from fleetgate.device import awscrt_client

        return awscrt_client.connect
    return _paho


def _paho(endpoint: Endpoint, credentials: AnyCredentials, client_id: str) -> MqttClient:
    from fleetgate.device import paho_client

    return paho_client.connect(endpoint, credentials, client_id)

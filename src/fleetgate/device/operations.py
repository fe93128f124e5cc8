"""The three provisioning operations on a connected MQTT client, blocking and for asyncio.

Each function takes an :class:`~fleetgate.device.mqtt_client.MqttClient`, which it shares with
whoever else uses it, and returns the answer or raises a
:class:`~fleetgate.device.errors.ProvisioningError`. The ones that end in ``_async`` are the same
for asyncio. What happens in which order, and what each time-out means, is told in
:mod:`fleetgate.device.exchange`; a call ends at the latest after ``timeout`` and three times
``mqtt_timeout``.

One at a time. Answers are told apart by their topic alone, so there is never more than one
operation of a kind on a connection, whatever its template, format or thread: a second one raises
InProgress before anything is sent. It is over when its subscriptions are given back. After one that
was not answered, the same may be asked again on the connection, but nothing else on its topics: see
:mod:`fleetgate.device.reply_topics`.

Theory of operation. No thread is made. A :class:`_Run` holds the state machine; whoever has news (a
callback on the client's thread, or the caller whose wait has ended) tells it under a lock. The
actions that follow go into a queue, which one of the tellers at a time empties without the lock, so
that they reach the client in the order in which they were decided, although a client may call back
while it is being called. The caller waits for nothing but to be woken or for the next deadline.

Cancelling. A cancelled ``_async`` call takes its subscriptions back before it raises
CancelledError; cancelled again meanwhile, it does not wait for the acknowledgement. The server may
have done what it was asked for all the same. An exception in a blocked caller (KeyboardInterrupt)
takes the subscriptions back without waiting.

None of the functions may be called in a callback of the client, unless asynchronously: they would
wait for what cannot happen meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, TypeVar, cast

from fleetgate.device import protocol, reply_topics
from fleetgate.device.errors import BadRequest, ConnectionLost, ProvisioningError
from fleetgate.device.exchange import Action, Exchange, Publish, Subscribe, Terms
from fleetgate.device.mqtt_client import MqttClient
from fleetgate.device.protocol import Issued, Registered
from fleetgate.device.reply_topics import Kind

logger = logging.getLogger("fleetgate.device")

T = TypeVar("T")

_DEFAULT = Terms()


def create_keys_and_certificate(client: MqttClient, terms: Terms = _DEFAULT) -> Issued:
    """A new certificate for a key that the server makes and sends.

    Raises NotAuthorized, NotAcknowledged, NoAnswer, ConnectionLost, Rejected, BadAnswer and
    InProgress, with ``step`` ``subscribe`` or ``create``.
    """
    return _wait(client, "CreateKeysAndCertificate", _keys(terms))


async def create_keys_and_certificate_async(client: MqttClient, terms: Terms = _DEFAULT) -> Issued:
    """As :func:`create_keys_and_certificate`."""
    return await _await(client, "CreateKeysAndCertificate", _keys(terms))


def create_certificate_from_csr(client: MqttClient, csr: str, terms: Terms = _DEFAULT) -> Issued:
    """A new certificate for the key that signed `csr` (PEM).

    An answer with a certificate for another key is ignored as a late one to another request.
    Raises as :func:`create_keys_and_certificate`, and BadRequest when `csr` is empty; what is
    wrong with it otherwise is for the server to say (Rejected).
    """
    return _wait(client, "CreateCertificateFromCsr", _csr(csr, terms))


async def create_certificate_from_csr_async(
    client: MqttClient, csr: str, terms: Terms = _DEFAULT
) -> Issued:
    """As :func:`create_certificate_from_csr`."""
    return await _await(client, "CreateCertificateFromCsr", _csr(csr, terms))


def register_thing(
    client: MqttClient,
    template: str,
    ownership_token: str,
    parameters: Mapping[str, str] | None = None,
    terms: Terms = _DEFAULT,
    *,
    certificate_id: str | None = None,
) -> Registered:
    """Register the certificate that `ownership_token` came with, by a provisioning template.

    `parameters` are what the template asks for; None leaves the member out of the request, and so
    does None for `certificate_id`, which nobody needs. Raises as
    :func:`create_keys_and_certificate`, with ``step`` ``register`` instead of ``create``, and
    BadRequest when an argument cannot be what it should be.
    """
    exchange = _register(template, ownership_token, parameters, certificate_id, terms)
    return _wait(client, "RegisterThing", exchange)


async def register_thing_async(
    client: MqttClient,
    template: str,
    ownership_token: str,
    parameters: Mapping[str, str] | None = None,
    terms: Terms = _DEFAULT,
    *,
    certificate_id: str | None = None,
) -> Registered:
    """As :func:`register_thing`."""
    exchange = _register(template, ownership_token, parameters, certificate_id, terms)
    return await _await(client, "RegisterThing", exchange)


# --- what is asked for ---


def _keys(terms: Terms) -> Exchange[Issued]:
    operation = protocol.create_keys_and_certificate(terms.payload_format)
    interpret = partial(protocol.issued, operation, with_key=True)
    return Exchange(operation, {}, interpret, step="create", terms=terms)


def _csr(csr: str, terms: Terms) -> Exchange[Issued]:
    _check_text("the certificate signing request", csr)
    operation = protocol.create_certificate_from_csr(terms.payload_format)
    return Exchange(
        operation,
        protocol.csr_request(csr),
        partial(protocol.issued, operation, with_key=False),
        step="create",
        terms=terms,
        belongs=partial(_for_same_key, csr),
    )


def _register(
    template: str,
    ownership_token: str,
    parameters: Mapping[str, str] | None,
    certificate_id: str | None,
    terms: Terms,
) -> Exchange[Registered]:
    _check_text("the name of the template", template)
    _check_text("the ownership token", ownership_token)
    if certificate_id is not None:
        _check_text("the certificate id", certificate_id)
    _check_parameters(parameters or {})
    operation = protocol.register_thing(template, terms.payload_format)
    request = protocol.register_request(ownership_token, parameters, certificate_id)
    interpret = partial(protocol.registered, operation)
    return Exchange(operation, request, interpret, step="register", terms=terms)


def _check_text(what: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{what} is no text with characters in it")


def _check_parameters(parameters: Mapping[Any, Any]) -> None:
    for name, value in parameters.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise BadRequest(f"the parameter `{name!s:.80}` is not a text: {type(value).__name__}")


def _for_same_key(csr: str, issued: Issued) -> bool:
    """Whether the certificate is for the key of the CSR; True when one of them cannot be read."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        key = x509.load_pem_x509_csr(csr.encode()).public_key()
        return x509.load_pem_x509_certificate(issued.certificate_pem.encode()).public_key() == key
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return True  # the server, or who uses the certificate, will know better what is wrong


# --- how it is run ---


def _wait(client: MqttClient, kind: Kind, exchange: Exchange[T]) -> T:
    woken = threading.Event()
    run = _Run(client, kind, exchange, woken.set)
    try:
        run.begin()
        while (left := run.seconds_left()) is not None:
            if left > 0:
                woken.wait(left)
                woken.clear()
            else:
                run.tell(exchange.tick)
    except BaseException:
        run.tell(exchange.cancelled)
        raise
    return run.outcome()


async def _await(client: MqttClient, kind: Kind, exchange: Exchange[T]) -> T:
    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake() -> None:
        if _running_loop() is loop:
            woken.set()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(woken.set)

    async def until_over() -> None:
        while (left := run.seconds_left()) is not None:
            if left > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await woken.wait()
                woken.clear()
            else:
                run.tell(exchange.tick)

    run = _Run(client, kind, exchange, wake)
    try:
        run.begin()
        await until_over()
    except asyncio.CancelledError:
        run.tell(exchange.cancelled)
        await until_over()
        raise
    except BaseException:
        run.tell(exchange.cancelled)
        raise
    return run.outcome()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The one that runs on this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Run(Generic[T]):
    """An exchange on a client; see the module. `wake` is called, on any thread, after news."""

    def __init__(
        self, client: MqttClient, kind: Kind, exchange: Exchange[T], wake: Callable[[], None]
    ) -> None:
        """Raises InProgress; see :mod:`fleetgate.device.reply_topics`."""
        self._client = client
        self._kind = kind
        self._exchange = exchange
        self._wake = wake
        self._lock = threading.Lock()
        self._actions: deque[Action] = deque()
        self._acting = False
        self._forget_loss: Callable[[], Any] | None = None
        self._begun = time.monotonic()
        reply_topics.occupy(client, kind, exchange.operation, exchange.payload)

    def begin(self) -> None:
        """Send the first packets."""
        logger.debug("event=operation-begun operation=%s", self._kind)
        self._forget_loss = self._client.on_lost(self._lost)
        self.tell(self._exchange.begin)
        with self._lock:
            over = self._exchange.over
        if over:
            self._forget_loss()

    def seconds_left(self) -> float | None:
        """Until ``tick`` is due; None when it is over."""
        with self._lock:
            deadline = self._exchange.deadline
        return None if deadline is None else deadline - time.monotonic()

    def outcome(self) -> T:
        """The result, when it is over. Raises the error."""
        if self._exchange.error is not None:
            raise self._exchange.error
        return cast("T", self._exchange.result)

    def tell(self, event: Callable[[float], list[Action]]) -> None:
        """Let the exchange know, and do what is due then. Never waits, never raises."""
        with self._lock:
            ended, over = self._exchange.ended, self._exchange.over
            self._actions.extend(event(time.monotonic()))
            has_ended = self._exchange.ended and not ended
            is_over = self._exchange.over and not over
            first = not self._acting
            self._acting = True
        if has_ended:
            self._log_ending()
        if is_over:
            self._release()
        if first:
            self._act()
        self._wake()

    def _act(self) -> None:
        try:
            while (action := self._next_action()) is not None:
                self._carry_out(action)
        except BaseException:  # KeyboardInterrupt: the caller will give the subscriptions back
            with self._lock:
                self._acting = False
            raise

    def _next_action(self) -> Action | None:
        with self._lock:
            if self._actions:
                return self._actions.popleft()
            self._acting = False
            return None

    def _carry_out(self, action: Action) -> None:
        try:
            if isinstance(action, Subscribe):
                future = self._client.subscribe(action.topic_filter, 1, self._arrived)
            elif isinstance(action, Publish):
                future = self._client.publish(action.topic, action.payload, action.qos)
            else:
                future = self._client.unsubscribe(action.topic_filter)
        except Exception as error:
            future = Future()
            future.set_exception(error)
        future.add_done_callback(partial(self._done, action))

    # --- callbacks ---

    def _done(self, action: Action, future: Future[None]) -> None:
        exchange = self._exchange
        error = _error_of(future, action)
        if not isinstance(action, Subscribe | Publish):
            if error is not None:
                logger.debug(
                    "event=unsubscribe-failed topic=%s cause=%r", action.topic_filter, error.message
                )
            self.tell(partial(exchange.unsubscribed, action.topic_filter))
        elif error is not None:
            self.tell(partial(exchange.failed, error))
        elif isinstance(action, Subscribe):
            self.tell(partial(exchange.granted, action.topic_filter))
        else:
            self.tell(exchange.acknowledged)

    def _arrived(self, topic: str, payload: bytes) -> None:
        ignored = self._exchange.ignored
        self.tell(lambda now: self._exchange.arrived(topic, payload, now))
        if self._exchange.ignored > ignored:
            logger.info(
                "event=answer-ignored operation=%s topic=%s cause='late, twice or for another'",
                self._kind,
                topic,
            )

    def _lost(self, error: ConnectionLost) -> None:
        self.tell(partial(self._exchange.lost, error))

    # --- the end ---

    def _release(self) -> None:
        exchange = self._exchange
        if exchange.unanswered:
            reply_topics.left_unanswered(self._client, exchange.operation, exchange.payload)
        reply_topics.release(self._client, self._kind)
        if self._forget_loss is not None:
            self._forget_loss()

    def _log_ending(self) -> None:
        error = self._exchange.error
        seconds = time.monotonic() - self._begun
        if error is None:
            logger.info("event=operation-done operation=%s seconds=%.3f", self._kind, seconds)
        else:
            logger.warning(
                "event=operation-failed operation=%s step=%s seconds=%.3f cause=%r",
                self._kind,
                error.step,
                seconds,
                error.message,
            )


def _error_of(future: Future[None], action: Action) -> ProvisioningError | None:
    """Why the action failed; another exception than agreed upon is made one of ours."""
    error = future.exception()
    if error is None or isinstance(error, ProvisioningError):
        return error
    wrapped = ProvisioningError(
        f"the MQTT client failed with {type(error).__name__}: {error}",
        topic=action.topic if isinstance(action, Publish) else action.topic_filter,
    )
    wrapped.__cause__ = error
    return wrapped

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

Cancelling. A cancelled ``_async`` call takes its subscriptions back before it raises
CancelledError; cancelled again meanwhile, it does not wait for the acknowledgement. The server may
have done what it was asked for all the same. An exception in a blocked caller (KeyboardInterrupt)
takes the subscriptions back without waiting.

None of the functions may be called in a callback of the client, unless asynchronously: they would
wait for what cannot happen meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from fleetgate.device import checks, conversation, protocol
from fleetgate.device.errors import BadRequest, ProvisioningError, Step
from fleetgate.device.exchange import Exchange, Terms
from fleetgate.device.mqtt_client import MqttClient
from fleetgate.device.protocol import Issued, Registered

_DEFAULT = Terms()


def create_keys_and_certificate(client: MqttClient, terms: Terms = _DEFAULT) -> Issued:
    """A new certificate for a key that the server makes and sends.

    Raises NotAuthorized, NotAcknowledged, NoAnswer, ConnectionLost, Rejected, BadAnswer and
    InProgress, with ``step`` ``subscribe`` or ``create``; and BadRequest, before anything is sent,
    when an argument cannot be what it should be.
    """
    exchange = _keys(client, terms)
    return conversation.wait(client, "CreateKeysAndCertificate", exchange)


async def create_keys_and_certificate_async(client: MqttClient, terms: Terms = _DEFAULT) -> Issued:
    """As :func:`create_keys_and_certificate`."""
    exchange = _keys(client, terms)
    return await conversation.wait_async(client, "CreateKeysAndCertificate", exchange)


def create_certificate_from_csr(client: MqttClient, csr: str, terms: Terms = _DEFAULT) -> Issued:
    """A new certificate for the key that signed `csr` (PEM).

    An answer with a certificate for another key is ignored as a late one to another request.
    Raises as :func:`create_keys_and_certificate`; what is wrong with `csr` is for the server to
    say (Rejected), unless it is empty (BadRequest).
    """
    exchange = _csr(client, csr, terms)
    return conversation.wait(client, "CreateCertificateFromCsr", exchange)


async def create_certificate_from_csr_async(
    client: MqttClient, csr: str, terms: Terms = _DEFAULT
) -> Issued:
    """As :func:`create_certificate_from_csr`."""
    exchange = _csr(client, csr, terms)
    return await conversation.wait_async(client, "CreateCertificateFromCsr", exchange)


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
    :func:`create_keys_and_certificate`, with ``step`` ``register`` instead of ``create``.
    """
    exchange = _register(client, template, ownership_token, parameters, certificate_id, terms)
    return conversation.wait(client, "RegisterThing", exchange)


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
    exchange = _register(client, template, ownership_token, parameters, certificate_id, terms)
    return await conversation.wait_async(client, "RegisterThing", exchange)


# --- what is asked for ---


@contextlib.contextmanager
def _at(step: Step) -> Iterator[None]:
    """What is raised here happened in this step."""
    try:
        yield
    except ProvisioningError as error:
        error.at(step)
        raise


@_at("create")
def _keys(client: object, terms: Terms) -> Exchange[Issued]:
    _check_ways(client, terms)
    operation = protocol.create_keys_and_certificate(terms.payload_format)
    interpret = partial(protocol.issued, operation, with_key=True)
    return Exchange(operation, {}, interpret, step="create", terms=terms)


@_at("create")
def _csr(client: object, csr: str, terms: Terms) -> Exchange[Issued]:
    _check_ways(client, terms)
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


@_at("register")
def _register(
    client: object,
    template: str,
    ownership_token: str,
    parameters: Mapping[str, str] | None,
    certificate_id: str | None,
    terms: Terms,
) -> Exchange[Registered]:
    _check_ways(client, terms)
    _check_text("the name of the template", template)
    _check_text("the ownership token", ownership_token)
    if certificate_id is not None:
        _check_text("the certificate id", certificate_id)
    checks.check("parameters", parameters, Mapping, type(None), secret=True)
    _check_parameters(parameters or {})
    operation = protocol.register_thing(template, terms.payload_format)
    request = protocol.register_request(ownership_token, parameters, certificate_id)
    interpret = partial(protocol.registered, operation)
    return Exchange(operation, request, interpret, step="register", terms=terms)


def _check_ways(client: object, terms: object) -> None:
    checks.check("terms", terms, Terms)
    if not callable(getattr(client, "subscribe", None)):
        raise BadRequest(f"`client` is no MQTT client, but {type(client).__name__}")


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

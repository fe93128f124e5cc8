"""Fleet provisioning by claim: a device comes with a certificate that all its kind share, and
leaves with one of its own.

The steps, in order: ``prepare`` (look at the arguments, their files and the directory),
``connect`` (with the claim certificate), ``subscribe`` (to all answers, before anything is asked),
``create`` (the key and the certificate), ``store`` (both, on disk before the device is
registered), ``register``, ``reconnect`` (with the new certificate, which proves that it works) and
``finish`` (the configuration, which marks the identity as complete).

When a step fails nothing is undone on the server: creating is not idempotent, and a certificate
that was not registered is deleted there by itself. One that was registered stays, with its thing:
when only ``reconnect`` or ``finish`` failed, `provision` called again for the same skips what is
done, connects with the key and certificate on disk and finishes; it makes another certificate only
after the directory was removed. What is on disk is described in :mod:`fleetgate.device.identity`:
after any failure, `provision` may simply be called again.

Source: AWS IoT Core Developer Guide, "Provisioning devices that don't have device certificates
using fleet provisioning" (provisioning by claim).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleetgate.device import credentials, identity, protocol, registration, tls
from fleetgate.device.connection import DeviceConnection, connect
from fleetgate.device.errors import (
    BadAnswer,
    BadRequest,
    ConnectionFailed,
    ProvisioningError,
    Step,
)
from fleetgate.device.identity import IdentityDirectory
from fleetgate.device.protocol import Issued, Operation, PayloadFormat
from fleetgate.device.registration import Goal, Registration
from fleetgate.mqtt.packets import Version
from fleetgate.names import certificate_id

Progress: TypeAlias = Callable[[Step, str], None]
"""Called when a step begins, with its name and a sentence about it."""

_FIRST_PAUSE = 0.25  # seconds before the second attempt to use the new certificate; then doubled


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A new identity, proven by a connection.

    ``thing_name`` is None when the template makes no thing. ``client_id`` is the one it connected
    with. ``files`` are what was written, by name; ``seconds`` how long each step took.
    """

    thing_name: str | None
    certificate_id: str
    client_id: str
    device_configuration: dict[str, str]
    files: dict[str, Path]
    seconds: dict[Step, float]


def provision(
    endpoint: str,
    port: int,
    ca: Path | str,
    claim_cert: Path | str,
    claim_key: Path | str,
    template: str,
    parameters: Mapping[str, str],
    out: Path | str,
    *,
    keys: bool = False,
    payload_format: PayloadFormat = "json",
    mqtt_version: Version = 5,
    client_id: str | None = None,
    alpn: str | None = None,
    timeout: float = 10.0,
    progress: Progress | None = None,
) -> Provisioned:
    """Get this device its own identity and put it into the directory `out`.

    `endpoint` and `port` are of the MQTT server; `ca`, `claim_cert` and `claim_key` are PEM
    files. `template` is the name of the provisioning template and `parameters` what it asks for.

    The key (EC P-256) is made here and never leaves `out`; with `keys` the server makes it (RSA
    2048) and sends it. `client_id` is the one for the claim connection, by default a random one.
    The new identity connects with the name of its thing as client id, or with the former when
    there is none. `timeout` (seconds) bounds each single wait; the new identity's connection is
    tried again within it, because a server may need a moment to know the certificate everywhere.

    `out` is made (mode 0700) when it is missing, and has ``private.key`` (0600),
    ``certificate.pem``, ``ca.pem`` and ``config.json`` in the end. A complete identity in it is
    never replaced. One that was left half-finished is replaced when it was not registered, and
    finished when it was; for another endpoint, template or parameters that is refused.

    Raises ProvisioningError: its class says what went wrong, ``step`` where.
    """
    steps = _Steps(progress)
    claim_client = client_id or f"fleetgate-{secrets.token_hex(8)}"
    goal = Goal(endpoint, port, template, parameters)
    dial = partial(connect, endpoint, port, ca=ca, version=mqtt_version, alpn=alpn, timeout=timeout)
    with ExitStack() as cleanup:
        with steps("prepare", f"preparing `{out}`"):
            create = _create_operation(keys, payload_format)
            register = protocol.register_thing(template, payload_format)
            _check_parameters(parameters)
            authorities = _read_authorities(ca)
            tls.check(ca, claim_cert, claim_key)
            directory = cleanup.enter_context(identity.open_directory(Path(out)))
            directory.check([Path(ca), Path(claim_cert), Path(claim_key)])
            device = registration.recall(directory, goal)
        if device is None:
            claim = partial(dial, certificate=claim_cert, key=claim_key, client_id=claim_client)
            device = _register(
                steps, claim, claim_client, create, register, directory, goal, keys, timeout
            )
            which = "the new certificate"
        else:
            which = "the certificate that is registered already"
        with steps("reconnect", f"connecting as `{device.client_id}` with {which}"):
            own = partial(
                dial,
                certificate=directory.path / identity.CERTIFICATE,
                key=directory.path / identity.PRIVATE_KEY,
                client_id=device.client_id,
            )
            _prove(own, device, directory, timeout)
        with steps("finish", f"writing `{identity.CONFIGURATION}`"):
            files = _finish(directory, goal, device, authorities)
    return Provisioned(
        device.thing_name,
        device.certificate_id,
        device.client_id,
        device.device_configuration,
        files,
        steps.seconds,
    )


def _register(
    steps: _Steps,
    dial: Callable[[], DeviceConnection],
    client_id: str,
    create: Operation,
    register: Operation,
    directory: IdentityDirectory,
    goal: Goal,
    keys: bool,
    timeout: float,
) -> Registration:
    """The steps with the claim, from ``connect`` to ``register``."""
    with ExitStack() as cleanup:
        with steps("connect", f"connecting to `{goal.endpoint}:{goal.port}` as `{client_id}`"):
            claim = cleanup.enter_context(dial())
        with steps("subscribe", "subscribing to the answers"):
            topics = [topic for each in (create, register) for topic in _answers(each)]
            claim.subscribe(topics, timeout=timeout)
        with steps("create", f"asking for a certificate on `{create.request}`"):
            own_key = None if keys else ec.generate_private_key(ec.SECP256R1())
            request = protocol.csr_request(_csr(own_key, client_id)) if own_key else {}
            values = _ask(claim, create, request, timeout)
            issued = protocol.issued(create, values, with_key=keys)
            key_pem = _check_issued(create, issued, own_key)
        with steps("store", f"storing key and certificate {issued.certificate_id}"):
            registration.begin(directory, goal, issued)
            directory.write(identity.PRIVATE_KEY, key_pem)
            directory.write(identity.CERTIFICATE, issued.certificate_pem)
        with steps("register", f"registering on `{register.request}`"):
            request = protocol.register_request(issued.ownership_token, goal.parameters)
            answer = protocol.registered(register, _ask(claim, register, request, timeout))
            device = Registration(
                answer.thing_name,
                issued.certificate_id,
                answer.thing_name or client_id,
                answer.device_configuration,
            )
            registration.remember(directory, device)
    return device


def _finish(
    directory: IdentityDirectory, goal: Goal, device: Registration, authorities: str
) -> dict[str, Path]:
    """Complete the identity; its files by name."""
    directory.write(identity.CA, authorities)
    directory.write_json(
        identity.CONFIGURATION,
        {
            "thingName": device.thing_name,
            "certificateId": device.certificate_id,
            "clientId": device.client_id,
            "endpoint": goal.endpoint,
            "port": goal.port,
            "template": goal.template,
            "deviceConfiguration": device.device_configuration,
        },
    )
    directory.finish()
    names = (identity.PRIVATE_KEY, identity.CERTIFICATE, identity.CA, identity.CONFIGURATION)
    return {name: directory.path / name for name in names}


class _Steps:
    """Times the steps, tells of them, and puts their names on errors."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[Step, float] = {}
        self._progress = progress

    @contextmanager
    def __call__(self, step: Step, sentence: str) -> Iterator[None]:
        if self._progress is not None:
            self._progress(step, sentence)
        begin = time.monotonic()
        try:
            yield
        except ProvisioningError as error:
            error.at(step)
            raise
        finally:
            self.seconds[step] = time.monotonic() - begin


def _create_operation(keys: bool, payload_format: PayloadFormat) -> Operation:
    if keys:
        return protocol.create_keys_and_certificate(payload_format)
    return protocol.create_certificate_from_csr(payload_format)


def _check_parameters(parameters: Mapping[Any, Any]) -> None:
    for name, value in parameters.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise BadRequest(f"the parameter `{name}` is not a text: `{value!r:.80}`")


def _read_authorities(ca: Path | str) -> str:
    content = credentials.read(ca, "the authorities in")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConnectionFailed(
            f"the authorities in `{ca}` cannot be used: a PEM file is wanted, and this is no text"
        ) from error


def _answers(operation: Operation) -> tuple[str, str]:
    return operation.accepted, operation.rejected


def _ask(
    claim: DeviceConnection, operation: Operation, request: Mapping[str, Any], timeout: float
) -> dict[str, Any]:
    payload = protocol.encode(operation.payload_format, request)
    claim.publish(operation.request, payload, timeout=timeout)
    answer = claim.wait(_answers(operation), timeout=timeout)
    return protocol.read(operation, answer.topic, answer.payload)


def _csr(key: ec.EllipticCurvePrivateKey, client_id: str) -> str:
    # A common name has at most 64 bytes (RFC 5280 appendix A.1). It means nothing to the server.
    name = client_id.encode("utf-8")[:64].decode("utf-8", "ignore")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _check_issued(
    create: Operation, issued: Issued, own_key: ec.EllipticCurvePrivateKey | None
) -> str:
    """The private key as PEM. Raises BadAnswer unless key, certificate and id fit together."""
    try:
        certificate = x509.load_pem_x509_certificate(issued.certificate_pem.encode("utf-8"))
        if own_key is None:
            text = issued.private_key or ""
            key = serialization.load_pem_private_key(text.encode("utf-8"), None)
            public_key = key.public_key()
        else:
            text = own_key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode("ascii")
            public_key = own_key.public_key()
        same_key = certificate.public_key() == public_key
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise BadAnswer(
            f"the certificate or key in the answer cannot be read: {error}", topic=create.accepted
        ) from error
    if not same_key:
        raise BadAnswer("the certificate in the answer is for another key", topic=create.accepted)
    of_certificate = certificate_id(certificate.public_bytes(serialization.Encoding.DER))
    if issued.certificate_id != of_certificate:
        raise BadAnswer(
            f"`certificateId` in the answer is `{issued.certificate_id[:80]}`, but that of the "
            f"certificate is {of_certificate}",
            topic=create.accepted,
        )
    return text


def _prove(
    dial: Callable[[], DeviceConnection],
    device: Registration,
    directory: IdentityDirectory,
    timeout: float,
) -> None:
    """Connect with the new identity and exchange a packet, trying again until `timeout`."""
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while True:
        try:
            with dial() as connection:
                connection.ping(timeout=timeout)
            return
        except ProvisioningError as error:
            if time.monotonic() + pause >= deadline:
                raise ConnectionFailed(
                    f"the device is registered ({device}) and stays so, but it does not connect. "
                    "Run this again to try its certificate again, or remove the directory "
                    f"`{directory.path}` to start again with another one. What happened: "
                    f"{error.message}",
                    waited=timeout,
                ) from error
        time.sleep(pause)
        pause *= 2

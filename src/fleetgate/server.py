"""The wiring: everything a server is made of, on one screen."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import importlib.util
import ipaddress
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.resources import files
from pathlib import Path

import msgspec

from fleetgate import data_directory
from fleetgate.buckets import Buckets
from fleetgate.data_directory import Credentials, DataDirectoryError, Endpoints
from fleetgate.errors import Error, InvalidFaultScript, ServiceUnavailableException
from fleetgate.functions import confinement
from fleetgate.functions.runner import Functions
from fleetgate.gateway import services as gateway_services
from fleetgate.gateway.authentication import Authentication
from fleetgate.gateway.faults import Faults
from fleetgate.gateway.http import HttpLimits, HttpServer, http_server
from fleetgate.gateway.mqtt import Gateway
from fleetgate.gateway.reserved import Reserved
from fleetgate.gateway.rest import Rest
from fleetgate.gateway.server_names import ServerNames
from fleetgate.gateway.tls_context import server_context
from fleetgate.names import Account
from fleetgate.operations import admission, built_in_functions, uploaded_functions
from fleetgate.operations.bulk import Bulk
from fleetgate.operations.bulk_runner import Runner
from fleetgate.operations.call import Services
from fleetgate.operations.certificate_providers import load_certificate_provider
from fleetgate.operations.credentials import Keyring
from fleetgate.operations.event_configurations import load_enabled_events
from fleetgate.operations.just_in_time import JustInTime
from fleetgate.operations.rsa_keys import RsaKeys
from fleetgate.operations.sweep import sweep
from fleetgate.pki import issue, token, trust
from fleetgate.reports import Reports
from fleetgate.settings import Address, SettingError, Settings, config_file
from fleetgate.store.engine import Store, Tx, add_setting, find_setting
from fleetgate.store.opening import open_store
from fleetgate.wire.model import Service

log = logging.getLogger("fleetgate.server")

GRACE = 5.0
"""Seconds that answers in flight are given when the server stops."""

LAST_WORDS = 1.0
"""Seconds of these in which who still waits is told that there will be no answer."""

SWEEP_INTERVAL = 30.0
"""Seconds between two looks for certificates whose ownership token ended unused."""


MODELS = {
    "iot": "2015-05-28",
    "iam": "2010-05-08",
    "lambda": "2015-03-31",
    "sts": "2011-06-15",
}
"""The services that are offered over HTTP, with the versions of their APIs."""


def load_model(name: str) -> Service:
    """AWS's own description of a service of MODELS, from the file botocore ships.

    The file is read without importing botocore, which would cost a third of the time to start.
    """
    found = importlib.util.find_spec("botocore")
    if found is None or found.origin is None:
        raise Error("botocore is not installed: it ships the description of the API")
    path = Path(found.origin).parent / "data" / name / MODELS[name] / "service-2.json.gz"
    return Service.from_json(msgspec.json.decode(gzip.decompress(path.read_bytes())), name)


def load_provisioning_model() -> Service:
    """Our description of the MQTT provisioning API."""
    text = files("fleetgate").joinpath("data/provisioning.json").read_bytes()
    return Service.from_json(msgspec.json.decode(text), "provisioning")


async def serve(settings: Settings, ready: Callable[[Endpoints, Path], None]) -> None:
    """Runs a server until SIGTERM or SIGINT; `ready` is called when it answers.

    Raises Error when it cannot start: a port is taken, the data directory is in use or belongs
    to another account, a name is no host name. Raises whatever ends one of its parts unasked.
    """
    _guard_process()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    path = data_directory.open_directory(settings.data)
    async with contextlib.AsyncExitStack() as stack:
        store = open_store(
            path,
            settings.database,
            settings.database_connections,
            settings.database_timeout_seconds,
        )
        stack.callback(store.close)
        data_directory.remove_endpoints(path)
        await store.write(_claim_for_account, path, settings)
        services = _services(settings, path, store)
        await load_enabled_events(services)
        services.built_in = built_in_functions.built_in_functions(settings.functions)
        await load_certificate_provider(services)
        stack.push_async_callback(services.rsa_keys.close)
        stack.push_async_callback(services.functions.close)
        await services.functions.start()
        await uploaded_functions.tell_hidden(services)
        stack.push_async_callback(services.background.close)
        buckets = Buckets(settings.buckets, settings.s3_endpoint_url, settings.region)
        buckets.check()
        runner = Runner(services)
        services.bulk = Bulk(buckets, Reports(path / "reports"), runner.wake)
        provisioning_door = Reserved(services, load_provisioning_model())
        faults = _faults(settings, provisioning_door.model)
        just_in_time = JustInTime(services)
        stack.push_async_callback(just_in_time.provisioning.close, GRACE)
        gateway = _gateway(path, services, provisioning_door, just_in_time, faults)
        services.certificate_changed = gateway.disconnect_certificate
        services.publish = gateway.publish
        stack.push_async_callback(gateway.close, GRACE)
        mqtt_sockets = _bind("MQTT", settings.mqtt)
        mqtt_port = mqtt_sockets[0].getsockname()[1]
        http_sockets = _bind("HTTP", settings.http)
        for listener in http_sockets:
            stack.callback(listener.close)
        _check_auth(settings, [*http_sockets, *mqtt_sockets])
        if faults is not None:
            _check_faults(settings, [*http_sockets, *mqtt_sockets])
        for listener in mqtt_sockets:
            await gateway.listen_on(listener)
        credentials = data_directory.load_credentials(path, _given_credentials(settings))
        keys = Keyring(services, credentials.access_key_id, credentials.secret_access_key)
        rest = Rest(
            services,
            {name: load_model(name) for name in MODELS},
            Authentication(keys, settings.auth == "sigv4", services.host_names),
            partial(_reset, services, gateway) if settings.allow_reset else None,
            faults,
        )
        http = http_server(
            rest,
            grace=GRACE,
            limits=HttpLimits(max_connections=_connections()[1]),
            proxies=settings.trusted_proxies,
        )
        serving = asyncio.create_task(http.serve(sockets=http_sockets), name="http")
        stack.push_async_callback(_stop_http, rest, http, serving)
        sweeping = asyncio.create_task(_sweep_for_ever(services), name="sweep")
        stack.callback(sweeping.cancel)
        starting = asyncio.create_task(http.wait_started(), name="http-start")
        stack.callback(starting.cancel)
        await asyncio.wait([starting, serving], return_when=asyncio.FIRST_COMPLETED)

        endpoints = Endpoints(
            http_url=_url(settings.http[0], http_sockets[0].getsockname()[1]),
            mqtt_host=services.host_names[0],
            mqtt_port=mqtt_port,
            ca_file=str(path / "ca.pem"),
            region=settings.region,
        )
        data_directory.write_endpoints(path, endpoints)
        stack.callback(data_directory.remove_endpoints, path)
        services.rsa_keys.start()
        working = asyncio.create_task(runner.run(), name="bulk")
        stack.push_async_callback(_cancel, working)
        just_in_time.provisioning.start()
        preparing = asyncio.create_task(built_in_functions.prepare(services), name="built-in")
        stack.push_async_callback(_cancel, preparing)
        ready(endpoints, path)
        stopping = asyncio.create_task(stop.wait(), name="stop")
        parts = [serving, sweeping, working]
        await asyncio.wait([stopping, *parts], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            ended = next(part for part in parts if part.done())
            log.critical("event=part-ended part=%s", ended.get_name())
            ended.result()
            raise Error(f"the {ended.get_name()} part of the server ended unasked")
        log.info("event=stopping")


def _services(settings: Settings, path: Path, store: Store) -> Services:
    random_bytes = os.urandom
    authority = data_directory.load_authority(
        path,
        issuer=settings.issuer or trust.ISSUER,
        now=datetime.now(UTC),
        serial=lambda: issue.MAX_SERIAL & int.from_bytes(random_bytes(20), "big") | 1,
    )
    lifetime = timedelta(seconds=settings.provisioning_claim_seconds)
    account = Account(settings.account, settings.region)
    return Services(
        account=account,
        store=store,
        authority=authority,
        device_profile=issue.DEVICE,
        claim_profile=replace(issue.CLAIM, lifetime=lifetime),
        token_key=data_directory.load_token_key(path, token.KEY_BYTES),
        rsa_keys=RsaKeys(stock=settings.rsa_key_stock),
        host_names=_host_names(settings),
        now=time.time,
        random_bytes=random_bytes,
        limits=settings.limits,
        ownership_token_seconds=settings.ownership_token_seconds,
        functions=Functions(
            settings.functions,
            path / "functions",
            arn=account.lambda_arn,
            hidden=[path, config_file(os.environ, Path())],
        ),
    )


def _host_names(settings: Settings) -> tuple[str, ...]:
    """The names of the server: those given first, then those it has on this machine."""
    bound = settings.mqtt[0]
    if bound in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        bound = socket.gethostname()
    names = (*settings.host_names, "localhost", "127.0.0.1", "::1", bound)
    return tuple(dict.fromkeys(names))


def _gateway(
    path: Path,
    services: Services,
    door: Reserved,
    just_in_time: JustInTime,
    faults: Faults | None,
) -> Gateway:
    certificate_file, key_file = data_directory.write_server_certificate(
        path,
        services.authority,
        services.host_names,
        now=datetime.now(UTC),
        serial=services.new_serial(),
    )
    return Gateway(
        gateway_services.Services(
            account=services.account,
            admit=just_in_time.admit,
            readmit=partial(admission.admit, services),
            policies=partial(admission.connection_policies, services),
            policy_epoch=lambda: services.policy_epoch,
            is_request=door.is_request,
            provision=door.provision,
            faults=faults,
        ),
        server_context(certificate_file, key_file),
        max_connections=_connections()[0],
        names=ServerNames(services.host_names),
    )


def _claim_for_account(tx: Tx, path: Path, settings: Settings) -> None:
    """A registry belongs to one account and region: their names are in every ARN."""
    for name, value in (("account", settings.account), ("region", settings.region)):
        found = find_setting(tx, name)
        if found is None:
            add_setting(tx, name, value)
        elif found != value:
            kind = "registry in the database of" if settings.database else "data directory"
            raise DataDirectoryError(f"the {kind} `{path}` belongs to {name} {found}, not {value}")


def _given_credentials(settings: Settings) -> Credentials | None:
    if settings.access_key_id is None or settings.secret_access_key is None:
        return None
    return Credentials(settings.access_key_id, settings.secret_access_key)


async def _reset(services: Services, gateway: Gateway) -> None:
    await services.store.reset()
    services.enabled_events = frozenset()
    services.certificate_provider = None
    services.policy_epoch += 1
    services.iam_epoch += 1
    services.bulk.reset()
    await services.functions.reset()
    gateway.disconnect_all()


async def _sweep_for_ever(services: Services) -> None:
    told = ""
    while True:
        more = False
        try:
            swept = await services.store.write(sweep, services.account, services.now())
        except Exception as error:
            # the disk is full, a right in the database was revoked: later, then; the rest goes on
            cause = _cause(error)
            if cause != told:
                unexpected = None if isinstance(error, ServiceUnavailableException) else error
                log.error("event=not-swept cause=%s", cause, exc_info=unexpected)
            told = cause
        else:
            told = ""
            more = swept.more
            if swept.certificates:
                log.info(
                    "event=swept certificates=%d reason=token-expired", len(swept.certificates)
                )
        if not more:
            await asyncio.sleep(min(SWEEP_INTERVAL, services.ownership_token_seconds))


def _cause(error: Exception) -> str:
    """In one line. Of a database's error the message alone: libpq tells the place in the statement
    in this form or that one, and the same cause would be told again and again."""
    diagnosis = getattr(error, "diag", None)
    said = getattr(diagnosis, "message_primary", None) or error
    return " ".join(f"{type(error).__name__}: {said}".split())


async def _cancel(part: asyncio.Task[None]) -> None:
    part.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await part


async def _stop_http(rest: Rest, http: HttpServer, serving: asyncio.Task[None]) -> None:
    rest.stop(asyncio.get_running_loop().time() + GRACE - LAST_WORDS)
    http.should_exit = True
    await serving


def _bind(door: str, address: Address) -> list[socket.socket]:
    """Sockets on every address a host name stands for, all on the same port.

    ``::`` takes IPv4 connections too. Raises Error when the port cannot be had.
    """
    host, port = address
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in found:
            listener = socket.socket(family, kind, protocol)
            bound.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, len(found) > 1)
            listener.bind((where[0], port or bound[0].getsockname()[1], *where[2:]))
    except OSError as error:
        for listener in bound:
            listener.close()
        raise Error(f"cannot listen for {door} on {host}:{port}: {error.strerror}") from None
    return bound


def _check_auth(settings: Settings, bound: list[socket.socket]) -> None:
    """Without authentication everybody who reaches the HTTP API is the root user.

    Raises SettingError when a door is open to other machines: such a server is to throw away.
    """
    if settings.auth != "off":
        return
    addresses = [listener.getsockname()[0] for listener in bound]
    for address in addresses:
        if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            raise SettingError(
                f"--auth off: the server may listen on loopback addresses only, not on {address}"
            )
    if settings.trusted_proxies:
        raise SettingError(
            "--auth off: callers of a proxy would be the root user; trusted_proxies has to be empty"
        )
    log.warning(
        "event=authentication-off listening=%s cause='--auth off: EVERY caller is the root user; "
        "no signature and no policy is checked'",
        ",".join(addresses),
    )


def _faults(settings: Settings, model: Service) -> Faults | None:
    """What goes wrong on purpose; None, as it is for everybody but developers of devices.

    Raises SettingError for a fault script with a mistake.
    """
    if settings.faults is None and not settings.allow_faults:
        return None
    faults = Faults(model, settings.ownership_token_seconds, time.time)
    if settings.faults is not None:
        try:
            faults.load(settings.faults)
        except InvalidFaultScript as error:
            raise SettingError(f"--faults `{settings.faults}`: {error.message}") from None
    return faults


def _check_faults(settings: Settings, bound: list[socket.socket]) -> None:
    """A server that breaks things on purpose stays on its machine, unless that is allowed.

    Raises SettingError.
    """
    addresses = [listener.getsockname()[0] for listener in bound]
    for address in addresses:
        loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
        if not loopback and not settings.allow_faults:
            raise SettingError(
                f"--faults: the server listens on {address}, where devices of others may reach it "
                "and meet the faults; --allow-faults permits that"
            )
    log.warning(
        "event=faults-on listening=%s script=%s cause='--faults or --allow-faults: this server "
        "FAILS ON PURPOSE when a fault script says so'",
        ",".join(addresses),
        settings.faults or "-",
    )


def _url(host: str, port: int) -> str:
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    if ":" in reachable and not reachable.startswith("["):
        reachable = f"[{reachable}]"
    return f"http://{reachable}:{port}"


def _guard_process() -> None:
    """Settings of the process as a whole.

    No core files, since keys are in memory, and no reading of it by other processes of the user,
    the functions among them; no file for others to read unless it says so; as
    many file descriptors as may be had, since every connection takes one.
    """
    confinement.guard()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _connections() -> tuple[int, int]:
    """How many connections of devices and of HTTP callers the file descriptors allow for.

    Some are left over: a burst of connections has its descriptors before any is turned away.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    http = min(files // 8, 512)
    return min(max(files - http - 4096, files // 2), 100_000), http


class LogFormatter(logging.Formatter):
    """Log entries of one line each but for tracebacks: what a peer sent cannot start one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; control characters of the message are escaped."""
        text = super().format(record)
        if text.isprintable():
            return text
        # a traceback keeps its lines, and a line of it that was sent by a peer is no event
        kept = "\n" if record.exc_info else ""
        return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def configure_logging(level: str) -> None:
    """Sends the log to standard error, one line per event."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)

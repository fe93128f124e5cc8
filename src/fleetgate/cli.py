"""The command line. It stays thin: options in, one call, errors as one line."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import urlsplit

import typer

from fleetgate import __version__, allow_list_commands, hook_commands, template_commands
from fleetgate.device import command_line
from fleetgate.errors import Error

MIGRATION_SECONDS = 3600.0
"""How long one statement of a migration may take."""

app = typer.Typer(
    help="AWS IoT device provisioning that you can run yourself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(template_commands.app, name="template")
app.add_typer(hook_commands.app, name="hook")
app.add_typer(allow_list_commands.app, name="allow-list")

Data = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Data directory. [env: FLEETGATE_DATA; default: ./fleetgate-data]"
    ),
]


Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="PostgreSQL for the registry, postgresql://USER:PASSWORD@HOST/DATABASE. "
        "[env: FLEETGATE_DATABASE; default: SQLite in the data directory]",
    ),
]


_WARNING = (
    "*" * 76,
    "* WARNING: --auth off. No signature is checked and no IAM policy is asked:  *",
    "* every program of this machine that reaches the HTTP API is the root user. *",
    "* For throw-away use only.                                                  *",
    "*" * 76,
)


_OVERRIDING = (
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ENDPOINT_URL_IOT",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)


def main() -> None:
    """The ``fleetgate`` command."""
    try:
        app()
    except Error as error:
        _fail(error.message)
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"`{error.filename}`: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> NoReturn:
    typer.echo(f"fleetgate: {message}", err=True)
    sys.exit(1)


def _program() -> str:
    """How this program was called, for commands that are printed to be pasted."""
    called = Path(sys.argv[0])
    return shlex.quote(sys.argv[0]) if called.name == "fleetgate" else "fleetgate"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fleetgate {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """AWS IoT device provisioning that you can run yourself."""


@app.command()
def serve(
    data: Data = None,
    database: Database = None,
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where the HTTP API listens. [env: FLEETGATE_HTTP; default: 127.0.0.1:4566]",
        ),
    ] = None,
    mqtt: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Where devices connect by MQTT over mutual TLS. "
            "[env: FLEETGATE_MQTT; default: 127.0.0.1:8883]",
        ),
    ] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A DNS name or IP address under which devices reach the server; repeatable, the "
            "first is what DescribeEndpoint answers. "
            "[env: FLEETGATE_HOST_NAMES, separated by commas; default: localhost]",
        ),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="AWS account id. [env: FLEETGATE_ACCOUNT; default: 000000000000]"
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="AWS region. [env: FLEETGATE_REGION; default: us-east-1]"
        ),
    ] = None,
    auth: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help="How HTTP callers are known: sigv4, or off: everybody is the root user, for "
            "throw-away use on loopback addresses. [env: FLEETGATE_AUTH; default: sigv4]",
        ),
    ] = None,
    allow_reset: Annotated[
        bool,
        typer.Option(
            "--allow-reset",
            help="Let POST /_fleetgate/reset empty the registry. [env: FLEETGATE_ALLOW_RESET]",
        ),
    ] = False,
    faults: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A fault script: what goes wrong on purpose, for those who develop devices. "
            "[env: FLEETGATE_FAULTS]",
        ),
    ] = None,
    allow_faults: Annotated[
        bool,
        typer.Option(
            "--allow-faults",
            help="Take fault scripts at /_fleetgate/faults, and on addresses of the network. "
            "[env: FLEETGATE_ALLOW_FAULTS]",
        ),
    ] = False,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=N",
            help="Another value for one of AWS's quotas, e.g. policy_versions=10; repeatable. "
            "[env: FLEETGATE_LIMITS, separated by commas; default: AWS's]",
        ),
    ] = None,
    bucket: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR",
            help="A directory that bulk registrations read as the bucket of this name; "
            "repeatable. [env: FLEETGATE_BUCKETS, separated by commas]",
        ),
    ] = None,
    function: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TARGET",
            help="A function for hooks and certificate providers: python:PACKAGE.MODULE:FUNCTION "
            "or builtin:KIND, others in the file; repeatable. "
            "[env: FLEETGATE_FUNCTIONS, separated by commas]",
        ),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="How much to say on standard error: debug, info, warning or error. "
            "[env: FLEETGATE_LOG_LEVEL; default: info]",
        ),
    ] = None,
) -> None:
    """Run the server.

    It stops on SIGTERM or Ctrl-C, after the answers in flight have left. Settings come from
    these options, from FLEETGATE_* variables, and from fleetgate.toml.
    """
    started = time.monotonic()
    from fleetgate.gateway import openssl

    openssl.load()  # before anything imports `cryptography`
    import asyncio

    import uvloop

    from fleetgate.data_directory import Endpoints
    from fleetgate.server import configure_logging
    from fleetgate.server import serve as run
    from fleetgate.settings import read_settings, unknown_variables
    from fleetgate.store.opening import name as store_name

    given = {
        "data": data,
        "database": database,
        "http": http,
        "mqtt": mqtt,
        "host_names": host_name,
        "account": account,
        "region": region,
        "auth": auth,
        "allow_reset": allow_reset or None,
        "faults": faults,
        "allow_faults": allow_faults or None,
        "limits": limit,
        "buckets": bucket,
        "functions": function,
        "log_level": log_level,
    }
    settings = read_settings(given, os.environ, Path.cwd())
    configure_logging(settings.log_level.upper())
    for name in unknown_variables(os.environ):
        typer.echo(f"fleetgate: the variable {name} is unknown and has no effect", err=True)

    def ready(endpoints: Endpoints, path: Path) -> None:
        typer.echo(f"fleetgate {__version__}, account {settings.account}, {settings.region}")
        typer.echo(f"  HTTP  {endpoints.http_url}")
        typer.echo(
            f"  MQTT  {endpoints.mqtt_host}:{endpoints.mqtt_port} "
            f"(mutual TLS, CA {endpoints.ca_file})"
        )
        typer.echo(f"  data  {path}")
        if settings.database:
            typer.echo(f"  store {store_name(path, settings.database)}")
        if settings.auth == "off":
            typer.echo("  AUTH  OFF: whoever reaches the HTTP API may do everything")
            for line in _WARNING:
                typer.echo(line, err=True)
        if settings.faults is not None or settings.allow_faults:
            typer.echo("  FAULTS ON: this server fails on purpose when a fault script says so")
        env = f"{_program()} env --data {shlex.quote(str(settings.data))}"
        typer.echo(f'  next  eval "$({env})" && aws iot list-things')
        typer.echo(f"ready in {time.monotonic() - started:.2f} s")
        sys.stdout.flush()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings, ready))


@app.command()
def migrate(data: Data = None, database: Database = None) -> None:
    """Bring the registry's schema to this release's version.

    Says from which version to which. The server must not be running; make a backup before. serve
    does this by itself for SQLite and for an empty PostgreSQL database.
    """
    from fleetgate.settings import read_settings
    from fleetgate.store import opening

    settings = read_settings({"data": data, "database": database}, os.environ, Path.cwd())
    path = settings.data.absolute()
    name = opening.name(path, settings.database)
    before, after = opening.migrate(
        path,
        settings.database,
        MIGRATION_SECONDS,
        lambda text: typer.echo(f"fleetgate: {name}: {text}", err=True),
    )
    if before == after:
        typer.echo(f"{name} has schema version {after}: nothing to do")
    else:
        typer.echo(f"{name} migrated from schema version {before} to {after}")


@app.command()
def env(data: Data = None) -> None:
    """Print settings for the shell, for use with eval.

    With eval "$(fleetgate env)" the aws command, boto3 and the SDKs talk to the running server,
    and FLEETGATE_MQTT_HOST, _PORT and _CA tell devices where it is.
    """
    from fleetgate.data_directory import read_credentials, read_endpoints
    from fleetgate.settings import read_settings

    settings = read_settings({"data": data}, os.environ, Path.cwd())
    path = settings.data.absolute()
    endpoints = read_endpoints(path)
    credentials = read_credentials(path)
    values = {
        "AWS_ENDPOINT_URL": endpoints.http_url,
        "AWS_ACCESS_KEY_ID": credentials.access_key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_access_key,
        "AWS_REGION": endpoints.region,
        "AWS_DEFAULT_REGION": endpoints.region,
        "FLEETGATE_MQTT_HOST": endpoints.mqtt_host,
        "FLEETGATE_MQTT_PORT": str(endpoints.mqtt_port),
        "FLEETGATE_MQTT_CA": endpoints.ca_file,
    }
    # what is left over from elsewhere would win over these
    typer.echo(f"unset {' '.join(_OVERRIDING)}")
    for name, value in values.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
    # a proxy is for the internet, not for this server
    host = shlex.quote(urlsplit(endpoints.http_url).hostname or "")
    for name in ("NO_PROXY", "no_proxy"):
        typer.echo(f'export {name}="${{{name}:+${name},}}"{host}')


@app.command()
def operations() -> None:
    """List the operations this server serves."""
    from fleetgate.operations.dispatch import SERVED

    doors = {"provisioning": "MQTT (device provisioning API)"}
    for service, functions in SERVED.items():
        typer.echo(f"{doors.get(service, f'HTTP ({service})')}:")
        for name in sorted(functions):
            typer.echo(f"  {name}")


@app.command()
def demo(
    devices: Annotated[int, typer.Option(min=1, max=1000, help="How many devices.")] = 6,
) -> None:
    """Show the main job, on a server of its own.

    Starts a server, provisions devices over mutual TLS and shows what came out. Everything
    happens in a temporary directory; no account, no network and no server are needed.
    """
    from fleetgate.demo import run

    sys.exit(run(devices, _program()))


def _device_command(context: typer.Context) -> None:
    # not reached by the `fleetgate` command, which runs these without this module
    raise typer.Exit(command_line.run([str(context.info_name), *context.args]))


for _name, _command in command_line.COMMANDS.items():
    app.command(
        _name,
        help=_command.summary,
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(_device_command)

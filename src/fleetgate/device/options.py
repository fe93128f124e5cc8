"""What command-line options for devices mean. Everything raises BadRequest with the rule."""

from __future__ import annotations

import json
import re
import stat
from argparse import ArgumentTypeError
from collections.abc import Mapping
from ipaddress import IPv6Address
from os import PathLike
from pathlib import Path

from fleetgate.device import protocol
from fleetgate.device.errors import BadRequest

PORT = 8883

_ENDPOINT = re.compile(
    r"(?:(?P<name>[^\s:/@\[\]]+)|\[(?P<address>[^\s/@\[\]]+)\])(?::(?P<port>[0-9]+))?", re.ASCII
)


def directory_of(text: str) -> Path:
    """A directory, for argparse: an empty text would be the present one, and a mistake."""
    if not text:
        raise ArgumentTypeError("the name of a directory is empty")
    return Path(text)


def endpoint_of(text: str) -> tuple[str, int]:
    """Host and port of ``HOST[:PORT]``; the port is 8883 by default."""
    # an IPv6 address needs its brackets before a port only (RFC 3986 section 3.2.2)
    found = _ENDPOINT.fullmatch(f"[{text}]" if _is_ipv6(text) else text)
    if found is None or (found["address"] and not _is_ipv6(found["address"])):
        raise BadRequest(
            f"--endpoint `{text[:80]}`: HOST or HOST:PORT is expected, without a scheme such as "
            "`https://`"
        )
    return found["name"] or found["address"], _port(found["port"], f"--endpoint `{text[:80]}`")


def server_of_variables(environ: Mapping[str, str]) -> tuple[str, int, Path | None] | None:
    """Host, port and authorities of the variables that ``fleetgate env`` prints.

    None without FLEETGATE_MQTT_HOST. FLEETGATE_MQTT_PORT and _CA may be missing: they are 8883 and
    None then. A variable that is empty is missing.
    """
    from fleetgate.device.endpoint import Endpoint

    host, ca = environ.get("FLEETGATE_MQTT_HOST"), environ.get("FLEETGATE_MQTT_CA")
    if not host:
        return None
    port = environ.get("FLEETGATE_MQTT_PORT")
    number = _port(port, f"FLEETGATE_MQTT_PORT is `{(port or '')[:80]}`")
    try:
        Endpoint(host, number)
    except BadRequest as error:
        raise BadRequest(f"FLEETGATE_MQTT_HOST: {error.message}") from error
    return host, number, Path(ca) if ca else None


def server_unless(
    endpoint: str | None, environ: Mapping[str, str]
) -> tuple[str, int, Path | None] | None:
    """As :func:`server_of_variables`, where variables that cannot be do not count with --endpoint.

    Raises BadRequest without it.
    """
    try:
        return server_of_variables(environ)
    except BadRequest:
        if endpoint is None:
            raise
        return None


def chosen(endpoint: str | None, theirs: tuple[str, int, Path | None] | None) -> tuple[str, int]:
    """Host and port of --endpoint, else of a claim or the variables. Raises BadRequest."""
    if endpoint is not None:
        return endpoint_of(endpoint)
    if theirs is None:
        raise BadRequest(
            "a server is needed: --endpoint, --claim, or the variable FLEETGATE_MQTT_HOST"
        )
    return theirs[:2]


def authorities_for(
    host: str, port: int, theirs: tuple[str, int, Path | None] | None
) -> Path | None:
    """The authorities in `theirs`, if they are of the same server; names know no upper case."""
    if theirs is None or (theirs[0].lower(), theirs[1]) != (host.lower(), port):
        return None
    return theirs[2]


def check_readable(files: Mapping[str, str | PathLike[str] | None]) -> None:
    """Whether the files can be read that options name, by the name of the option.

    What is no regular file (such as a pipe) is not opened: it can be read only once. Raises
    BadRequest.
    """
    for option, file in files.items():
        if file is None:
            continue
        try:
            path = Path(file)
            if not stat.S_ISFIFO(mode := path.stat().st_mode) and not stat.S_ISCHR(mode):
                with path.open("rb") as stream:
                    stream.read(1)
        except OSError as error:
            raise BadRequest(f"{option}: cannot read `{file}`: {error.strerror}") from error
        except ValueError as error:  # U+0000 in the path
            raise BadRequest(f"{option}: cannot read `{file}`: {error}") from error


def check_template(name: str) -> None:
    """Whether a template may be called so."""
    protocol.register_thing(name, "json")


def parameters_of(text: str) -> dict[str, str]:
    """The parameters of a template: a JSON object of text to text, or @FILE with one."""
    if text.startswith("@"):
        file = Path(text[1:])
        try:
            text = file.read_text("utf-8")
        except OSError as error:
            raise BadRequest(f"--parameters: cannot read `{file}`: {error.strerror}") from error
        except ValueError as error:
            raise BadRequest(f"--parameters: `{file}` is not text in UTF-8: {error}") from error
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"--parameters is not JSON: {error}") from None
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise BadRequest("--parameters has to be a JSON object of text to text")
    return value


def _port(text: str | None, what: str) -> int:
    port = text or str(PORT)
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or not 0 < int(port) < 65536:
        raise BadRequest(f"{what}: the port has to be from 1 to 65535")
    return int(port)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True

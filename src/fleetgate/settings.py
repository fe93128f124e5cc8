"""The settings of a server: read once, from options, environment and file, then constant.

An option given on the command line wins over its ``FLEETGATE_*`` variable, that over
``fleetgate.toml``, that over the default. The file is the one named by ``FLEETGATE_CONFIG``, else
``fleetgate.toml`` in the current directory when there is one. A name nobody knows in the file is
an error; ``FLEETGATE_*`` variables nobody knows may be there for other programs and are told.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fleetgate.domain.limits import Limits
from fleetgate.errors import Error
from fleetgate.functions.configured import Configured, parse_functions

CONFIG_FILE = "fleetgate.toml"
CONFIG_VARIABLE = "FLEETGATE_CONFIG"
ACCESS_KEY_VARIABLES = ("FLEETGATE_ACCESS_KEY_ID", "FLEETGATE_SECRET_ACCESS_KEY")

OTHER_VARIABLES = ("FLEETGATE_MQTT_HOST", "FLEETGATE_MQTT_PORT", "FLEETGATE_MQTT_CA")
"""What ``fleetgate env`` sets for devices."""

AUTHENTICATION = ("sigv4", "off")
LOG_LEVELS = ("debug", "info", "warning", "error")

Address = tuple[str, int]


class SettingError(Error):
    """A setting has a value it cannot have; the message names it, its source and the rule."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of ``fleetgate serve``.

    Addresses are (host, port), port 0 picks a free one; durations are seconds. `host_names` are
    the names and IP addresses under which devices reach the server; the first is what
    DescribeEndpoint answers. `trusted_proxies` are networks whose X-Forwarded-For is believed.
    `rsa_key_stock` is how many RSA keys are made ahead. `limits` are the quotas of the account.
    With `auth` ``off`` nothing is asked of HTTP callers.
    `faults` is a fault script, None without; `allow_faults` takes them over HTTP.
    `buckets` are directories by the names of buckets, `s3_endpoint_url` where other buckets are.
    `functions` are hooks and certificate providers of the operator, by the names in their ARNs.
    `database` is a ``postgresql://`` URL, or empty for SQLite in the data directory.
    """

    data: Path = Path("fleetgate-data")
    http: Address = ("127.0.0.1", 4566)
    mqtt: Address = ("127.0.0.1", 8883)
    host_names: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    account: str = "000000000000"
    region: str = "us-east-1"
    auth: str = "sigv4"
    allow_reset: bool = False
    faults: Path | None = None
    allow_faults: bool = False
    log_level: str = "info"
    issuer: str = ""
    ownership_token_seconds: float = 3600.0
    provisioning_claim_seconds: float = 300.0
    rsa_key_stock: int = 32
    limits: Limits = field(default_factory=Limits)
    buckets: Mapping[str, Path] = field(default_factory=dict)
    functions: Mapping[str, Configured] = field(default_factory=dict)
    s3_endpoint_url: str = ""
    database: str = field(default="", repr=False)
    database_connections: int = 8
    database_timeout_seconds: float = 10.0
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)


def variable(name: str) -> str:
    """The environment variable of a setting: ``host_names`` -> ``FLEETGATE_HOST_NAMES``."""
    return f"FLEETGATE_{name.upper()}"


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """The ``FLEETGATE_*`` variables that have no meaning here."""
    known = {variable(name) for name in _PARSERS} | {CONFIG_VARIABLE, *OTHER_VARIABLES}
    return sorted(
        name for name in environment if name.startswith("FLEETGATE_") and name not in known
    )


def config_file(environment: Mapping[str, str], directory: Path) -> Path:
    """The file that is read, if it is there."""
    file = environment.get(CONFIG_VARIABLE)
    return Path(file) if file else directory / CONFIG_FILE


def read_settings(
    options: Mapping[str, Any], environment: Mapping[str, str], directory: Path
) -> Settings:
    """Puts the settings together.

    `options` are those given on the command line (None: not given), `directory` is where
    ``fleetgate.toml`` is looked for. Raises SettingError.
    """
    file = environment.get(CONFIG_VARIABLE)
    path = config_file(environment, directory)
    found: dict[str, Any] = {}
    limits: dict[str, int] = {}  # each by its own name: one source does not hide the others
    buckets: dict[str, Path] = {}  # likewise
    functions: dict[str, Configured] = {}  # likewise

    def take(name: str, value: Any, source: str, base: Path = directory) -> None:
        parsed = _parse(name, value, source, base)
        if name == "limits":
            limits.update(parsed)
        elif name == "buckets":
            buckets.update(parsed)
        elif name == "functions":
            functions.update(parsed)
        else:
            found[name] = parsed

    if file or path.is_file():
        for name, value in _read_file(path).items():
            take(name, value, f"`{path}`", path.absolute().parent)
    for name in _PARSERS:
        text = environment.get(variable(name))
        if text is not None:
            take(name, text, f"the variable {variable(name)}")
    for name, value in options.items():
        if value not in (None, []):
            take(name, value, f"the option --{_option(name)}")
    found["limits"] = Limits(**limits)
    found["buckets"] = buckets
    found["functions"] = functions
    if (found.get("access_key_id") is None) != (found.get("secret_access_key") is None):
        raise SettingError(f"{' and '.join(ACCESS_KEY_VARIABLES)} have to be set together")
    return Settings(**found)


def _option(name: str) -> str:
    singular = {
        "host_names": "host-name",
        "limits": "limit",
        "buckets": "bucket",
        "functions": "function",
    }
    return singular.get(name, name.replace("_", "-"))


_NOT_SHOWN = ("secret_access_key", "database", "limits", "functions")


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"`{path}` cannot be read: {error}") from None
    unknown = sorted(set(values) - set(_PARSERS))
    if unknown:
        raise SettingError(
            f"`{path}`: unknown setting `{unknown[0]}`; known are {', '.join(_PARSERS)}"
        )
    return values


def _parse(name: str, value: Any, source: str, directory: Path) -> Any:
    """The value of a setting; those of functions have paths relative to `directory`."""
    try:
        if name == "functions":
            return parse_functions(value, directory)
        return _PARSERS[name](value)
    except (ValueError, TypeError) as error:
        shown = "" if name in _NOT_SHOWN else f" `{value}`"
        raise SettingError(f"{source}: {name}{shown}: {error}") from None


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("a directory is expected")
    return Path(value)


def _file(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError("a file is expected")
    return Path(value)


def _address(value: Any) -> Address:
    host, _, port = str(value).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("HOST:PORT is expected, with a port from 0 to 65535")
    return host, int(port)


def _names(value: Any) -> tuple[str, ...]:
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        raise ValueError("a list of host names is expected")
    names = tuple(name.strip() if isinstance(name, str) else "" for name in listed)
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._:-]{1,253}", name):
            raise ValueError(f"`{name}` is neither a DNS name nor an IP address")
    return names


def _networks(value: Any) -> tuple[str, ...]:
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list | tuple):
        raise ValueError("a list of IP addresses and networks is expected")
    return tuple(str(ipaddress.ip_network(str(each).strip())) for each in listed)


def _matching(pattern: str, rule: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(rule)
        return value

    return parse


def _switch(value: Any) -> bool:
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if str(value).lower() not in known:
        raise ValueError("true or false is expected")
    return known[str(value).lower()]


def _database(value: Any) -> str:
    if value == "":
        return ""
    if not isinstance(value, str) or not re.match(r"postgres(ql)?://", value):
        raise ValueError(
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE is expected, or nothing for SQLite"
        )
    return value


def _count(least: int, most: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        text = str(value)
        if not (text.isascii() and text.isdigit() and least <= int(text[:9]) <= most):
            raise ValueError(f"a whole number from {least} to {most} is expected")
        return int(text)

    return parse


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 1 <= seconds <= 86400 * 365:
        raise ValueError("a number of seconds from 1 to 31536000 is expected")
    return seconds


_LIMIT_NAMES = tuple(each.name for each in fields(Limits))
_MOST = 1_000_000


def _limits(value: Any) -> dict[str, int]:
    """A table of the file, or ``name=number`` once (option) or separated by commas (variable)."""
    if isinstance(value, str):
        value = value.split(",")
    if isinstance(value, list | tuple):
        pairs = [str(each).strip().partition("=") for each in value]
        for name, equals, _ in pairs:
            if not equals:
                raise ValueError(f"NAME=N is expected, not `{name}`")
        value = {name.strip(): number.strip() for name, _, number in pairs}
    if not isinstance(value, dict):
        raise ValueError("a table of names and numbers is expected")
    for name, number in value.items():
        if name not in _LIMIT_NAMES:
            raise ValueError(f"`{name}` is no limit; known are {', '.join(_LIMIT_NAMES)}")
        text = str(number)
        if isinstance(number, bool) or not (text.isascii() and text.isdigit()):
            raise ValueError(f"`{name}`: a whole number is expected, not `{number}`")
        if len(text) > 100 or not 1 <= int(text) <= _MOST:
            raise ValueError(f"`{name}`: a number from 1 to {_MOST} is expected, not `{number}`")
    return {name: int(str(number)) for name, number in value.items()}


def _buckets(value: Any) -> dict[str, Path]:
    """A table of the file, or ``NAME=DIR`` once (option) or separated by commas (variable)."""
    if isinstance(value, str):
        value = [each for each in value.split(",") if each.strip()]
    if isinstance(value, list | tuple):
        pairs = [str(each).strip().partition("=") for each in value]
        for name, equals, _ in pairs:
            if not equals:
                raise ValueError(f"NAME=DIR is expected, not `{name}`")
        value = {name.strip(): directory.strip() for name, _, directory in pairs}
    if not isinstance(value, dict):
        raise ValueError("a table of names and directories is expected")
    for name in value:
        if not re.fullmatch(r"[a-zA-Z0-9._-]{3,256}", name):
            raise ValueError(f"`{name}` is no name of a bucket: 3 to 256 letters, digits, `.-_`")
    return {name: _path(directory) for name, directory in value.items()}


_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "data": _path,
    "http": _address,
    "mqtt": _address,
    "host_names": _names,
    "trusted_proxies": _networks,
    "account": _matching(r"[0-9]{12}", "12 digits are expected"),
    "region": _matching(r"[a-z0-9-]{1,32}", "a name such as us-east-1 is expected"),
    "auth": _matching("|".join(AUTHENTICATION), "sigv4 or off is expected"),
    "allow_reset": _switch,
    "faults": _file,
    "allow_faults": _switch,
    "log_level": _matching("|".join(LOG_LEVELS), f"one of {', '.join(LOG_LEVELS)} is expected"),
    "issuer": _matching(r"[^\x00-\x1f]{1,200}", "1 to 200 printable characters are expected"),
    "ownership_token_seconds": _seconds,
    "provisioning_claim_seconds": _seconds,
    "rsa_key_stock": _count(0, 1000),
    "limits": _limits,
    "buckets": _buckets,
    "functions": lambda value: parse_functions(value, Path()),
    "s3_endpoint_url": _matching(
        r"|https?://[^\s/@?#]+(/[^\s@?#]*)?",
        "http://HOST:PORT or https://HOST is expected, without credentials",
    ),
    "database": _database,
    "database_connections": _count(2, 100),
    "database_timeout_seconds": _seconds,
    "access_key_id": _matching(r"\w{16,128}", "16 to 128 letters, digits or _ are expected"),
    "secret_access_key": _matching(r"\S{1,128}", "1 to 128 characters without blanks"),
}

assert set(_PARSERS) == {each.name for each in fields(Settings)}  # noqa: S101

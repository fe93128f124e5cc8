"""The functions of the configuration: ``[functions]`` in fleetgate.toml.

Here they are read and checked as far as that is possible without opening a file; what a built-in
function takes, its own module knows. Nothing is left out in silence: a key nobody knows, one that
is missing and a value that cannot be are errors that name function, key, rule and value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from fleetgate.functions.addresses import networks
from fleetgate.functions.options import Options
from fleetgate.functions.urls import parse_url

BUILT_INS = ("allow-list", "key-reuse-audit", "local-ca", "step-ca", "vault")
"""The kinds of built-in functions."""

FUNCTION_NAME = r"[a-zA-Z0-9-_]{1,64}"
"""Source: Lambda API reference, CreateFunction, FunctionName."""

_NAME = r"[^\W\d]\w*"
_DOTTED = rf"{_NAME}(?:\.{_NAME})*"
_MOST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class PythonFunction:
    """``python:package.module:function``, run in a process of its own.

    `search_path` are directories where the module is looked for, before the server's own Python.
    """

    module: str
    function: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_seconds: float = 5.0
    memory_megabytes: int = 512
    concurrency: int = 8
    search_path: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Webhook:
    """A signed POST to an HTTPS server.

    `secret_file` holds the key of the HMAC. `allow_networks` are the networks of private or
    loopback addresses that may be called; `ca_file` verifies the server instead of the system's
    certificates. `client_certificate` and `client_key` are shown to a server that asks for them.
    """

    url: str
    secret_file: Path
    allow_networks: tuple[str, ...] = ()
    ca_file: Path | None = None
    timeout_seconds: float = 5.0
    concurrency: int = 32
    client_certificate: Path | None = None
    client_key: Path | None = None


@dataclass(frozen=True, slots=True)
class LambdaEndpoint:
    """A function of any service that answers Lambda's Invoke: AWS, SAM local, LocalStack, ..."""

    endpoint_url: str
    function_name: str
    region: str
    timeout_seconds: float = 5.0
    concurrency: int = 32


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A function that is part of Fleetgate; its options are checked by its own module.

    `directory` is what relative paths among the options are relative to.
    """

    kind: str
    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    directory: Path = Path()


Configured = PythonFunction | Webhook | LambdaEndpoint | BuiltIn
"""What the process of a function runs."""


def parse_functions(value: object, directory: Path) -> dict[str, Configured]:
    """Functions by their names.

    `value` is a table of the file, a list of ``NAME=TARGET`` (options) or a text of such separated
    by commas (variable). `directory` is what paths are relative to. Raises ValueError.
    """
    if isinstance(value, str):
        value = [each for each in value.split(",") if each.strip()]
    if isinstance(value, list | tuple):
        pairs = [str(each).strip().partition("=") for each in value]
        for name, equals, _ in pairs:
            if not equals:
                raise ValueError(f"NAME=TARGET is expected, not {_shown(name)}")
        value = {name.strip(): target.strip() for name, _, target in pairs}
    if not isinstance(value, dict):
        raise ValueError("a table of names and targets is expected")
    found = {}
    for name, target in value.items():
        if not re.fullmatch(FUNCTION_NAME, name):
            raise ValueError(
                f"{_shown(name)} is no name of a function: 1 to 64 letters, digits, `-_`"
                f"{' (of an ARN the part behind `function:`)' if name.startswith('arn:') else ''}"
            )
        try:
            found[name] = _function(target, directory)
        except ValueError as error:
            raise ValueError(f"`{name}`: {error}") from None
    return found


def _function(target: object, directory: Path) -> Configured:
    if isinstance(target, str):
        target = _table(target)
    if not isinstance(target, dict):
        raise ValueError(f"a text or a table is expected, not {_shown(target)}")
    kinds = [kind for kind in (*_KINDS, "builtin") if kind in target]
    if len(kinds) != 1:
        known = ", ".join(f"`{kind}`" for kind in (*_KINDS, "builtin"))
        found = " and ".join(f"`{kind}`" for kind in kinds) or "none"
        raise ValueError(f"one of {known} is expected among its keys, there is {found}")
    if kinds == ["builtin"]:
        return _built_in(target, directory)
    options = Options(target, directory)
    configured = _KINDS[kinds[0]](options)
    options.finished()
    return configured


def _table(target: str) -> dict[str, object]:
    """The table that a text stands for."""
    kind, _, rest = target.partition(":")
    if kind in ("python", "builtin"):
        return {kind: rest}
    if kind in ("http", "https"):
        raise ValueError(
            "a webhook needs a secret to sign with, which a table of the file names: "
            '{ webhook = "https://...", secret_file = "..." }'
        )
    raise ValueError(
        "python:PACKAGE.MODULE:FUNCTION, builtin:KIND or, in the file, a table is expected, "
        f"not {_shown(target)}"
    )


def _python(options: Options) -> PythonFunction:
    rule = "PACKAGE.MODULE:FUNCTION is expected"
    text = options.text("python", pattern=f"(python:)?{_DOTTED}:{_NAME}", rule=rule)
    module, _, function = text.removeprefix("python:").partition(":")
    return PythonFunction(
        module,
        function,
        environment=options.environment("environment"),
        timeout_seconds=_timeout(options),
        memory_megabytes=options.whole("memory", 512, 128, 10240),
        concurrency=options.whole("concurrency", 8, 1, 1000),
        search_path=options.paths("path", (".",)),
    )


def _webhook(options: Options) -> Webhook:
    url = options.text("webhook")
    try:
        parse_url(url)
    except ValueError as error:  # the URL may hold a secret
        raise ValueError(f"`webhook`: {error}") from None
    certificate, key = options.optional_path("client_cert"), options.optional_path("client_key")
    if key is not None and certificate is None:
        raise ValueError("`client_key` is given without `client_cert`")
    return Webhook(
        url,
        options.path("secret_file"),
        allow_networks=_networks(options.texts("allow_networks")),
        ca_file=options.optional_path("ca_file"),
        timeout_seconds=_timeout(options),
        concurrency=options.whole("concurrency", 32, 1, 1000),
        client_certificate=certificate,
        client_key=key,
    )


def _networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(str(network) for network in networks(texts))
    except ValueError as error:
        raise ValueError(f"`allow_networks`: {error}") from None


def _lambda(options: Options) -> LambdaEndpoint:
    url = options.text("lambda")
    if not re.fullmatch(r"https?://[^\s/@?#]+(/[^\s@?#]*)?", url):  # it may hold a password
        raise ValueError("`lambda`: http://HOST:PORT or https://HOST is expected")
    host = urlsplit(url).hostname or ""
    told = re.fullmatch(r"lambda(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?", host)
    return LambdaEndpoint(
        url,
        options.text(
            "function",
            pattern=r"[A-Za-z0-9:_/$.-]{1,256}",
            rule="the name or ARN of a function there is expected",
        ),
        options.text(
            "region",
            told[1] if told else "us-east-1",
            pattern=r"[a-z0-9-]{1,32}",
            rule="a name such as us-east-1 is expected",
        ),
        timeout_seconds=_timeout(options),
        concurrency=options.whole("concurrency", 32, 1, 1000),
    )


def _timeout(options: Options) -> float:
    return options.number("timeout", 5.0, 0.1, 900)


def _built_in(table: Mapping[str, object], directory: Path) -> BuiltIn:
    kind = table["builtin"]
    if not isinstance(kind, str) or kind not in BUILT_INS:
        known = ", ".join(BUILT_INS)
        raise ValueError(f"`builtin`: one of {known} is expected, not {_shown(kind)}")
    options = {name: value for name, value in table.items() if name != "builtin"}
    return BuiltIn(kind, options, directory)


_KINDS: Mapping[str, Callable[[Options], Configured]] = {
    "python": _python,
    "webhook": _webhook,
    "lambda": _lambda,
}


def _shown(value: object) -> str:
    text = str(value)
    return f"`{text[:_MOST_SHOWN]}`{'...' if len(text) > _MOST_SHOWN else ''}"

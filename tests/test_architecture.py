"""The rules of the layout, checked on the source text: nothing is imported.

docs/development.md draws the layers. Each rule is a function of a module's name and source that
returns the violations it sees; each is tested on a piece of source that breaks it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

# --- import directions ----------------------------------------------------------------------------

FOUNDATION = {"errors", "names"}
PURE = {"domain", "pki", "mqtt", "wire"}
DOORS = {"broker", "gateway", "console"}
WIRING = {"files", "settings", "data_directory", "buckets", "reports", "server"}
SERVER_SIDE = FOUNDATION | PURE | {"store", "functions", "operations"} | DOORS | WIRING

# what each layer may import beside itself; a layer that is not here does not exist
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "names": {"errors"},
    **dict.fromkeys(PURE, FOUNDATION),
    "store": FOUNDATION | PURE,
    "functions": FOUNDATION | PURE,
    "operations": FOUNDATION | PURE | {"store", "functions"},
    "broker": FOUNDATION | PURE | {"store", "operations"},
    "gateway": FOUNDATION | PURE | {"store", "operations", "broker", "functions"},
    "console": FOUNDATION | PURE | {"store", "operations"},
    "files": set(),
    "settings": FOUNDATION | {"domain", "functions"},
    "buckets": FOUNDATION,
    "reports": FOUNDATION | {"files"},
    "data_directory": FOUNDATION | PURE | {"files", "settings"},
    "server": SERVER_SIDE,
    "device": FOUNDATION | {"mqtt"},
    "demo": SERVER_SIDE | {"device"},
    "pytest_plugin": SERVER_SIDE | {"device"},
    "template_commands": SERVER_SIDE | {"device"},
    "signed_requests": FOUNDATION,
    "hook_commands": SERVER_SIDE | {"device", "signed_requests"},
    "allow_list_commands": SERVER_SIDE | {"signed_requests"},
    "cli": SERVER_SIDE
    | {
        "device",
        "demo",
        "template_commands",
        "hook_commands",
        "allow_list_commands",
    },
    "main": {"cli", "device"},
    "__main__": {"main"},
}

# --- what the pure layers must not touch: they get clock, randomness and bytes as arguments -------

IMPURE_MODULES = {
    "asyncio",
    "asyncpg",
    "http.client",
    "importlib",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "psycopg",
    "random",
    "secrets",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib.request",
    "uuid",
}
IMPURE_CALLS = {"now", "utcnow", "today", "random_serial_number", "generate_private_key"}
CLIENTS = {
    "demo",
    "buckets",
    "template_commands",
    "fleetgate.functions.lambda_endpoint",
    "signed_requests",
}
# module -> the only layers, or modules, that may import it, and why
RESERVED_MODULES = {
    "psycopg": ({"store"}, "only the store knows which database there is"),
    "sqlalchemy": (set[str](), "it costs half of the start-up time"),
    "boto3": (CLIENTS, "it is a client, slow to import"),
    "botocore": (CLIENTS, "it is a client, slow to import; wire.model reads its files"),
}

# --- names and sizes ------------------------------------------------------------------------------

MAX_LINES = 600
WISHED_LINES = 400
EMPTY_NAMES = ["manager", "helper", "helpers", "util", "utils", "base", "impl", "data", "info"]
EMPTY_MODULE = re.compile(rf"(^|_)({'|'.join(EMPTY_NAMES)})$")
EMPTY_CLASS = re.compile(rf"({'|'.join(name.title() for name in EMPTY_NAMES)})$")


def layer_of(module: str) -> str:
    """``fleetgate.domain.policy`` -> ``domain``; the package itself is the empty layer."""
    return module.partition(".")[2].partition(".")[0]


def imports_of(module: str, tree: ast.Module, *, package: bool = False) -> Iterator[str]:
    """The absolute name of everything imported anywhere in a module.

    Imports inside functions and under TYPE_CHECKING count, and so does
    ``import_module("constant")``. ``from a import b`` yields ``a.b``: b may be a module.
    """
    home = module.split(".") if package else module.split(".")[:-1]
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                prefix = home[: len(home) - level + 1] if level else []
                origin = ".".join([*prefix, *([source] if source else [])])
                yield from (f"{origin}.{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def wrong_directions(module: str, source: str, *, package: bool = False) -> list[str]:
    """Imports of layers that are not below this one, and modules that belong to no layer."""
    layer = layer_of(module)
    if layer and layer not in MAY_IMPORT:
        return [
            f"{module}: `{layer}` is not a layer; give it a place in tests/test_architecture.py"
        ]
    allowed = MAY_IMPORT.get(layer, set()) | {layer}
    found = []
    for name in imports_of(module, ast.parse(source), package=package):
        if name.split(".")[0] != "fleetgate":
            continue
        target = layer_of(name)
        if target not in allowed and target not in {"", "__version__"}:
            found.append(f"{module}: `{layer or 'fleetgate'}` must not import `{name}`")
    return found


def impurities(module: str, source: str) -> list[str]:
    """What a pure layer takes from the world instead of from its arguments."""
    if layer_of(module) not in PURE:
        return []
    tree = ast.parse(source)
    found = [
        f"{module}: imports `{name}`"
        for name in imports_of(module, tree)
        if any(name == banned or name.startswith(banned + ".") for banned in IMPURE_MODULES)
    ]
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="open" | "input" as name)):
                found.append(f"{module}:{node.lineno}: calls `{name}`")
            case ast.Call(func=ast.Attribute(attr=name)) if name in IMPURE_CALLS:
                found.append(f"{module}:{node.lineno}: calls `{name}`")
    return found


def reserved_imports(module: str, source: str) -> list[str]:
    """Imports of third-party modules that are kept to certain layers."""
    found = []
    for name in imports_of(module, ast.parse(source)):
        layers, reason = RESERVED_MODULES.get(name.split(".")[0], (None, ""))
        if layers is not None and not {layer_of(module), module} & layers:
            found.append(f"{module}: imports `{name}`, but {reason}")
    return found


def empty_names(module: str, source: str) -> list[str]:
    """Module and class names that say nothing."""
    found = [
        f"{module}: `{part}` says nothing"
        for part in module.split(".")
        if EMPTY_MODULE.search(part)
    ]
    found += [
        f"{module}: class `{node.name}` says nothing with its ending"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and EMPTY_CLASS.search(node.name)
    ]
    return found


def too_long(sizes: dict[str, int]) -> str:
    """An empty string, or the report on files that broke the hard limit.

    The report also lists the files above the wished limit: the next to be divided.
    """
    if max(sizes.values(), default=0) <= MAX_LINES:
        return ""
    lines = [
        f"{size:5} {name}{' (over the limit)' if size > MAX_LINES else ''}"
        for name, size in sorted(sizes.items(), key=lambda item: -item[1])
        if size > WISHED_LINES
    ]
    return f"at most {MAX_LINES} lines, better {WISHED_LINES}:\n" + "\n".join(lines)


# --- the source of this project -------------------------------------------------------------------


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(SOURCE.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=[str(f.relative_to(SOURCE)) for f in FILES])


def test_the_source_is_found() -> None:
    assert "fleetgate.errors" in {module_name(path) for path in FILES}


@every_file
def test_imports_go_one_way(path: Path) -> None:
    package = path.name == "__init__.py"
    assert wrong_directions(module_name(path), path.read_text(), package=package) == []


@every_file
def test_pure_layers_touch_nothing_outside_their_arguments(path: Path) -> None:
    assert impurities(module_name(path), path.read_text()) == []


@every_file
def test_slow_libraries_stay_where_they_belong(path: Path) -> None:
    assert reserved_imports(module_name(path), path.read_text()) == []


@every_file
def test_names_say_something(path: Path) -> None:
    assert empty_names(module_name(path), path.read_text()) == []


def test_files_are_short() -> None:
    sizes = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in FILES}
    report = too_long(sizes)
    assert not report, report


# --- the rules themselves -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fleetgate.errors", "import fleetgate.names"),
        ("fleetgate.names", "import fleetgate.domain.registry"),
        ("fleetgate.domain.policy", "from fleetgate.pki import csr"),
        ("fleetgate.pki.csr", "from fleetgate.wire.model import Shape"),
        ("fleetgate.mqtt.codec", "from fleetgate import domain"),
        ("fleetgate.wire.model", "import fleetgate.mqtt.packets as packets"),
        ("fleetgate.domain.policy", "from fleetgate.store import engine"),
        ("fleetgate.store.things", "from fleetgate.operations.things import x"),
        ("fleetgate.operations.things", "from fleetgate.gateway import reserved"),
        ("fleetgate.operations.things", "from fleetgate.settings import Settings"),
        ("fleetgate.broker.session", "from fleetgate.gateway.tls import x"),
        ("fleetgate.gateway.tls", "from fleetgate.server import x"),
        ("fleetgate.console.pages", "from fleetgate.gateway.rest import x"),
        ("fleetgate.operations.things", "from fleetgate.files import write_durably"),
        ("fleetgate.files", "import fleetgate.errors"),
        ("fleetgate.data_directory", "from fleetgate.store import engine"),
        ("fleetgate.settings", "from fleetgate.operations.things import x"),
        ("fleetgate.server", "import fleetgate.cli"),
        ("fleetgate.server", "import fleetgate.device"),
        ("fleetgate.device.provision", "from fleetgate.pki import csr"),
        ("fleetgate.device.provision", "from fleetgate.store import engine"),
        ("fleetgate.pytest_plugin", "import fleetgate.cli"),
        ("fleetgate.demo", "import fleetgate.cli"),
        ("fleetgate.domain.policy", "def f():\n    from fleetgate.store import engine"),
        ("fleetgate.domain.policy", "if TYPE_CHECKING:\n    from fleetgate.store import engine"),
        ("fleetgate.domain.policy", "from ..store import engine"),
        ("fleetgate.domain.policy", "from .. import store"),
        ("fleetgate.domain.policy", "importlib.import_module('fleetgate.store.engine')"),
        ("fleetgate.domain.policy", "__import__('fleetgate.store.engine')"),
        ("fleetgate", "from fleetgate.server import x"),
        ("fleetgate.newlayer.thing", "x = 1"),
    ],
)
def test_an_import_against_the_direction_is_found(module: str, source: str) -> None:
    assert len(wrong_directions(module, source)) == 1


def test_a_relative_import_in_a_package_is_resolved() -> None:
    assert wrong_directions("fleetgate.domain", "from ..store import x", package=True)
    assert not wrong_directions("fleetgate.domain", "from .policy import x", package=True)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fleetgate.domain.policy", "from fleetgate.domain.document import quoted"),
        ("fleetgate.domain.policy", "from .document import quoted"),
        ("fleetgate.pki.csr", "from fleetgate.errors import InvalidCsr\nimport cryptography.x509"),
        ("fleetgate.operations.things", "from fleetgate.store import things"),
        ("fleetgate.gateway.mqtt", "from fleetgate.broker.session import Session"),
        ("fleetgate.gateway.rest", "from fleetgate import __version__"),
        ("fleetgate.device.provision", "from fleetgate.mqtt.connection import Connection"),
        ("fleetgate.server", "from fleetgate.settings import Settings"),
        ("fleetgate.cli", "import fleetgate.device.provision"),
    ],
)
def test_an_import_along_the_direction_is_not_found(module: str, source: str) -> None:
    assert wrong_directions(module, source) == []


@pytest.mark.parametrize("layer", sorted(PURE))
@pytest.mark.parametrize("name", sorted(IMPURE_MODULES))
def test_an_impure_import_is_found(layer: str, name: str) -> None:
    module = f"fleetgate.{layer}.x"
    assert impurities(module, f"import {name}")
    assert impurities(module, f"def f():\n    from {name} import x")
    assert not impurities("fleetgate.store.x", f"import {name}")


@pytest.mark.parametrize(
    "source",
    [
        "datetime.now(UTC)",
        "datetime.datetime.utcnow()",
        "date.today()",
        "x509.random_serial_number()",
        "ec.generate_private_key(curve)",
        "open('f')",
        "importlib.import_module('os')",
    ],
)
def test_a_clock_randomness_or_a_file_in_a_pure_layer_is_found(source: str) -> None:
    assert impurities("fleetgate.pki.issue", source)


@pytest.mark.parametrize("source", ["import datetime", "import urllib.parse", "x = now", "f(now)"])
def test_a_value_in_a_pure_layer_is_not_found(source: str) -> None:
    assert impurities("fleetgate.pki.issue", source) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fleetgate.store.schema", "from sqlalchemy import Table"),
        ("fleetgate.demo", "import sqlalchemy"),
        ("fleetgate.server", "from psycopg import errors"),
        ("fleetgate.wire.model", "import botocore.model"),
        ("fleetgate.cli", "def f():\n    import boto3"),
        ("fleetgate.functions.webhook", "def f():\n    import boto3"),
    ],
)
def test_a_slow_library_out_of_place_is_found(module: str, source: str) -> None:
    assert reserved_imports(module, source)


def test_the_demo_may_be_a_client() -> None:
    for module in ("fleetgate.demo", "fleetgate.functions.lambda_endpoint"):
        assert reserved_imports(module, "import boto3, botocore.config") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fleetgate.store.base", ""),
        ("fleetgate.store.sql_helpers", ""),
        ("fleetgate.utils.thing", ""),
        ("fleetgate.store.things", "class ThingManager: ..."),
        ("fleetgate.store.things", "def f():\n    class StoreBase: ..."),
        ("fleetgate.store.things", "class ThingInfo: ..."),
    ],
)
def test_an_empty_name_is_found(module: str, source: str) -> None:
    assert len(empty_names(module, source)) == 1


def test_a_name_that_says_something_is_not_found() -> None:
    assert empty_names("fleetgate.store.database", "class Database: ...\nclass Thing: ...") == []


def test_a_file_over_the_limit_is_found_and_the_long_ones_are_listed() -> None:
    assert not too_long({"a": 10, "b": MAX_LINES})
    report = too_long({"small": 10, "long": 450, "huge": MAX_LINES + 1})
    assert "601 huge (over the limit)" in report
    assert "450 long" in report
    assert "small" not in report


# --- requirements ---------------------------------------------------------------------------------


def pins(text: str) -> dict[str, str]:
    """Requirement (with its marker) -> its hashes, from a compiled requirements file."""
    joined = text.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return {line.split("--hash")[0].strip(): line.partition("--hash")[2] for line in lines}


def loose(text: str) -> list[str]:
    """Lines of a requirements file that are not a pinned version with a hash."""
    return [
        name
        for name, hashes in pins(text).items()
        if not re.match(r"[a-z0-9-]+==[0-9][^ ]*( ;.*)?$", name) or "sha256:" not in hashes
    ]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-test.txt"])
def test_requirements_are_pinned_with_hashes_and_name_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert loose(text) == []
    assert "://" not in text


def test_the_test_requirements_hold_everything_of_the_runtime() -> None:
    runtime, test = (
        {(name.partition(" ;")[0], hashes) for name, hashes in pins(text).items()}
        for text in ((ROOT / f).read_text() for f in ("requirements.txt", "requirements-test.txt"))
    )
    assert runtime - test == set()


@pytest.mark.parametrize(
    "line",
    [
        "typer==1.0",
        "typer>=1.0 --hash=sha256:00",
        "--index-url address --hash=sha256:00",
        "typer @ file:///x --hash=sha256:00",
    ],
)
def test_a_loose_requirement_is_found(line: str) -> None:
    assert loose(line + "\n")

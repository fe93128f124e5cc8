"""What the process of a function finds around it: command, environment, files, limits.

Nothing is passed on from the server but what is named here.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from fleetgate.functions.program import Program

PYTHON_RUNTIMES: Final = tuple(f"python3.{minor}" for minor in range(9, 15))
"""All are run by the interpreter of the server."""

NODE_RUNTIMES: Final = tuple(f"nodejs{major}.x" for major in (18, 20, 22, 24))
"""All are run by the ``node`` of the server's PATH."""

SEARCH: Final = "/usr/local/bin:/usr/bin:/bin"
"""The PATH of functions."""

OPEN_FILES: Final = 1024
DISK_BYTES: Final = 512 << 20
"""Of the temporary directory, and of one file. Source of both: Lambda quotas, "File descriptors"
and "/tmp"."""
PROCESSES: Final = 256
"""With threads, of one process and all it started; Lambda has 1024."""

_OVERHEAD: Final = {"python": 32, "nodejs": 160}  # megabytes of the runtime itself
_SLACK: Final = 128 << 20
"""Bytes by which one process may go past the limit that holds for it and all it started, until it
is looked at: stacks of threads are counted here whole, and there as far as they are used."""
_NICE: Final = 10  # devices and the API come first

_SYSTEM: Final = (
    *("/bin", "/lib", "/lib32", "/lib64", "/sbin", "/usr"),
    *("/etc/alternatives", "/etc/ca-certificates", "/etc/crypto-policies", "/etc/gai.conf"),
    *("/etc/group", "/etc/host.conf", "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.conf"),
    *("/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/localtime", "/etc/mime.types"),
    *("/etc/nsswitch.conf", "/etc/passwd", "/etc/pki/ca-trust", "/etc/pki/tls/certs"),
    *("/etc/pki/tls/openssl.cnf", "/etc/protocols", "/etc/resolv.conf", "/etc/services"),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/timezone"),
    *("/dev/random", "/dev/urandom", "/dev/zero"),
    *("/sys/devices/system/cpu", "/proc/meminfo", "/proc/cpuinfo"),
)
"""What programs need of a system; of /etc what holds no secret."""
_DEVICES: Final = ("/dev/null", "/dev/full")  # what is written to /dev/zero is shared memory
_PASSED_ON: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, slots=True)
class House:
    """What holds for all functions of a server.

    `hidden` are the files and directories no function may reach. With `interface_client` AWS's
    runtime interface client runs Python, else our own bootstrap does.
    """

    hidden: tuple[Path, ...] = ()
    interface_client: bool = True


@cache
def node() -> str | None:
    """The Node that runs functions, if there is one."""
    found = shutil.which("node")
    return str(Path(found).resolve()) if found else None


@cache
def has_interface_client() -> bool:
    """Whether AWS's runtime interface client (awslambdaric) is installed beside the server."""
    return find_spec("awslambdaric") is not None


def runtimes() -> tuple[str, ...]:
    """Lambda's names of the runtimes that are there: ``python3.12``, ``nodejs20.x``."""
    return PYTHON_RUNTIMES + (NODE_RUNTIMES if node() else ())


def plan(program: Program, house: House, stream: str, temporary: Path) -> dict[str, Any]:
    """What a launcher (functions/launcher.py) is sent.

    `stream` is the name of the log stream, `temporary` the directory that is the process's own.
    The launcher adds the address of the runtime API to the environment.
    """
    kind = "nodejs" if program.runtime.startswith("nodejs") else "python"
    directory = program.directory or (program.search_path or (Path("/"),))[0]
    memory = (program.memory_megabytes + _OVERHEAD[kind]) << 20
    return {
        "command": _command(program, kind, house, directory),
        "environment": environment(program, stream, temporary, directory),
        "directory": str(directory),
        "limits": {
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": OPEN_FILES,
            "RLIMIT_FSIZE": DISK_BYTES,
            "RLIMIT_DATA": memory + _SLACK,
        },
        "memory": memory,
        "processes": PROCESSES,
        "disk": DISK_BYTES,
        "nice": _NICE,
        "confinement": _confinement(program, house, temporary),
        "remove": str(temporary),
    }


def environment(program: Program, stream: str, temporary: Path, directory: Path) -> dict[str, str]:
    """The environment of a function: its own variables, Lambda's, and none of the server's.

    Its own come before all but the reserved ones, which are refused where functions are made.
    Source: Lambda developer guide, "Defined runtime environment variables".
    """
    region = program.arn.split(":")[3] if program.arn.count(":") > 3 else ""
    return {
        "PATH": SEARCH,
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        **program.environment,
        "AWS_DEFAULT_REGION": region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{program.runtime}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(program.memory_megabytes),
        "AWS_LAMBDA_FUNCTION_NAME": program.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{program.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
        "AWS_REGION": region,
        "LAMBDA_RUNTIME_DIR": str(Path(__file__).parent),
        "LAMBDA_TASK_ROOT": str(directory),
        "_HANDLER": program.handler,
    }


def launcher() -> list[str]:
    """The command of the launcher: isolated, without site-packages, so that it starts quickly."""
    root = str(Path(__file__).parents[2])
    code = f"import sys; sys.path.append({root!r}); from fleetgate.functions.launcher import main"
    return [sys.executable, "-I", "-S", "-B", "-c", f"{code}; main()"]


def _command(program: Program, kind: str, house: House, directory: Path) -> list[str]:
    if kind == "nodejs":
        heap = f"--max-old-space-size={program.memory_megabytes}"
        return [node() or "node", heap, str(_bootstrap("bootstrap.mjs"))]
    client = "awslambdaric" if house.interface_client and has_interface_client() else "own"
    paths = [str(path) for path in program.search_path] or [str(directory)]
    # -P: the directory of the bootstrap is none to import from; -B: nor is code to be written to
    return [sys.executable, "-P", "-B", str(_bootstrap("bootstrap.py")), client, *paths]


def _bootstrap(name: str) -> Path:
    return Path(__file__).with_name(name)


def _confinement(program: Program, house: House, temporary: Path) -> Mapping[str, object]:
    """Uploaded code reaches what it needs, the operator's own all but what is hidden."""
    hidden = [_real(path) for path in house.hidden]
    whole = program.directory is None
    read = []
    if program.directory is not None:
        read = [*_SYSTEM, *_installation(), str(program.directory)]
        read += [os.environ[name] for name in _PASSED_ON if name in os.environ]
    else:
        # code that lies in what is hidden is named, so that it can be imported
        package = program.handler.partition(".")[0]
        for path in program.search_path:
            read += [str(path / package), str(path / f"{package}.py")]
    return {
        "whole": whole,
        "read": sorted({_real(Path(path)) for path in read}),
        "write": [_real(temporary), *([] if whole else _DEVICES)],
        "hidden": hidden,
    }


def _installation() -> list[str]:
    """The files of Python with its packages, of Node, and of our bootstraps."""
    places = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    places |= {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found = [*places, str(Path(sys.executable).resolve())]
    found += [str(_bootstrap("bootstrap.py")), str(_bootstrap("bootstrap.mjs"))]
    if (here := node()) is not None:
        # bin/node, with lib beside it; a node on its own is named alone
        beside = Path(here).parent.parent
        found += [here, *([str(beside)] if (beside / "include" / "node").is_dir() else [])]
    return [place for place in found if place != "/"]


def _real(path: Path) -> str:
    return os.path.realpath(path)

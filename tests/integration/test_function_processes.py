"""The processes of functions, beside a real server: its secrets, a reset, its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from fleetgate.server import GRACE
from tests.functions.programs import PYTHON, eventually, is_alive, parent
from tests.functions.test_unpacking import zipped
from tests.integration.fleet import create_role
from tests.integration.server import Server, http

SEARCH = """
import os
places = {places}
result = {{"pid": os.getpid(), "launcher": os.getppid(), "read": [],
    "names": [each for each in os.environ if "FLEETGATE" in each or "SECRET" in each]}}
for place in places:
    try:
        with open(place, "rb") as file:
            file.read(1)
        result["read"].append(place)
    except OSError:
        pass
"""
SECRET = {
    "AWS_SECRET_ACCESS_KEY": "SECRET",
    "FLEETGATE_LOG_LEVEL": "info",
    "DATABASE_SECRET": "SECRET",
}


def asked(functions: Any, name: str, code: str) -> Any:
    answer = functions.invoke(FunctionName=name, Payload=json.dumps({"code": code}))
    payload = answer["Payload"].read()
    assert "FunctionError" not in answer, payload
    return json.loads(payload)


def below(pid: int) -> list[int]:
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            parents[int(process.name)] = parent(int(process.name))
    found = [pid]
    for each in found:
        found += [child for child, above in parents.items() if above == each]
    return found[1:]


def is_in_a_namespace(pid: int) -> bool:
    return os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid")  # noqa: PTH115


def test_no_function_reaches_the_secrets_of_the_server_and_none_outlives_it(tmp_path: Path) -> None:
    (tmp_path / "company").mkdir()
    (tmp_path / "company" / "hooks.py").write_text(PYTHON)
    file = tmp_path / "fleetgate.toml"
    file.write_text('allow_reset = true\n[functions]\nown = "python:company.hooks:run"\n')
    server = Server(tmp_path / "data", env=SECRET)
    with server:
        functions = server.client("lambda")
        functions.create_function(
            FunctionName="uploaded",
            Role=create_role(server, "Lambda", trust="lambda.amazonaws.com"),
            Runtime="python3.12",
            Handler="app.run",
            Code={"ZipFile": zipped(("app.py", PYTHON.encode()))},
        )
        secrets = [str(path) for path in server.data.rglob("*") if path.is_file()]
        assert any(path.endswith("ca.key") for path in secrets), secrets
        places = [f"/proc/{server.pid}/environ", f"/proc/{server.pid}/mem", str(file), *secrets]
        search = SEARCH.format(places=places)
        found = {name: asked(functions, name, search) for name in ("own", "uploaded")}
        for each in found.values():
            assert each["names"] == []
            # but for the code of the one that was uploaded
            assert [path for path in each["read"] if not path.endswith("/app.py")] == []
        assert found["own"]["read"] == []

        uploaded = next(pid for pid in below(server.pid) if is_in_a_namespace(pid))
        # a reset ends what was uploaded, and nothing else
        assert http(f"{server.http_url}/_fleetgate/reset", method="POST").status == 200
        assert eventually(lambda: not is_alive(uploaded))
        assert asked(functions, "own", "import os; result = os.getpid()") == found["own"]["pid"]
        functions.close()
        server.kill()
    assert eventually(lambda: not is_alive(found["own"]["pid"]))
    assert eventually(lambda: not is_alive(found["own"]["launcher"]))
    assert os.listdir(tmp_path / "data" / "functions") == []  # noqa: PTH208


def test_a_long_run_is_told_that_the_server_stops(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PYTHON)
    began = tmp_path / "notes" / "began"  # beside the data directory it may make nothing
    began.parent.mkdir()
    heard: list[Any] = []

    def ask(functions: Any) -> None:
        code = f"open({str(began)!r}, 'w').close(); import time; time.sleep(60)"
        try:
            functions.invoke(FunctionName="own", Payload=json.dumps({"code": code}))
        except Exception as error:
            heard.append(error)

    file = tmp_path / "fleetgate.toml"
    file.write_text('[functions]\nown = { python = "app:run", timeout = 60 }\n')
    with (
        Server(tmp_path / "data", env={"FLEETGATE_CONFIG": str(file)}) as server,
        closing(server.client("lambda")) as functions,
    ):
        asking = threading.Thread(target=ask, args=(functions,))
        asking.start()
        assert eventually(began.exists)
        stopping = time.monotonic()
        assert server.terminate() == 0
        assert time.monotonic() - stopping < GRACE
        asking.join()
    (error,) = heard
    assert isinstance(error, ClientError), error
    assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert error.response["Error"]["Code"] == "ServiceUnavailableException"
    assert error.response["Error"]["Message"] == "the server is stopping"
    assert not re.findall(
        r"^.*(?:Traceback|ERROR|WARNING|defect).*$", server.output(), re.MULTILINE
    )

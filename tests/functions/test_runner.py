"""All functions of a server: those of the configuration, uploaded ones, their code."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from fleetgate.errors import Error
from fleetgate.functions.configured import BuiltIn, Configured, PythonFunction, Webhook
from fleetgate.functions.program import Program
from fleetgate.functions.runner import Functions, files_of, not_found, runtimes
from fleetgate.functions.target import Failure, FunctionError, Target
from tests.functions.programs import ARN, write_code
from tests.functions.test_unpacking import zipped

CODE = b"def f(event, context): return [event, %r]\n"


def program(directory: Path, revision: str) -> Program:
    return Program("f", ARN, runtimes()[0], "app.f", "uploaded for a test", directory, revision)


async def answer(target: Target) -> object:
    run = await target.invoke(b"1", request_id="r", seconds=20)
    assert not run.error, run
    return json.loads(run.payload)


def test_functions_of_the_configuration(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_code(tmp_path / "company")
    (tmp_path / "company" / "__init__.py").touch()
    here = (tmp_path,)
    configured: dict[str, Configured] = {
        "there": PythonFunction("company.app", "echo", search_path=here),
        "missing": PythonFunction("company.gone", "f", search_path=here),
        "list": BuiltIn("allow-list", {"file": "x"}),
    }
    caplog.set_level(logging.INFO, "fleetgate.functions")

    async def scenario() -> None:
        functions = Functions(configured, arn="arn:{}".format, hidden=[tmp_path / "data"])
        try:
            await functions.start()
            # what needs the registry is made elsewhere
            assert set(functions.targets) == {"there", "missing"}
            assert functions.targets["there"].description == "python:company.app:echo"
            assert await answer(functions.targets["there"]) == {"event": 1}
            run = await functions.targets["missing"].invoke(b"1", request_id="r", seconds=20)
            assert json.loads(run.payload)["errorMessage"] == (
                "Unable to import module 'company.gone': No module named 'company.gone'"
            )
        finally:
            await functions.close()

    asyncio.run(scenario())
    (warned,) = [each for each in caplog.messages if "event=function-not-found" in each]
    assert warned.startswith(
        "event=function-not-found function=missing cause='there is no module `company.gone` in "
        f"`{tmp_path / 'company'}`"
    )


def test_looking_for_a_module_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "loud").mkdir()
    (tmp_path / "loud" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "loud" / "hooks.py").write_text("raise SystemExit('imported')\n")
    found = PythonFunction("loud.hooks", "f", search_path=(tmp_path,))
    assert not_found(found) == ""
    assert not_found(replace(found, module="json.decoder", search_path=())) == ""
    assert "there is no module `loud.hooks.deeper`" in not_found(
        replace(found, module="loud.hooks.deeper")
    )


def test_a_webhook_that_can_never_work_stops_the_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        functions = Functions({"erp": Webhook("https://erp.example", tmp_path / "no.key")})
        with pytest.raises(Error, match=r"functions: `erp`: .*no\.key"):
            await functions.start()
        await functions.close()

    asyncio.run(scenario())


def test_a_directory_of_modules_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        nowhere = tmp_path / "nowhere"
        functions = Functions({"f": PythonFunction("a", "f", search_path=(tmp_path, nowhere))})
        with pytest.raises(
            Error, match=f"functions: `f`: `path`: there is no directory `{nowhere}`"
        ):
            await functions.start()
        await functions.close()

    asyncio.run(scenario())


def test_files_of_the_configuration_are_hidden_from_functions(tmp_path: Path) -> None:
    for name in ("erp.key", "client.key", "ca-key.pem"):
        (tmp_path / name).touch()
    hook = Webhook("https://x", tmp_path / "erp.key", client_key=tmp_path / "client.key")
    assert files_of(hook) == [tmp_path / "erp.key", tmp_path / "client.key"]
    signer = BuiltIn("local-ca", {"key": "ca-key.pem", "days": 3, "name": "x"}, tmp_path)
    assert files_of(signer) == [tmp_path / "ca-key.pem"]
    assert files_of(PythonFunction("a", "b")) == []


def test_uploaded_code_comes_and_goes(tmp_path: Path) -> None:
    directory = tmp_path / "functions"
    (directory / "left-behind").mkdir(parents=True)
    zips = {each: zipped(("app.py", CODE % each)) for each in ("one", "two")}
    read: list[str] = []

    async def scenario() -> None:
        functions = Functions(directory=directory)

        async def found(name: str) -> Target:
            async def zip_file() -> bytes:
                read.append(name)
                return zips[name]

            sha256 = base64.b64encode(hashlib.sha256(zips[name]).digest()).decode()
            return functions.uploaded(program(await functions.code(sha256, zip_file), name))

        try:
            await functions.start()
            assert not directory.exists()
            targets = await asyncio.gather(*(found("one") for _ in range(5)))
            assert len(set(map(id, targets))) == 1
            assert read == ["one"]
            first = targets[0]
            assert await answer(first) == [1, "one"]
            second = await found("two")
            assert await answer(second) == [1, "two"]
            # who has looked up the one before may still ask it, for a moment
            assert await answer(first) == [1, "one"]
            assert len(list(directory.iterdir())) == 2
            functions.forget("f")
            await functions.reset()
            assert not list(directory.iterdir())
            with pytest.raises(FunctionError, match="it was ended"):
                await answer(second)
        finally:
            await functions.close()

    asyncio.run(scenario())


def test_a_replaced_function_ends_by_itself(tmp_path: Path) -> None:
    made = zipped(("app.py", CODE % "one"))

    async def scenario() -> None:
        functions = Functions(last_calls=0.05)

        async def zip_file() -> bytes:
            return made

        sha256 = base64.b64encode(hashlib.sha256(made).digest()).decode()
        try:
            code = await functions.code(sha256, zip_file)
            first = functions.uploaded(program(code, "1"))
            assert await answer(first)
            second = functions.uploaded(program(code, "2"))
            await asyncio.sleep(0.2)
            with pytest.raises(FunctionError, match="it was ended"):
                await answer(first)
            # the code is in use by the other one
            assert await answer(second) == [1, "one"]
            functions.forget("f")
            while code.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            await functions.close()
        assert not code.parent.exists()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_code_that_cannot_be_unpacked_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        functions = Functions(directory=tmp_path / "functions")

        async def zip_file() -> bytes:
            return zipped(("../up", b""))

        with pytest.raises(FunctionError, match=r"entry `../up` of the zip") as found:
            await functions.code(base64.b64encode(bytes(32)).decode(), zip_file)
        assert found.value.kind is Failure.NOT_STARTED
        await functions.close()

    asyncio.run(scenario())


def test_unpacked_code_takes_no_more_room_than_it_may(tmp_path: Path) -> None:
    directory = tmp_path / "functions"
    code = b"import time\ndef f(event, context): return [time.sleep(event), %r]\n"
    zips = {
        each: zipped(("app.py", code.replace(b"%r", repr(each).encode())), ("data", bytes(10**6)))
        for each in "abcd"
    }
    clock = [0.0]

    async def scenario() -> None:
        functions = Functions(directory=directory, clock=lambda: clock[0])

        async def found(name: str) -> Target:
            async def zip_file() -> bytes:
                return zips[name]

            clock[0] += 10
            sha256 = base64.b64encode(hashlib.sha256(zips[name]).digest()).decode()
            place = await functions.code(sha256, zip_file, most_together=2_500_000)
            return functions.uploaded(replace(program(place, "1"), name=name))

        async def asked(target: Target, nap: str = "0") -> object:
            run = await target.invoke(nap.encode(), request_id="r", seconds=20)
            return json.loads(run.payload)[1]

        def there() -> int:
            return len(list(directory.iterdir()))

        try:
            first = await found("a")
            assert await asked(first) == "a"
            assert await asked(await found("b")) == "b"
            await found("a")
            # the one that was used longest ago has to go, with its processes
            assert await asked(await found("c")) == "c"
            assert there() == 2
            assert await asked(first) == "a"
            # what runs stays
            nap = asyncio.create_task(asked(first, "0.6"))
            await asyncio.sleep(0.1)
            busy = asyncio.create_task(asked(await found("c"), "0.6"))
            await asyncio.sleep(0.1)
            with pytest.raises(FunctionError, match="the limit `function_unpacked` is 2500000"):
                await found("d")
            assert there() == 2
            assert (await nap, await busy) == ("a", "c")
            assert await asked(await found("d")) == "d"
        finally:
            await functions.close()

    asyncio.run(scenario())

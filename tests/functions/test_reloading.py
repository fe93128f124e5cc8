"""``python:`` functions whose code changes while the server runs. Rules: docs/functions.md."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path

import pytest

from fleetgate.functions.configured import PythonFunction
from fleetgate.functions.reloading import Sources
from fleetgate.functions.runner import Functions
from fleetgate.functions.target import Target

HOOKS = """
import os, time
from company import rules
from . import places
def f(event, context):
    if event == "slow":
        open({started!r}, "w").close()
        time.sleep(0.5)
    return [os.getpid(), {number}, rules.NUMBER, places.NUMBER]
"""


def write(directory: Path, number: int, rules: int, places: int = 0) -> None:
    """The package; each file is exchanged by renaming, as editors do."""
    files = {
        "hooks.py": HOOKS.format(number=number, started=str(directory / "started")),
        "rules.py": f"import other\nNUMBER = {rules} + other.NUMBER\n",
        "places/__init__.py": f"NUMBER = {places}\n",
        "unrelated.py": f"NUMBER = {number}\n",
    }
    (directory / "company" / "places").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        file = directory / "company" / name
        if not file.exists() or file.read_text() != text:
            file.with_suffix(".new").write_text(text)
            file.with_suffix(".new").rename(file)


async def answer(target: Target, event: object = 1) -> list[int]:
    run = await target.invoke(json.dumps(event).encode(), request_id="r", seconds=20)
    assert not run.error, run
    found: list[int] = json.loads(run.payload)
    return found


def test_changed_code_is_run_from_the_next_event_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fleetgate.functions")
    write(tmp_path, 1, 10)
    (tmp_path / "other.py").write_text("NUMBER = 0\n")
    configured = PythonFunction("company.hooks", "f", search_path=(tmp_path,), concurrency=2)

    async def scenario() -> None:
        functions = Functions({"f": configured})
        try:
            await functions.start()
            target = functions.targets["f"]
            pid, *told = await answer(target)
            assert told == [1, 10, 0]
            assert (await answer(target))[0] == pid
            slow = asyncio.create_task(answer(target, "slow"))
            while not (tmp_path / "started").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            write(tmp_path, 2, 10)
            # what is under way goes on to its end, with the code it began with
            new = await answer(target)
            assert new[1:] == [2, 10, 0]
            assert not slow.done()
            assert await slow == [pid, 1, 10, 0]
            write(tmp_path, 2, 20, 5)  # what it imports counts as well, directly or not
            third = await answer(target)
            assert third[1:] == [2, 20, 5]
            (tmp_path / "other.py").write_text("NUMBER = 700\n")
            assert (await answer(target))[1:] == [2, 720, 5]
            (tmp_path / "company" / "unrelated.py").write_text("\n")
            last = await answer(target)
            assert last == await answer(target)
        finally:
            await functions.close()

    asyncio.run(scenario())
    told = [each for each in caplog.messages if "event=function-changed " in each]
    assert told == [
        f"event=function-changed function=f target='python:company.hooks:f' file={str(file)!r}"
        for file in (
            tmp_path / "company" / "hooks.py",
            tmp_path / "company" / "rules.py",
            tmp_path / "other.py",
        )
    ]


def test_what_is_watched(tmp_path: Path) -> None:
    code = tmp_path / "code"
    (code / "a" / "deep").mkdir(parents=True)
    files = {
        "a/__init__.py": "",
        "a/hooks.py": "import json, missing, b.c\nfrom .deep import x\nfrom .. import up\n"
        "def f():\n    from a import late\n",
        "a/deep/__init__.py": "from ..hooks import f\n",
        "a/deep/x.py": "import a.broken",
        "a/late.py": "",
        "a/broken.py": "def (:\n",
        "a/apart.py": "",
        "b/c.py": "import json.decoder, pytest",
    }
    (code / "b").mkdir()
    for name, text in files.items():
        (code / name).write_text(text)
    sources = Sources("a.hooks", [code])
    first = sources.look()
    assert {str(each.relative_to(code)) for each in sources.files} == files.keys() - {"a/apart.py"}
    assert sources.look() == first
    assert sources.changed == code / "a" / "__init__.py"
    os.utime(code / "b" / "c.py", ns=(0, 0))
    assert sources.look() != first
    assert sources.changed == code / "b" / "c.py"
    second = sources.look()
    (code / "a" / "late.py").unlink()
    assert sources.look() != second
    assert code / "a" / "late.py" not in sources.files
    # a module that comes later
    none = Sources("later", [code])
    gone = none.look()
    (code / "later.py").write_text("")
    assert none.look() != gone
    # one that is installed beside the server; what it imports of other packages is not its own
    installed = Sources("pytest", [code])
    installed.look()
    assert str(next(iter(installed.files))).endswith("pytest/__init__.py")
    assert not [each for each in installed.files if each.parent.name != "pytest"]


def test_a_module_that_takes_itself_for_many(tmp_path: Path) -> None:
    """No code makes looking at it take long."""
    for at in range(40):
        (tmp_path / f"m{at}.py").write_text("\n".join(f"import m{other}" for other in range(40)))
    sources = Sources("m0", [tmp_path], most=10)
    sources.look()
    assert len(sources.files) == 10
    assert Sources("m0", [tmp_path / "nowhere", *map(Path, sys.path[:1])]).look() == ""

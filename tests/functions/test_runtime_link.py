"""What a function does to its own runtime API: it costs the function its process, not the server.

The rest of what goes between server and launcher is in test_pool.py.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from fleetgate.functions import frames
from tests.functions.programs import ask, error, pool, value, write_code

CONNECT = """
import os, socket, threading, time
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
def flood(data):
    while True:
        try:
            with socket.create_connection((host, int(port))) as connection:
                for _ in range(100):
                    connection.sendall(data)
        except OSError:
            pass
"""
FLOODS = {
    "pipelined": (b"", b"GET /x HTTP/1.1\r\n\r\n", 1000),
    "headers": (b"GET /x HTTP/1.1\r\n", b"a:\r\n", 1 << 18),
    "chunks": (b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", 100_000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_function_that_floods_its_runtime_api_is_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level("WARNING", "fleetgate.functions")
    begin, again, times = FLOODS[name]
    flood = f"""
for _ in range(4):
    data = {begin!r} + {again!r} * {times}
    threading.Thread(target=flood, args=[data], daemon=True).start()
"""

    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before)

    async def scenario() -> None:
        target = pool(write_code(tmp_path))
        watching = asyncio.create_task(watch())
        try:
            kind, message = await error(target, f"{CONNECT}{flood}\ntime.sleep(20)")
            assert kind == "Runtime.ExitError"
            assert message.endswith("Error: Runtime exited with error: signal: killed")
            assert await value(target, "result = 1") == 1
        finally:
            watching.cancel()
            await target.close()

    asyncio.run(scenario())
    (told,) = [each for each in caplog.messages if each.startswith("event=function-ended ")]
    assert "cause='connections and requests to the runtime API that bring nothing: " in told
    # in all that time the server had next to nothing to do; other processes of the machine had
    assert longest < 0.5


def test_answers_of_any_size_come_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        target = pool(write_code(tmp_path), function="echo")
        try:
            for size in (0, 70_000, 6_000_000):
                run = await ask(target, "x" * size)
                assert len(run.payload) > size
                assert not run.error
        finally:
            await target.close()

    asyncio.run(scenario())


def test_a_runtime_that_ends_right_after_its_answer_has_answered(tmp_path: Path) -> None:
    code = f"""{CONNECT}
body = b'"' + b"x" * 3000000 + b'"'
head = "POST /2018-06-01/runtime/invocation/request-1/response HTTP/1.1\\r\\n"
head += f"Content-Length: {{len(body)}}\\r\\n\\r\\n"
with socket.create_connection((host, int(port))) as connection:
    connection.sendall(head.encode() + body)
    os._exit(0)
"""

    async def scenario() -> None:
        target = pool(write_code(tmp_path))
        try:
            for _ in range(3):
                run = await ask(target, code)
                assert (len(run.payload), run.error) == (3000002, "")
        finally:
            await target.close()

    asyncio.run(scenario())


def test_a_frame_is_bounded() -> None:
    assert frames.sizes(frames.SIZES.pack(10, 100), 100) == (10, 100)
    with pytest.raises(ValueError, match="a frame of 10 and 101 bytes; at most 1048576 and 100"):
        frames.sizes(frames.SIZES.pack(10, 101), 100)
    with pytest.raises(ValueError, match="a frame of 1048577 and 0 bytes"):
        frames.sizes(frames.SIZES.pack((1 << 20) + 1, 0), 100)

"""Webhooks: what is sent, how its receiver knows that it is genuine, and what is an answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleetgate import __version__
from fleetgate.functions import webhook
from fleetgate.functions.configured import Webhook
from fleetgate.functions.target import Failure, FunctionError, Run
from tests.functions.https_server import NAME, Asked, Authority, local, response, serving
from tests.functions.webhook_receiver import Receiver, receiving

SECRET = "0123456789abcdef" * 4
EVENT = b'{"parameters": {"SerialNumber": "1"}}'


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "hook.key"
    file.write_text(f"{SECRET}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def make(authority: Authority, secret_file: Path) -> Callable[..., webhook.WebhookTarget]:
    """Makes targets for the server at a port."""

    def make(port: int, now: Callable[[], float] = time.time, **options: Any) -> Any:
        given: dict[str, Any] = {"allow_networks": ("127.0.0.1/32",), "ca_file": authority.file}
        url = f"https://{NAME}:{port}/hook?key=hush"
        configured = Webhook(url, secret_file, **(given | options))
        return webhook.target("erp", configured, now=now, resolve=local)

    return make


# --- the signature, seen from the other side ------------------------------------------------------


@pytest.fixture
def receiver(authority: Authority) -> Iterator[Receiver]:
    with receiving(authority, SECRET.encode()) as receiver:
        yield receiver


def test_a_receiver_knows_what_is_genuine(
    receiver: Receiver, make: Callable[..., webhook.WebhookTarget]
) -> None:
    port, is_genuine = receiver.port, receiver.is_genuine
    secret = SECRET.encode()

    async def work() -> None:
        run = await make(port).invoke(EVENT, request_id="request-1", seconds=5)
        assert json.loads(run.payload)["allowProvisioning"] is True
        assert run.error == ""
        late = make(port, now=lambda: time.time() - 301)
        run = await late.invoke(EVENT, request_id="request-2", seconds=5)
        assert run.error == "Unhandled"
        assert "status 401, not 200, with `who are you?`" in json.loads(run.payload)["errorMessage"]

    asyncio.run(work())
    headers, body = receiver.seen[0]
    assert body == EVENT
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == f"Fleetgate/{__version__}"
    assert headers["X-Fleetgate-Function"] == "erp"
    assert headers["X-Fleetgate-Request-Id"] == "request-1"
    assert abs(int(headers["X-Fleetgate-Timestamp"]) - time.time()) < 60
    assert re.fullmatch("[0-9a-f]{64}", headers["X-Fleetgate-Signature"])
    # whoever recorded it cannot use it for anything else
    assert is_genuine(secret, headers, body)
    assert not is_genuine(secret, headers, body.replace(b"1", b"2"))
    assert not is_genuine(b"x" * 64, headers, body)
    for name, value in [
        ("X-Fleetgate-Timestamp", str(int(headers["X-Fleetgate-Timestamp"]) + 1)),
        ("X-Fleetgate-Timestamp", "soon"),
        ("X-Fleetgate-Timestamp", ""),
        ("X-Fleetgate-Signature", "0" * 64),
        ("X-Fleetgate-Signature", "\u00e9"),
    ]:
        assert not is_genuine(secret, headers | {name: value}, body), (name, value)


def test_the_signature_is_that_of_rfc_2104() -> None:
    """Written out, without the `hmac` module."""
    key = SECRET.encode().ljust(64, b"\0")
    inner = hashlib.sha256(bytes(k ^ 0x36 for k in key) + b"1700000000." + EVENT).digest()
    outer = hashlib.sha256(bytes(k ^ 0x5C for k in key) + inner).hexdigest()
    assert webhook.signature(SECRET.encode(), "1700000000", EVENT) == outer


def test_a_new_secret_counts_from_the_next_request_on(
    authority: Authority, make: Callable[..., webhook.WebhookTarget], secret_file: Path
) -> None:
    async def work() -> None:
        async with serving(response(b"{}"), authority.issue(NAME)) as at:
            target = make(at.port, now=lambda: 1700000000.9)
            await target.invoke(EVENT, request_id="r", seconds=5)
            secret_file.write_text("f" * 32)  # noqa: ASYNC240 - a test
            await target.invoke(EVENT, request_id="r", seconds=5)
            secret_file.unlink()  # noqa: ASYNC240 - a test
            with pytest.raises(FunctionError, match="cannot be read: No such file") as caught:
                await target.invoke(EVENT, request_id="r", seconds=5)
            assert caught.value.kind == Failure.NOT_STARTED
            assert [asked.headers["x-fleetgate-timestamp"] for asked in at.asked] == [
                "1700000000"
            ] * 2
            assert [asked.headers["x-fleetgate-signature"] for asked in at.asked] == [
                webhook.signature(secret.encode(), "1700000000", EVENT)
                for secret in (SECRET, "f" * 32)
            ]

    asyncio.run(work())


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("x" * 31, 0o600, "holds 31 bytes, at least 32 are expected"),
        (" " * 40, 0o600, "is empty"),
        ("x" * 40, 0o640, "has mode 0640"),
        ("x" * 40, 0o604, "has mode 0604"),
        (None, 0, "cannot be read: No such file"),
    ],
)
def test_a_secret_that_cannot_be_used(
    content: str | None,
    mode: int,
    words: str,
    make: Callable[..., webhook.WebhookTarget],
    secret_file: Path,
) -> None:
    if content is None:
        secret_file.unlink()
    else:
        secret_file.write_text(content)
        secret_file.chmod(mode)
    with pytest.raises(ValueError, match=words) as caught:
        make(1)
    assert str(caught.value).startswith("`erp`: `secret_file`: ")
    assert "xxxx" not in str(caught.value)


# --- answers --------------------------------------------------------------------------------------


def invoked(answer: Any, make: Callable[..., Any], authority: Authority, **options: Any) -> Run:
    async def work() -> Run:
        async with serving(answer, authority.issue(NAME)) as at:
            run: Run = await make(at.port, **options).invoke(EVENT, request_id="r", seconds=5)
            return run

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        ("500 Oops", b"Traceback\nline 2", "status 500, not 200, with `Traceback line 2`"),
        ("204 No Content", b"", "status 204, not 200, with ``"),
        ("201 Created", b"{}", "status 201, not 200, with `{}`"),
        ("403 No", b"x" * 500, f"status 403, not 200, with `{'x' * 200}...`"),
    ],
)
def test_any_other_status_is_a_failure_of_the_function(
    status: str, body: bytes, words: str, make: Callable[..., Any], authority: Authority
) -> None:
    run = invoked(response(body, status), make, authority)
    assert run.error == "Unhandled"
    assert json.loads(run.payload)["errorType"] == "UnexpectedStatus"
    message = json.loads(run.payload)["errorMessage"]
    assert words in message
    assert f"https://{NAME}:" in message
    assert "hush" not in message


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"[1]", b"true", b"null", b'{"a": ', b"\xff{}", b"[" * 100_000]
)
def test_an_answer_is_a_json_object(
    body: bytes, make: Callable[..., Any], authority: Authority
) -> None:
    with pytest.raises(FunctionError, match="which is no JSON object") as caught:
        invoked(response(body), make, authority)
    assert caught.value.kind == Failure.MALFORMED


@pytest.mark.parametrize(
    ("answer", "options", "kind", "words"),
    [
        (response(b"x" * 2_000_000), {}, Failure.TOO_LARGE, "2000000 bytes, more than 131072"),
        (response(b"", "302 Found", "Location: /x\r\n"), {}, Failure.FAILED, "not followed"),
        (response(b"{}"), {"allow_networks": ()}, Failure.ADDRESS_REFUSED, "loopback"),
        (response(b"{}"), {"ca_file": None}, Failure.UNREACHABLE, "certificate"),
    ],
)
def test_what_gives_no_answer_names_the_function(
    answer: bytes,
    options: dict[str, Any],
    kind: Failure,
    words: str,
    make: Callable[..., Any],
    authority: Authority,
) -> None:
    with pytest.raises(FunctionError, match=words) as caught:
        invoked(answer, make, authority, **options)
    assert caught.value.kind == kind
    assert caught.value.message.startswith("function `erp`: https://")
    assert "hush" not in caught.value.message


def test_calls_beyond_the_bound_wait_and_their_waiting_counts(
    make: Callable[..., Any], authority: Authority
) -> None:
    async def slowly(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)
        writer.write(response(b"{}"))

    async def work() -> None:
        async with serving(slowly, authority.issue(NAME)) as at:
            target = make(at.port, concurrency=2)
            results = await asyncio.gather(
                *(target.invoke(EVENT, request_id="r", seconds=1) for _ in range(8)),
                return_exceptions=True,
            )
            assert len(at.asked) <= 6
            failed = [each for each in results if isinstance(each, FunctionError)]
            assert {each.kind for each in failed} <= {Failure.THROTTLED, Failure.TIMED_OUT}
            throttled = next(each for each in failed if each.kind == Failure.THROTTLED)
            assert "2 calls (concurrency) are under way" in throttled.message
            assert results[:2] == [Run(b"{}")] * 2
            # what timed out has given its place back
            assert await target.invoke(EVENT, request_id="r", seconds=5) == Run(b"{}")

    asyncio.run(work())


def test_the_time_of_the_function_counts_when_it_is_shorter(
    make: Callable[..., Any], authority: Authority
) -> None:
    async def never(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    with pytest.raises(FunctionError, match=r"no answer within 0\.1 s") as caught:
        invoked(never, make, authority, timeout_seconds=0.1)
    assert caught.value.kind == Failure.TIMED_OUT

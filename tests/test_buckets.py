"""Input files of bulk registrations: in directories, and of an S3 service (moto's server)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from moto.server import ThreadedMotoServer

from fleetgate.buckets import Buckets, open_below
from fleetgate.errors import InputFileError

T = TypeVar("T")


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await work()

    return asyncio.run(main())


def read_all(buckets: Buckets, key: str, bucket: str = "factory", count: int = 4) -> bytes:
    async def work() -> bytes:
        file = await buckets.open(bucket, key)
        try:
            found = b""
            while len(found) < file.size:
                found += await file.read(len(found), count)
            assert await file.read(file.size, count) == b""
            return found
        finally:
            file.close()

    return run(work)


def refused(buckets: Buckets, key: str, bucket: str = "factory") -> InputFileError:
    with pytest.raises(InputFileError) as caught:
        read_all(buckets, key, bucket)
    return caught.value


# --- directories ---------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "bucket/deep").mkdir(parents=True)
    (tmp_path / "bucket/in.jsonl").write_bytes(b"0123456789")
    (tmp_path / "bucket/deep/in.jsonl").write_bytes(b"deep")
    (tmp_path / "secret").write_text("secret")
    return tmp_path / "bucket"


@pytest.fixture
def buckets(directory: Path) -> Buckets:
    return Buckets({"factory": directory}, "", "us-east-1")


@pytest.mark.parametrize("key", ["in.jsonl", "deep/in.jsonl"])
def test_files_are_read_by_ranges(buckets: Buckets, directory: Path, key: str) -> None:
    assert read_all(buckets, key) == (directory / key).read_bytes()


@pytest.mark.parametrize(
    "key", ["../secret", "/etc/passwd", "deep/../in.jsonl", "./x", "a//b", "x/"]
)
def test_keys_that_could_leave_the_directory_are_refused(buckets: Buckets, key: str) -> None:
    assert "a part that is empty, `.` or `..`" in buckets.refusal("factory", key)
    assert "a part that is empty, `.` or `..`" in refused(buckets, key).message


def test_links_are_followed_inside_alone(buckets: Buckets, directory: Path) -> None:
    (directory / "inside").symlink_to("in.jsonl")
    (directory / "outside").symlink_to("../secret")
    (directory / "away").symlink_to("/etc")
    assert read_all(buckets, "inside") == b"0123456789"
    for key in ("outside", "away/passwd"):
        error = refused(buckets, key)
        assert "a link that leads out of the bucket's directory" in error.message
        assert not error.passing


def test_a_bucket_may_itself_be_a_link(directory: Path) -> None:
    (directory.parent / "link").symlink_to(directory)
    linked = Buckets({"factory": directory.parent / "link"}, "", "us-east-1")
    assert read_all(linked, "in.jsonl") == b"0123456789"


def test_what_is_no_file_is_refused(buckets: Buckets, directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    assert "is not a regular file" in refused(buckets, "fifo").message
    assert "is not a regular file" in refused(buckets, "deep").message
    for key in ("absent", "in.jsonl/x"):
        error = refused(buckets, key)
        assert error.message.startswith(f"`{key}` of bucket `factory` cannot be opened: N")
        assert not error.passing


@pytest.mark.parametrize("change", ["append", "rewrite"])
def test_a_file_that_is_changed_is_noticed(buckets: Buckets, directory: Path, change: str) -> None:
    async def work() -> None:
        file = await buckets.open("factory", "in.jsonl")
        try:
            assert await file.read(0, 4) == b"0123"
            path = directory / "in.jsonl"
            path.write_bytes(b"0123456789ab" if change == "append" else b"9876543210")
            os.utime(path, ns=(1, 1))  # the clock of a file system is coarse
            await file.read(4, 4)
        finally:
            file.close()

    with pytest.raises(InputFileError, match="was changed while") as caught:
        run(work)
    assert not caught.value.passing


def test_a_file_that_is_replaced_is_read_to_its_end(buckets: Buckets, directory: Path) -> None:
    async def work() -> bytes:
        file = await buckets.open("factory", "in.jsonl")
        try:
            (directory / "new").write_bytes(b"other")
            (directory / "new").replace(directory / "in.jsonl")
            return await file.read(0, 20)
        finally:
            file.close()

    assert run(work) == b"0123456789"


@pytest.mark.parametrize(
    ("what", "cause"),
    [("absent", "No such file or directory"), ("secret", "Not a directory")],
)
def test_a_directory_that_cannot_be_used_is_waited_for_and_told_at_the_start(
    directory: Path, caplog: pytest.LogCaptureFixture, what: str, cause: str
) -> None:
    path = directory.parent / what
    buckets = Buckets({"good": directory, "factory": path}, "", "us-east-1")
    buckets.check()
    assert caplog.messages == [
        f"event=bucket-unusable setting=buckets bucket=factory directory={path} cause={cause!r}"
    ]
    error = refused(buckets, "in.jsonl")
    assert error.message == f"the directory of bucket `factory` cannot be used: {cause}"
    assert error.__notes__ == [f"the setting `buckets` names {path}"]
    assert error.passing


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_may_not_be_read_may_be_read_later(what: str) -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as afterwards:
        directory = Path(name)
        (directory / "file").write_text("x")
        directory.chmod(0 if what == "directory" else 0o755)
        (directory / "file").chmod(0)
        afterwards.callback(directory.chmod, 0o755)
        if os.geteuid() == 0:
            afterwards.callback(os.seteuid, 0)
            os.seteuid(65534)  # root may read everything
        with pytest.raises(InputFileError, match="Permission denied") as caught:
            open_below(directory, "factory", "file")
    assert caught.value.passing


def test_a_bucket_nobody_knows(buckets: Buckets) -> None:
    assert buckets.refusal("absent", "x").startswith(
        "inputFileBucket `absent`: this server knows no such bucket; the setting `buckets` names "
        "`factory`"
    )
    assert buckets.refusal("factory", "x") == ""
    assert Buckets({}, "http://s3.example", "us-east-1").refusal("absent", "x") == ""


def test_no_thread_is_left(buckets: Buckets) -> None:
    read_all(buckets, "in.jsonl")
    for thread in threading.enumerate():
        if thread.name == "fleetgate-input":
            thread.join(5)
            assert thread.daemon


# --- S3 ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # where boto3 finds credentials
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    client = boto3.client("s3", endpoint_url=s3_url, region_name="us-east-1")
    client.create_bucket(Bucket="lamps")
    client.put_object(Bucket="lamps", Key="line 1/in.jsonl", Body=b"0123456789")
    yield client
    client.close()


def test_objects_are_read_by_ranges(s3: Any, s3_url: str, directory: Path) -> None:
    both = Buckets({"factory": directory}, s3_url, "us-east-1")
    assert read_all(both, "line 1/in.jsonl", "lamps") == b"0123456789"
    assert read_all(both, "in.jsonl") == b"0123456789"


def test_an_object_that_is_changed_is_noticed(s3: Any, s3_url: str) -> None:
    async def work() -> None:
        file = await Buckets({}, s3_url, "us-east-1").open("lamps", "line 1/in.jsonl")
        assert (file.size, await file.read(0, 4)) == (10, b"0123")
        s3.put_object(Bucket="lamps", Key="line 1/in.jsonl", Body=b"9876543210")
        await file.read(4, 4)

    with pytest.raises(InputFileError, match="was changed while"):
        run(work)


def test_an_object_that_is_not_there(s3: Any, s3_url: str) -> None:
    error = refused(Buckets({}, s3_url, "us-east-1"), "absent", "lamps")
    assert error.message == f"`absent` of bucket `lamps` at {s3_url} does not exist"
    assert (error.passing, error.no_bucket) == (False, False)


def test_a_bucket_the_service_does_not_have(s3: Any, s3_url: str, directory: Path) -> None:
    error = refused(Buckets({"factory": directory}, s3_url, "us-east-1"), "in.jsonl", "absent")
    assert error.message == (
        f"bucket `absent` does not exist at {s3_url}, and the setting `buckets` does not name it"
    )
    assert (error.passing, error.no_bucket) == (False, True)


def test_a_bucket_that_is_removed_meanwhile(s3: Any, s3_url: str) -> None:
    s3.create_bucket(Bucket="brief")
    s3.put_object(Bucket="brief", Key="in", Body=b"0123456789")

    async def work() -> None:
        file = await Buckets({}, s3_url, "us-east-1").open("brief", "in")
        s3.delete_object(Bucket="brief", Key="in")
        s3.delete_bucket(Bucket="brief")
        await file.read(0, 4)

    with pytest.raises(InputFileError, match=f"bucket `brief` does not exist at {s3_url}"):
        run(work)


def test_a_name_no_service_can_have_does_not_pass(s3: Any, s3_url: str) -> None:
    error = refused(Buckets({}, s3_url, "us-east-1"), "x", "b" * 256)
    assert "Invalid bucket name" in error.message
    assert "\n" not in error.message
    assert not error.passing


@pytest.mark.parametrize("missing", ["credentials", "profile"])
def test_credentials_that_are_missing_are_waited_for(
    s3: Any, s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    """They are found when they are there, without another start."""
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    if missing == "profile":
        monkeypatch.setenv("AWS_PROFILE", "default")
    buckets = Buckets({}, s3_url, "us-east-1")
    error = refused(buckets, "line 1/in.jsonl", "lamps")
    assert error.passing
    assert "profile (default)" in error.message or "credentials" in error.message
    file.write_text("[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\n")
    with file.open("a") as more:
        more.write("aws_secret_access_key = secret\n")
    assert read_all(buckets, "line 1/in.jsonl", "lamps") == b"0123456789"


def test_a_service_that_does_not_answer_may_answer_later(s3: Any) -> None:
    error = refused(Buckets({}, "http://127.0.0.1:1", "us-east-1"), "x", "lamps")
    assert error.passing
    assert "127.0.0.1:1" in error.message

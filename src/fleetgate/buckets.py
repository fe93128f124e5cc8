"""The files bulk registrations read: directories under the names of buckets, or an S3 service.

A bucket whose name is mapped to a directory is that directory: its files are the objects, their
paths below it the keys. Every other bucket is asked of the operator's S3 service when there is
one, with credentials from where boto3 finds them. boto3 is imported when it is needed and runs in
threads of its own, which do not keep the server from stopping.

Both notice that a file is not the one that was opened: by its size and time of change, by its
ETag (If-Match).

What the operator can put right (a setting, a directory, credentials) is an error that may pass: it
is looked at anew each time. What is asked for and not there is one that does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fleetgate.errors import InputFileError

T = TypeVar("T")

log = logging.getLogger("fleetgate.bulk")

_CONNECT_SECONDS, _READ_SECONDS = 5, 20
_CHANGED = ("412", "PreconditionFailed")
_GONE = ("404", "NoSuchKey", "NotFound")
_CREDENTIALS = ("ExpiredToken", "InvalidToken")
_PASSING = (401, 403, 429)  # credentials may be exchanged
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO)


class Buckets:
    """All buckets of a server: `directories` by name, and those of the S3 service at a URL."""

    def __init__(self, directories: Mapping[str, Path], s3_endpoint_url: str, region: str) -> None:
        self._directories = {name: path.absolute() for name, path in directories.items()}
        self._s3 = S3(s3_endpoint_url, region) if s3_endpoint_url else None

    def check(self) -> None:
        """Warns of the directories that cannot be used now."""
        for bucket, directory in self._directories.items():
            try:
                os.close(_open_directory(directory, bucket))
            except InputFileError as error:
                log.warning(
                    "event=bucket-unusable setting=buckets bucket=%s directory=%s cause=%r",
                    bucket,
                    directory,
                    error.__cause__.strerror if isinstance(error.__cause__, OSError) else "",
                )

    def refusal(self, bucket: str, key: str) -> str:
        """Why there can be no such file, whatever the buckets hold; "" when there can."""
        return _bad_key(key) or self._unknown(bucket)

    def _unknown(self, bucket: str) -> str:
        if bucket in self._directories or self._s3 is not None:
            return ""
        known = ", ".join(f"`{name}`" for name in self._directories) or "none"
        return (
            f"inputFileBucket `{bucket}`: this server knows no such bucket; the setting `buckets` "
            f"names {known}, and `s3_endpoint_url` is not set"
        )

    async def open(self, bucket: str, key: str) -> DirectoryFile | S3File:
        """Opens a file. Raises InputFileError."""
        refused = self.refusal(bucket, key)
        if refused:
            raise InputFileError(refused, passing=not _bad_key(key))
        directory = self._directories.get(bucket)
        if directory is not None:
            return await _aside(lambda: open_below(directory, bucket, key))
        assert self._s3 is not None  # noqa: S101 - else it was refused
        return await self._s3.open(bucket, key)


def _bad_key(key: str) -> str:
    if any(part in ("", ".", "..") for part in key.split("/")):
        return f"inputFileKey `{key}`: it has a part that is empty, `.` or `..`"
    return ""


# --- directories ---------------------------------------------------------------------------------


class DirectoryFile:
    """A file of a directory, open."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self.size, self.version = self._seen()

    async def read(self, offset: int, count: int) -> bytes:
        """The bytes at a position. Raises InputFileError."""
        return await _aside(lambda: self._read(offset, count))

    def close(self) -> None:
        """Closes it."""
        os.close(self._descriptor)

    def _read(self, offset: int, count: int) -> bytes:
        try:
            found = os.pread(self._descriptor, min(count, max(self.size - offset, 0)), offset)
        except OSError as error:
            raise InputFileError(
                f"{self._name} cannot be read: {error.strerror}", passing=True
            ) from None
        if self._seen() != (self.size, self.version):
            raise changed(self._name)
        return found

    def _seen(self) -> tuple[int, str]:
        found = os.fstat(self._descriptor)
        return found.st_size, f"{found.st_size}-{found.st_mtime_ns}"


def open_below(directory: Path, bucket: str, key: str) -> DirectoryFile:
    """Opens the file `key` below a directory. Raises InputFileError.

    Symbolic links are followed as long as they do not lead out of it.
    """
    name = f"`{key}` of bucket `{bucket}`"
    with contextlib.ExitStack() as at_last, contextlib.ExitStack() as undo:
        root = _open_directory(directory, bucket)
        at_last.callback(os.close, root)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a FIFO would block
        try:
            descriptor = os.open(key, flags, dir_fd=root)
        except OSError as error:
            raise InputFileError(
                f"{name} cannot be opened: {error.strerror}",
                passing=error.errno not in _NO_FILE,
            ) from None
        undo.callback(os.close, descriptor)
        # what was opened, whatever the links say by now
        if not _path_of(descriptor).is_relative_to(_path_of(root)):
            raise InputFileError(f"{name} is a link that leads out of the bucket's directory")
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputFileError(f"{name} is not a regular file")
        opened = DirectoryFile(descriptor, name)
        undo.pop_all()
        return opened


def _open_directory(directory: Path, bucket: str) -> int:
    """A descriptor of a bucket's directory; raises InputFileError, which may pass."""
    try:
        return os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        unusable = InputFileError(
            f"the directory of bucket `{bucket}` cannot be used: {error.strerror}", passing=True
        )
        unusable.add_note(f"the setting `buckets` names {directory}")
        raise unusable from error


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def changed(name: str) -> InputFileError:
    """What is told when a file is not the one that was opened."""
    return InputFileError(f"{name} was changed while the task was working on it")


# --- S3 ------------------------------------------------------------------------------------------


class S3:
    """An S3 service, by way of boto3."""

    def __init__(self, endpoint_url: str, region: str) -> None:
        self._endpoint_url = endpoint_url
        self._region = region
        self._client: Any = None
        self._making = threading.Lock()

    async def open(self, bucket: str, key: str) -> S3File:
        """Asks for size and ETag of an object. Raises InputFileError."""
        name = ObjectName(bucket, key, self._endpoint_url)

        def ask() -> S3File:
            try:
                with _told(name):
                    client = self._ready()
                    found = client.head_object(Bucket=bucket, Key=key)
                    return S3File(client, name, found["ContentLength"], found["ETag"])
            except InputFileError as error:
                if error.passing:
                    self._client = None  # it keeps the credentials it began with
                elif self._lacks(bucket):
                    raise _no_bucket(name) from None
                raise

        return await _aside(ask)

    def _lacks(self, bucket: str) -> bool:
        """Whether the service says that there is no such bucket; about objects it does not say."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._ready().head_bucket(Bucket=bucket)
        except ClientError as error:
            return error.response.get("Error", {}).get("Code", "") in ("404", "NoSuchBucket")
        except (BotoCoreError, OSError):
            pass
        return False

    def _ready(self) -> Any:
        """The client, made at first use; boto3's clients may be shared by threads."""
        with self._making:
            if self._client is None:
                import boto3
                from botocore.config import Config

                self._client = boto3.session.Session(region_name=self._region).client(
                    "s3",
                    endpoint_url=self._endpoint_url,
                    config=Config(
                        connect_timeout=_CONNECT_SECONDS,
                        read_timeout=_READ_SECONDS,
                        retries={"total_max_attempts": 2, "mode": "standard"},
                        # what services beside Amazon's own understand
                        s3={"addressing_style": "path"},
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
            return self._client


@dataclass(frozen=True, slots=True)
class ObjectName:
    """What an object is called by its service and in messages."""

    bucket: str
    key: str
    endpoint_url: str

    def __str__(self) -> str:
        return f"`{self.key}` of bucket `{self.bucket}` at {self.endpoint_url}"


class S3File:
    """An object, read by ranges."""

    def __init__(self, client: Any, name: ObjectName, size: int, version: str) -> None:
        self._client = client
        self._where = {"Bucket": name.bucket, "Key": name.key}
        self._name = name
        self.size = size
        self.version = version

    async def read(self, offset: int, count: int) -> bytes:
        """The bytes at a position. Raises InputFileError."""
        last = min(offset + count, self.size) - 1
        if last < offset:
            return b""

        def get() -> bytes:
            with _told(self._name):
                found = self._client.get_object(
                    **self._where, Range=f"bytes={offset}-{last}", IfMatch=self.version
                )
                with contextlib.closing(found["Body"]) as body:
                    if found["ETag"] != self.version:  # for services that do not know If-Match
                        raise changed(str(self._name))
                    content: bytes = body.read()
            if len(content) != last + 1 - offset:
                raise InputFileError(
                    f"{self._name}: {last + 1 - offset} bytes were asked for, {len(content)} came",
                    passing=True,
                )
            return content

        return await _aside(get)

    def close(self) -> None:
        """Does nothing: there is nothing open."""


@contextlib.contextmanager
def _told(name: ObjectName) -> Iterator[None]:
    """Turns what boto3 raises into InputFileError."""
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _CHANGED:
            raise changed(str(name)) from None
        if code == "NoSuchBucket":
            raise _no_bucket(name) from None
        if code in _GONE:
            raise InputFileError(f"{name} does not exist") from None
        passing = status >= 500 or status in _PASSING or code in _CREDENTIALS
        raise InputFileError(f"{name} cannot be read: {error}", passing=passing) from None
    except ParamValidationError as error:  # its message has lines
        raise InputFileError(f"{name} cannot be read: {' '.join(str(error).split())}") from None
    except (BotoCoreError, OSError) as error:
        raise InputFileError(f"{name} cannot be read: {error}", passing=True) from None


def _no_bucket(name: ObjectName) -> InputFileError:
    return InputFileError(
        f"bucket `{name.bucket}` does not exist at {name.endpoint_url}, and the setting `buckets` "
        "does not name it",
        no_bucket=True,
    )


async def _aside(fn: Callable[[], T]) -> T:
    """The result of `fn`, run in a thread that nobody waits for when the server stops."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def resolve(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failed = None, None
        try:
            result = fn()
        except BaseException as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(resolve, result, failed)

    threading.Thread(target=work, name="fleetgate-input", daemon=True).start()
    return await future

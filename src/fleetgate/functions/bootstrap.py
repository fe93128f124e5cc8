"""The runtime of a Python function: fetches events from Lambda's runtime API and answers them.

Run as a script in the function's own process: ``bootstrap.py awslambdaric|own DIRECTORY...``. The
directories are imported from first. With ``awslambdaric`` AWS's runtime interface client does all
the rest. Without it, this file speaks the same documented API and describes errors the same way.
It imports nothing of the server.

Source: AWS Lambda developer guide, "Using the Lambda runtime API for custom runtimes" and "Using
the Lambda context object to retrieve Python function information".
"""

from __future__ import annotations

import builtins
import decimal
import importlib
import json
import logging
import math
import os
import re
import sys
import threading
import time
import traceback
from http.client import HTTPConnection
from typing import Any, NoReturn

_PREFIX = "/2018-06-01/runtime/"
_ESCAPING = tuple(f"AWS_Lambda_python3.{minor}" for minor in range(9, 12))  # what is not ASCII
_request_id = ""


def main() -> None:
    """Runs the function of the environment (``_HANDLER``) until the process is ended."""
    _, client, *directories = sys.argv
    # the whole stack of a thread counts as memory, and the usual 8 MB leave room for few
    threading.stack_size(1 << 20)
    sys.path[:0] = directories
    handler = os.environ["_HANDLER"]
    if client == "awslambdaric":
        sys.argv = ["awslambdaric", handler]
        from awslambdaric.__main__ import main as run

        run(sys.argv)
    else:
        _run(handler)


class CognitoIdentity:
    """Who uses the app that invoked the function: nobody, here."""

    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self) -> None:
        self.cognito_identity_id = None
        self.cognito_identity_pool_id = None

    def __repr__(self) -> str:
        return _shown(self, self.__slots__)


class LambdaContext:
    """The second argument of a handler."""

    def __init__(self, headers: Any) -> None:
        environment = os.environ
        self.aws_request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        self.log_group_name = environment.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = environment.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self.function_name = environment.get("AWS_LAMBDA_FUNCTION_NAME")
        self.memory_limit_in_mb = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.function_version = environment.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.invoked_function_arn = headers["Lambda-Runtime-Invoked-Function-Arn"]
        self.client_context = None
        self.identity = CognitoIdentity()
        self.tenant_id = headers["Lambda-Runtime-Aws-Tenant-Id"]
        self._deadline = int(headers["Lambda-Runtime-Deadline-Ms"])

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function's time-out."""
        return max(self._deadline - int(time.time() * 1000), 0)

    def w3c(self) -> dict[str, str]:
        """The trace context of the invocation; there is none, since no client context is."""
        return {}

    def log(self, text: object) -> None:
        """Writes to the log."""
        sys.stdout.write(str(text))

    def __repr__(self) -> str:
        return _shown(self, [name for name in vars(self) if not name.startswith("_")])


def _shown(value: object, names: Any) -> str:
    members = ",".join(f"{name}={getattr(value, name)}" for name in names)
    return f"{type(value).__name__}([{members}])"


class _Fault(Exception):
    """An error of the runtime rather than of the function; `kind` is Lambda's name for it."""

    def __init__(self, kind: str, message: str, trace: list[str] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.trace = trace or []


class _Api:
    def __init__(self) -> None:
        self.connection = HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])

    def next(self) -> tuple[Any, bytes]:
        self.connection.request("GET", f"{_PREFIX}invocation/next")
        response = self.connection.getresponse()
        return response.headers, response.read()

    def post(self, path: str, body: bytes, kind: str = "") -> None:
        headers = {"Content-Type": "application/json"}
        if kind:
            headers["Lambda-Runtime-Function-Error-Type"] = kind.encode("ascii", "replace").decode()
        self.connection.request("POST", _PREFIX + path, body, headers)
        self.connection.getresponse().read()

    def post_error(self, path: str, error: BaseException) -> None:
        described = _described(error)
        _log_error(described)
        self.post(path, _Encoder().bytes(described, "replace"), described["errorType"])


class _Encoder(json.JSONEncoder):
    """As that of AWS's client: a Decimal is a number with the digits it has.

    The encoder cannot be told to write something as it is, so that a text nobody else can know
    stands for the number until the rest is encoded.
    """

    def __init__(self) -> None:
        super().__init__(ensure_ascii=os.environ.get("AWS_EXECUTION_ENV") in _ESCAPING)
        self._mark = os.urandom(16).hex()
        self._numbers: list[str] = []

    def default(self, o: Any) -> Any:
        if isinstance(o, decimal.Decimal):
            if o.is_nan():
                return math.nan
            self._numbers.append(str(o))
            return f"{self._mark}{len(self._numbers) - 1}"
        return super().default(o)

    def bytes(self, value: Any, errors: str = "strict") -> bytes:
        """The value as JSON. Raises TypeError, ValueError or RecursionError."""
        text = self.encode(value)
        if self._numbers:
            marked = f'"{self._mark}([0-9]+)"'
            text = re.sub(marked, lambda found: self._numbers[int(found[1])], text)
        return text.encode(errors=errors)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.aws_request_id = _request_id
        return super().format(record)


def _run(handler: str) -> None:
    global _request_id  # noqa: PLW0603 - of the process, which works on one event at a time
    for stream in (sys.stdout, sys.stderr):
        # what is written belongs to the event that is worked on
        stream.reconfigure(line_buffering=True, write_through=True)  # type: ignore[union-attr]
    lines = logging.StreamHandler(sys.stdout)
    logging.Formatter.converter = time.gmtime
    lines.setFormatter(
        _Lines(
            "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s",
            "%Y-%m-%dT%H:%M:%S",
        )
    )
    logging.getLogger().addHandler(lines)
    api = _Api()
    try:
        function = _load(handler)
    except Exception as error:
        _fail(api, error)
    while True:
        headers, body = api.next()
        _request_id = headers["Lambda-Runtime-Aws-Request-Id"]
        os.environ["_X_AMZN_TRACE_ID"] = headers.get("Lambda-Runtime-Trace-Id", "")
        path = f"invocation/{_request_id}/"
        try:
            answer = _answer(function(_event(body), LambdaContext(headers)))
        except Exception as error:
            api.post_error(path + "error", error)
        else:
            api.post(path + "response", answer)


def _fail(api: _Api, error: Exception) -> NoReturn:
    api.post_error("init/error", error)
    sys.exit(1)


def _load(handler: str) -> Any:
    module_name, dot, name = handler.rpartition(".")
    if not dot:
        raise _Fault("Runtime.MalformedHandlerName", f"Bad handler '{handler}': no module named")
    if module_name.split(".")[0] in sys.builtin_module_names:
        raise _Fault(
            "Runtime.BuiltInModuleConflict",
            f"Cannot use built-in module {module_name} as a handler module",
        )
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise _Fault(
            "Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}"
        ) from error
    except SyntaxError as error:
        raise _Fault(
            "Runtime.UserCodeSyntaxError",
            f"Syntax error in module '{module_name}': {error}",
            [f'  File "{error.filename}" Line {error.lineno}\n    {error.text}'],
        ) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise _Fault(
            "Runtime.HandlerNotFound", f"Handler '{name}' missing on module '{module_name}'"
        ) from error


def _event(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise _Fault("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from error


def _answer(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return _Encoder().bytes(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _Fault("Runtime.MarshalError", f"Unable to marshal response: {error}") from error


def _described(error: BaseException) -> dict[str, Any]:
    kind, trace = type(error).__name__, []
    if isinstance(error, _Fault):
        kind, trace = error.kind, error.trace
    else:
        frames = traceback.extract_tb(error.__traceback__)
        # without the columns Python 3.11 and later would point at
        trace = traceback.format_list(
            [
                (frame.filename, frame.lineno or 0, frame.name, frame.line)
                for frame in frames
                if frame.filename != __file__
            ]
        )
    return {
        "errorMessage": str(error),
        "errorType": kind,
        "requestId": _request_id,
        "stackTrace": trace,
    }


def _log_error(described: dict[str, Any]) -> None:
    lines = [f"[ERROR] {described['errorType']}: {described['errorMessage']}"]
    if described["stackTrace"]:
        lines.append("Traceback (most recent call last):")
        lines += [line.rstrip("\n") for line in described["stackTrace"]]
    builtins.print("\n".join(lines), flush=True)  # noqa: T201 - its output is the log


if __name__ == "__main__":
    main()

"""A function at a Lambda Invoke endpoint, called with boto3: AWS, LocalStack, SAM local and others.

boto3 blocks, so each call has a thread, and never more than `concurrency` of them. A call that
hangs longer than anybody waits for it keeps its place until boto3 gives up, which it does when
nothing was received for the function's time-out: what hangs is counted against the function that
hangs, and against no other.

Credentials are those boto3 finds in the server's own environment. Where it finds none, an endpoint
that is not Amazon's is called with a signature under an invented key: emulators do not look at it.
boto3 takes a while to import: that begins when the target is made.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from fleetgate.functions.configured import LambdaEndpoint
from fleetgate.functions.https import shown
from fleetgate.functions.target import MAX_ANSWER, Failure, FunctionError, Run
from fleetgate.functions.threads import Threads

_MARGIN = 0.05
"""Seconds left for whoever waits, so that they hear at which step the time ended."""

_AMAZON = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
_KINDS = {
    "ResourceNotFoundException": Failure.NO_FUNCTION,
    "AccessDeniedException": Failure.NO_PERMISSION,
    "TooManyRequestsException": Failure.THROTTLED,
}
_CREDENTIALS = ("ExpiredToken", "InvalidClientTokenId", "UnrecognizedClient", "InvalidSignature")


def target(name: str, configured: LambdaEndpoint) -> LambdaTarget:
    """What runs a function at a Lambda endpoint of the configuration."""
    return LambdaTarget(name, configured)


class LambdaTarget:
    """One function of a Lambda endpoint; see `functions.target.Target`."""

    def __init__(self, name: str, configured: LambdaEndpoint) -> None:
        self._name = name
        self._configured = configured
        self._threads = Threads(f"fleetgate-lambda-{name}", configured.concurrency)
        self._client: Any = None
        self._making = threading.Lock()
        threading.Thread(target=self._prepare, name="fleetgate-lambda", daemon=True).start()

    @property
    def description(self) -> str:
        """Endpoint and name there: ``lambda:https://lambda.eu-west-1.amazonaws.com name``."""
        return f"lambda:{self._configured.endpoint_url} {self._configured.function_name}"

    @property
    def ready(self) -> bool:
        """Whether boto3 was imported and knows its credentials."""
        return self._client is not None

    async def invoke(self, event: bytes, *, request_id: str, seconds: float) -> Run:  # noqa: ARG002
        """Invokes the function synchronously (RequestResponse), without retries."""
        within = min(seconds - _MARGIN, self._configured.timeout_seconds)
        begun = False

        def begin() -> None:
            nonlocal begun
            begun = True

        try:
            async with asyncio.timeout(within):
                return await self._threads.run(lambda: self._call(event), begin)
        except TimeoutError:
            pass
        if begun:
            raise self._error(Failure.TIMED_OUT, f"no answer within {within:.3g} s")
        raise self._error(
            Failure.THROTTLED,
            f"{self._threads.most} calls (concurrency) are under way, and none of them ended in "
            f"time; {self._threads.abandoned} are waited for by nobody any more",
        )

    async def close(self) -> None:
        """Calls under way are left to end; nothing waits for them."""

    def _prepare(self) -> None:
        with contextlib.suppress(Exception):  # it is told at the call
            self._ready()

    def _call(self, event: bytes) -> Run:
        with self._told():
            answer = self._ready().invoke(
                FunctionName=self._configured.function_name,
                InvocationType="RequestResponse",
                LogType="Tail",
                Payload=event,
            )
            with contextlib.closing(answer["Payload"]) as body:
                payload: bytes = body.read(MAX_ANSWER)
                more = body.read(1)  # at the end this checks that all of it came
        if more:
            raise self._error(Failure.TOO_LARGE, f"the answer has more than {MAX_ANSWER} bytes")
        try:
            log = base64.b64decode(answer.get("LogResult", "")).decode("utf-8", "replace")
        except ValueError:
            log = ""
        return Run(payload, error=answer.get("FunctionError", ""), log=log)

    def _ready(self) -> Any:
        """The client, made at first use; boto3's clients may be shared by threads."""
        with self._making:
            if self._client is None:
                self._client = _client(self._configured)
            return self._client

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns what boto3 raises into FunctionError."""
        from botocore import exceptions

        try:
            yield
        except exceptions.ClientError as error:
            said = error.response.get("Error", {})
            code, message = str(said.get("Code", "")), str(said.get("Message", ""))
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            kind = _KINDS.get(code, Failure.NO_PERMISSION if status == 403 else Failure.FAILED)
            if code.startswith(_CREDENTIALS):
                self._client = None  # it keeps the credentials it began with
            raise self._error(kind, shown(f"status {status}, {code}: {message}")) from None
        except (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError) as error:
            raise self._error(Failure.TIMED_OUT, shown(str(error))) from None
        except (
            exceptions.NoCredentialsError,
            exceptions.PartialCredentialsError,
            exceptions.CredentialRetrievalError,
        ) as error:
            self._client = None
            raise self._error(Failure.NOT_STARTED, shown(str(error))) from None
        except (exceptions.BotoCoreError, exceptions.HTTPClientError, OSError) as error:
            raise self._error(Failure.UNREACHABLE, shown(str(error))) from None

    def _error(self, kind: Failure, message: str) -> FunctionError:
        return FunctionError(kind, f"function `{self._name}` ({self.description}): {message}")


def _client(configured: LambdaEndpoint) -> Any:
    import boto3
    from botocore.config import Config

    session = boto3.session.Session(region_name=configured.region)
    host = urlsplit(configured.endpoint_url).hostname or ""
    invented: dict[str, str] = {}
    if not host.endswith(_AMAZON) and session.get_credentials() is None:
        invented = {"aws_access_key_id": "fleetgate", "aws_secret_access_key": "fleetgate"}
    return session.client(
        "lambda",
        endpoint_url=configured.endpoint_url,
        config=Config(
            connect_timeout=configured.timeout_seconds,
            read_timeout=configured.timeout_seconds,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=configured.concurrency,
        ),
        **invented,
    )

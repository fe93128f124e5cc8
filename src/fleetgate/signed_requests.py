"""Signed requests of the command line to a running server, for the paths that are its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

import typer

from fleetgate.errors import Error

SECONDS = 30
"""How long an answer may take."""

EndpointUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The server; without it the endpoint of the environment (fleetgate env prints it).",
    ),
]


class RunningServer:
    """A running server, asked by signed requests with the credentials of the environment."""

    def __init__(self, endpoint_url: str | None) -> None:
        """Raises Error when the environment does not say who asks, or where."""
        import boto3
        from botocore.exceptions import BotoCoreError, NoRegionError
        from botocore.httpsession import URLLib3Session

        try:
            session = boto3.Session()
            client = session.client("iot", endpoint_url=endpoint_url)
            if _is_amazons(str(client.meta.endpoint_url)):
                raise _nowhere(str(client.meta.endpoint_url))
            self._credentials = session.get_credentials()
        except (BotoCoreError, ValueError) as error:
            no_region = isinstance(error, NoRegionError | ValueError)
            if no_region and endpoint_url is None and not os.environ.get("AWS_ENDPOINT_URL"):
                raise _nowhere("AWS") from None
            raise Error(f"the server cannot be asked: {error}") from None
        if self._credentials is None:
            raise Error("the server cannot be asked: there are no credentials in the environment")
        self._base = str(client.meta.endpoint_url).rstrip("/")
        self._region = str(client.meta.region_name)
        self._http = URLLib3Session(timeout=SECONDS)

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The answer at a path below ``/_fleetgate/``; raises Error with what was said instead."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.exceptions import BotoCoreError

        url = f"{self._base}/_fleetgate/{path}{'?' + urlencode(query) if query else ''}"
        headers = {} if body is None else {"content-type": "application/json"}
        sent = b"" if body is None else json.dumps(body).encode()
        request = AWSRequest(method, url, headers, sent)
        SigV4Auth(self._credentials, "iot", self._region).add_auth(request)
        try:
            response = self._http.send(request.prepare())
            answer = json.loads(response.content)
        except BotoCoreError as error:
            raise Error(f"the server cannot be asked: {error}") from None
        except ValueError:
            answer = None
        # what else is there, AWS perhaps, has neither
        if not isinstance(answer, dict) or "x-amzn-requestid" not in response.headers:
            raise Error(f"`{self._base}` does not answer as a Fleetgate server does")
        if response.status_code != 200:
            code = response.headers.get("x-amzn-errortype", str(response.status_code))
            # a wrong signature is told of in many lines
            message = str(answer.get("message", "")).partition("\n")[0]
            raise Error(f"{code}: {message}")
        return answer


def _is_amazons(url: str) -> bool:
    """Whether it is an endpoint of AWS: what boto3 goes to when it is not told where.

    AWS has none of our paths, and what is sent there is none of its business.
    """
    from botocore.loaders import create_loader

    host = urlsplit(url).hostname or ""
    outputs = [each["outputs"] for each in create_loader().load_data("partitions")["partitions"]]
    return any(
        host.endswith(f".{each[suffix]}")
        for each in outputs
        for suffix in ("dnsSuffix", "dualStackDnsSuffix")
    )


def _nowhere(found: str) -> Error:
    return Error(
        "the server cannot be asked: it is not said where it is: AWS_ENDPOINT_URL "
        f'(eval "$(fleetgate env)" sets it) or --endpoint-url is expected, and not {found}'
    )

"""Fault scripts of a running server: put, looked at and removed by signed requests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.integration.server import REGION, Answer, Server, http


def ask(
    server: Server,
    method: str,
    path: str = "",
    body: str = "",
    *,
    credentials: Credentials | None = None,
) -> Answer:
    """One request to ``/_fleetgate/faults``; the root user's unless there are other credentials."""
    url = f"{server.http_url}/_fleetgate/faults{path}"
    if credentials is None:
        file = dict(
            line.split(" = ", 1)
            for line in (server.data / "credentials").read_text().splitlines()
            if " = " in line
        )
        credentials = Credentials(file["aws_access_key_id"], file["aws_secret_access_key"])
    request = AWSRequest(method, url, data=body.encode())
    SigV4Auth(credentials, "iot", REGION).add_auth(request)
    return http(url, method=method, headers=dict(request.headers), body=body.encode() or None)


@dataclass(frozen=True, slots=True)
class Script:
    """A script that the server has."""

    server: Server
    name: str

    def state(self) -> dict[str, Any]:
        """What the server says of it."""
        answer = ask(self.server, "GET", f"/{self.name}")
        assert answer.status == 200, answer.body
        found: dict[str, Any] = answer.json()
        return found

    def done(self) -> list[tuple[str, str, str]]:
        """What has happened: (do, on, moment)."""
        return [(each["do"], each["on"], each["moment"]) for each in self.state()["injections"]]


@contextlib.contextmanager
def faults(server: Server, script: str, client: str) -> Iterator[Script]:
    """Have the server fail for one client id, by a script that does not say for whom."""
    answer = ask(server, "PUT", f"/{client}", f'client = "{client}"\n{script}')
    assert answer.status == 200, answer.body
    try:
        yield Script(server, client)
    finally:
        ask(server, "DELETE", f"/{client}")

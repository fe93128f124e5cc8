"""The service models the tests of this layer read: those of botocore, and our own."""

from __future__ import annotations

import gzip
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore
import botocore.auth
import msgspec
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.model import ServiceModel

from fleetgate.wire.model import Service
from tests.wire.every_kind import SMALL
from tests.wire.signed_request import KEY, NOW, SECRET, Request, Signer


@pytest.fixture(scope="session")
def iot_document() -> dict[str, Any]:
    file = Path(botocore.__file__).parent / "data/iot/2015-05-28/service-2.json.gz"
    document: dict[str, Any] = msgspec.json.decode(gzip.decompress(file.read_bytes()))
    return document


@pytest.fixture(scope="session")
def iot(iot_document: dict[str, Any]) -> Service:
    return Service.from_json(iot_document, "iot")


@pytest.fixture(scope="session")
def judge(iot_document: dict[str, Any]) -> Any:
    """botocore's own view of the ``iot`` model."""
    return ServiceModel(iot_document, "iot")


@pytest.fixture(scope="session")
def functions() -> Service:
    file = Path(botocore.__file__).parent / "data/lambda/2015-03-31/service-2.json.gz"
    return Service.from_json(msgspec.json.decode(gzip.decompress(file.read_bytes())), "lambda")


@pytest.fixture(scope="session")
def provisioning() -> Service:
    file = resources.files("fleetgate") / "data/provisioning.json"
    return Service.from_json(msgspec.json.decode(file.read_bytes()), "provisioning")


@pytest.fixture(scope="session")
def small() -> Service:
    return Service.from_json(SMALL, "small")


@pytest.fixture
def sign(monkeypatch: pytest.MonkeyPatch) -> Signer:
    """Signs with botocore: ``sign(method, path, headers, body, presigned=, token=, at=)``."""

    def signer(
        method: str = "GET",
        url: str = "/things",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        presigned: int | None = None,
        token: str | None = None,
        at: datetime = NOW,
        region: str = "us-east-1",
        service: str = "iot",
    ) -> Request:
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: at)
        credentials = Credentials(KEY, SECRET, token)
        auth: Any = (
            botocore.auth.SigV4Auth(credentials, service, region)
            if presigned is None
            else botocore.auth.SigV4QueryAuth(credentials, service, region, expires=presigned)
        )
        request = AWSRequest(method, f"http://localhost:4566{url}", headers or {}, body)
        auth.add_auth(request)
        prepared = request.prepare()
        parts = urlsplit(prepared.url)
        sent = [("host", "localhost:4566")]
        sent += [
            (name, value.decode() if isinstance(value, bytes) else value)
            for name, value in prepared.headers.items()
            if name.lower() != "host"
        ]
        return Request(method, parts.path, parts.query, tuple(sent), body)

    return signer

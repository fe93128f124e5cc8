"""What boto3 raises when the service says no, as three comparable values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError


@dataclass(frozen=True, slots=True)
class Refusal:
    """HTTP status, error code and message of an error answer, and its further members."""

    status: int
    code: str
    message: str
    response: dict[str, Any]

    @property
    def kind(self) -> tuple[int, str]:
        return self.status, self.code


def refusal(operation: Callable[..., Any], **parameters: Any) -> Refusal:
    """Call `operation`, which has to be refused, and return how it was."""
    with pytest.raises(ClientError) as caught:
        operation(**parameters)
    response: dict[str, Any] = caught.value.response
    assert response["ResponseMetadata"]["RequestId"]
    return Refusal(
        response["ResponseMetadata"]["HTTPStatusCode"],
        response["Error"]["Code"],
        response["Error"]["Message"],
        response,
    )


def members(answer: dict[str, Any]) -> dict[str, Any]:
    """The modelled members of a boto3 answer, without its ResponseMetadata."""
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def pages(client: Any, operation: str, key: str, size: int, **parameters: Any) -> list[list[Any]]:
    """All pages of a paginated operation, `size` at a time."""
    paginator = client.get_paginator(operation)
    config = {"PageSize": size}
    return [page[key] for page in paginator.paginate(PaginationConfig=config, **parameters)]


def everything(client: Any, operation: str, key: str, **parameters: Any) -> list[Any]:
    return [item for page in pages(client, operation, key, 250, **parameters) for item in page]

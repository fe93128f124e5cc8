"""The names of functions. Source: Lambda API reference, Invoke, FunctionName and Qualifier."""

from __future__ import annotations

import pytest

from fleetgate.errors import InvalidParameterValueException, ResourceNotFoundException, ServiceError
from fleetgate.names import Account
from fleetgate.operations.function_names import FunctionName, latest, parse

ACCOUNT = Account("123456789012", "us-west-2")
ARN = "arn:aws:lambda:us-west-2:123456789012:function:my-function"


@pytest.mark.parametrize(
    ("text", "qualifier", "expected"),
    [
        # the three forms of the reference, and what clients make of them
        ("my-function", None, FunctionName("my-function")),
        (ARN, None, FunctionName("my-function")),
        ("123456789012:function:my-function", None, FunctionName("my-function")),
        ("function:my-function", None, FunctionName("my-function")),
        ("us-west-2:123456789012:function:my-function", None, FunctionName("my-function")),
        ("my-function:v1", None, FunctionName("my-function", "v1")),
        (f"{ARN}:$LATEST", None, FunctionName("my-function", "$LATEST")),
        ("my-function", "$LATEST", FunctionName("my-function", "$LATEST")),
        ("my-function:v1", "v1", FunctionName("my-function", "v1")),
        ("n" * 64, None, FunctionName("n" * 64)),
    ],
)
def test_a_function_has_several_names(
    text: str, qualifier: str | None, expected: FunctionName
) -> None:
    assert parse(ACCOUNT, text, qualifier) == expected


@pytest.mark.parametrize(
    ("text", "qualifier", "error"),
    [
        ("", None, InvalidParameterValueException),
        ("a b", None, InvalidParameterValueException),
        ("a.b", None, InvalidParameterValueException),
        ("n" * 65, None, InvalidParameterValueException),
        ("my-function:v1", "v2", InvalidParameterValueException),
        (ARN.replace("us-west-2", "eu-west-1"), None, ResourceNotFoundException),
        (ARN.replace("123456789012", "210987654321"), None, ResourceNotFoundException),
        ("210987654321:function:f", None, ResourceNotFoundException),
        (ARN.replace("aws:", "aws-cn:", 1), None, ResourceNotFoundException),
    ],
)
def test_what_names_no_function_here(
    text: str, qualifier: str | None, error: type[ServiceError]
) -> None:
    with pytest.raises(error):
        parse(ACCOUNT, text, qualifier)


def test_there_is_one_version() -> None:
    assert latest(ACCOUNT, "f") == latest(ACCOUNT, "f", "$LATEST") == "f"
    for text, qualifier in (("f:1", None), ("f", "live")):
        with pytest.raises(ResourceNotFoundException, match="Function not found: arn:aws:lambda"):
            latest(ACCOUNT, text, qualifier)

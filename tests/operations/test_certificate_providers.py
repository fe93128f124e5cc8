"""The certificate provider of the account.

Sources: AWS IoT API reference, *CertificateProvider*; AWS IoT Developer Guide, "Self-managed
certificate signing using AWS IoT Core certificate provider" (one for each account; the forms of
its ARN); Service Authorization Reference, "Resource types defined by AWS IoT".
"""

from typing import Any

import pytest

from fleetgate.errors import (
    InvalidRequestException,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from fleetgate.operations.certificate_providers import load_certificate_provider
from tests.operations.conftest import START, Registry

FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:sign"
OTHER = "arn:aws:lambda:eu-west-1:123456789012:function:other:$LATEST"
TOKEN = "0123456789abcdef0123456789abcdef0123"
TAGS = [{"Key": "team", "Value": "light"}]


def create(registry: Registry, name: str = "mine", **params: Any) -> dict[str, Any]:
    params = {
        "lambda_function_arn": FUNCTION,
        "account_default_for_operations": ["CreateCertificateFromCsr"],
        **params,
    }
    return registry.call("CreateCertificateProvider", certificate_provider_name=name, **params)


def call(registry: Registry, operation: str, name: str = "mine", **params: Any) -> Any:
    return registry.call(
        f"{operation}CertificateProvider", certificate_provider_name=name, **params
    )


def listed(registry: Registry, **params: Any) -> Any:
    return registry.call("ListCertificateProviders", **params)["certificateProviders"]


def in_force(registry: Registry) -> str | None:
    """The function that devices' requests go to."""
    found = registry.services.certificate_provider
    return None if found is None else found.function_arn


def test_a_provider_lives_and_dies(registry: Registry) -> None:
    named = {
        "certificateProviderName": "mine",
        "certificateProviderArn": "arn:aws:iot:eu-west-1:123456789012:certificateprovider:mine",
    }
    assert listed(registry) == []
    assert create(registry) == named
    assert in_force(registry) == FUNCTION
    assert listed(registry) == listed(registry, ascending_order=True) == [named]
    assert call(registry, "Describe") == {
        **named,
        "lambdaFunctionArn": FUNCTION,
        "accountDefaultForOperations": ["CreateCertificateFromCsr"],
        "creationDate": START,
        "lastModifiedDate": START,
    }
    registry.clock.now = START + 9
    assert call(registry, "Update", lambda_function_arn=OTHER) == named
    assert in_force(registry) == OTHER
    described = call(registry, "Describe")
    assert (described["creationDate"], described["lastModifiedDate"]) == (START, START + 9)
    kept = call(registry, "Update", account_default_for_operations=["CreateCertificateFromCsr"])
    assert (kept, in_force(registry)) == (named, OTHER)
    assert call(registry, "Delete") == {}
    assert in_force(registry) is None
    assert listed(registry) == []
    for operation in ("Describe", "Update", "Delete"):
        with pytest.raises(ResourceNotFoundException, match="mine"):
            call(registry, operation)


def test_an_account_has_one(registry: Registry) -> None:
    create(registry)
    with pytest.raises(ResourceAlreadyExistsException, match=r"already exists \(name=mine\)") as of:
        create(registry)
    assert of.value.members == {
        "resourceId": "mine",
        "resourceArn": "arn:aws:iot:eu-west-1:123456789012:certificateprovider:mine",
    }
    with pytest.raises(LimitExceededException, match="has certificate provider `mine`, and one"):
        create(registry, "second")
    for operation in ("Describe", "Update", "Delete"):
        with pytest.raises(ResourceNotFoundException, match="second"):
            call(registry, operation, "second")
    assert [each["certificateProviderName"] for each in listed(registry)] == ["mine"]
    call(registry, "Delete")
    create(registry, "second")


def test_a_request_that_is_sent_again_has_the_same_answer(registry: Registry) -> None:
    first = create(registry, client_token=TOKEN, tags=TAGS)
    assert create(registry, client_token=TOKEN, tags=TAGS) == first
    call(registry, "Update", lambda_function_arn=OTHER)
    assert create(registry, client_token=TOKEN, tags=TAGS) == first
    assert in_force(registry) == OTHER
    others: tuple[dict[str, Any], ...] = (
        {"tags": [{"Key": "team", "Value": "dark"}]},
        {"tags": None},
        {"lambda_function_arn": OTHER, "tags": TAGS},
        {"name": "other", "tags": TAGS},
    )
    for different in others:
        with pytest.raises(InvalidRequestException, match=r"clientToken `0123.* was used"):
            create(registry, **{"client_token": TOKEN, **different})
    with pytest.raises(ResourceAlreadyExistsException):
        create(registry, client_token=TOKEN[::-1], tags=TAGS)
    call(registry, "Delete")
    assert create(registry, client_token=TOKEN, lambda_function_arn=OTHER) == first


@pytest.mark.parametrize(
    ("params", "rule"),
    [
        ({"name": "a/b"}, r"certificateProviderName"),
        ({"name": "a:b"}, r"certificateProviderName"),
        ({"name": "x" * 129}, r"certificateProviderName"),
        ({"client_token": "short"}, "clientToken"),
        ({"client_token": "with space " * 4}, "clientToken"),
        ({"account_default_for_operations": []}, "accountDefaultForOperations"),
        ({"account_default_for_operations": ["RegisterThing"]}, "accountDefaultForOperations"),
        (
            {"account_default_for_operations": ["CreateCertificateFromCsr"] * 2},
            "accountDefaultForOperations",
        ),
        ({"lambda_function_arn": "sign"}, "lambdaFunctionArn: `sign` is not the ARN of a Lambda"),
        (
            {"lambda_function_arn": FUNCTION.replace("123456789012", "210987654321")},
            "not the ARN of a Lambda function of account 123456789012 in eu-west-1",
        ),
        (
            {"lambda_function_arn": FUNCTION.replace("eu-west-1", "us-east-1")},
            "not the ARN of a Lambda function of account 123456789012 in eu-west-1",
        ),
        ({"lambda_function_arn": FUNCTION + ":7"}, r"names `7`: there are no versions"),
        ({"tags": [*TAGS, *TAGS]}, "tag key `team` is given twice"),
    ],
)
def test_what_is_wrong_is_named(registry: Registry, params: dict[str, Any], rule: str) -> None:
    with pytest.raises(InvalidRequestException, match=rule):
        create(registry, **params)
    assert in_force(registry) is None


def test_an_update_is_checked_as_well(registry: Registry) -> None:
    create(registry)
    with pytest.raises(InvalidRequestException, match="lambdaFunctionArn: `sign` is not"):
        call(registry, "Update", lambda_function_arn="sign")
    with pytest.raises(InvalidRequestException, match="not a page token"):
        listed(registry, next_token="x")
    assert in_force(registry) == FUNCTION


@pytest.mark.parametrize("separator", [":", "/"], ids=["of-answers", "of-policies"])
def test_it_has_tags_by_either_form_of_its_arn(registry: Registry, separator: str) -> None:
    arn = registry.arn(f"certificateprovider{separator}mine")
    with pytest.raises(ResourceNotFoundException):
        registry.call("ListTagsForResource", resource_arn=arn)
    create(registry, tags=TAGS)
    assert registry.call("ListTagsForResource", resource_arn=arn)["tags"] == TAGS
    registry.call("TagResource", resource_arn=arn, tags=[{"Key": "stage", "Value": "test"}])
    registry.call("UntagResource", resource_arn=arn, tag_keys=["team"])
    found = registry.call("ListTagsForResource", resource_arn=arn)["tags"]
    assert found == [{"Key": "stage", "Value": "test"}]
    call(registry, "Delete")
    create(registry)
    assert registry.call("ListTagsForResource", resource_arn=arn)["tags"] == []


def test_a_server_that_starts_knows_it(registry: Registry) -> None:
    create(registry)
    registry.services.certificate_provider = None
    registry.runner.run(load_certificate_provider(registry.services))
    assert in_force(registry) == FUNCTION

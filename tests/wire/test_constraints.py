"""wire.constraints: the texts are those of AWS's front end as its users report them."""

from __future__ import annotations

import math
from typing import Any

import botocore.loaders
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import InvalidRequestException, SerializationException, ValidationError
from fleetgate.wire import constraints, restjson
from fleetgate.wire.model import Service


def _message(service: Service, operation: str, **params: Any) -> str:
    shape = service.operation(operation).input
    assert shape is not None
    with pytest.raises(InvalidRequestException) as caught:
        constraints.validate(shape, params)
    return caught.value.message


def _accept(service: Service, operation: str, **params: Any) -> None:
    shape = service.operation(operation).input
    assert shape is not None
    constraints.validate(shape, params)


MATCH = "Member must satisfy regular expression pattern: "
THING = MATCH + "[a-zA-Z0-9:_-]+"
TAG = MATCH + r"^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$"
ATTRIBUTE = MATCH + "[a-zA-Z0-9_.,@/:#-]+"
ATTRIBUTE_VALUE = MATCH + r"[a-zA-Z0-9_.,@/:#=\[\]-]*"
NOT_EMPTY = "Member must have length greater than or equal to 1"
NULL = "Member must not be null"


def _shorter(length: int) -> str:
    return f"Member must have length less than or equal to {length}"


# Rows: what is called with what; the value, its path and the broken rule, for each violation.
VIOLATIONS: list[tuple[str, dict[str, Any], list[tuple[str, str, str]]]] = [
    ("CreateThing", {"thing_name": "a b"}, [("'a b'", "thingName", THING)]),
    ("CreateThing", {}, [("null", "thingName", NULL)]),
    (
        "CreateThing",
        {"thing_name": "", "thing_type_name": "a b"},
        [
            ("''", "thingName", NOT_EMPTY),
            ("'a b'", "thingTypeName", THING),
        ],
    ),
    ("CreateThing", {"thing_name": "x" * 129}, [(f"'{'x' * 80}...'", "thingName", _shorter(128))]),
    (
        "ListThings",
        {"max_results": 251},
        [("'251'", "maxResults", "Member must have value less than or equal to 250")],
    ),
    (
        "ListThings",
        {"max_results": 0},
        [("'0'", "maxResults", "Member must have value greater than or equal to 1")],
    ),
    (
        "CreateProvisioningTemplate",
        {
            "template_name": "t",
            "template_body": "{}",
            "provisioning_role_arn": "r" * 20,
            "type": "fleet",
        },
        [
            (
                "'fleet'",
                "type",
                "Member must satisfy enum value set: [FLEET_PROVISIONING, JITP]",
            )
        ],
    ),
    (
        "CreateThing",
        {"thing_name": "a", "attribute_payload": {"attributes": {"k k": "v", "k": "v"}}},
        [
            (
                "'{k k=v, k=v}'",
                "attributePayload.attributes",
                f"Map keys must satisfy constraint: [{_shorter(128)}, {ATTRIBUTE}]",
            )
        ],
    ),
    (
        "CreateThing",
        {"thing_name": "a", "attribute_payload": {"attributes": {"k": "v" * 801}}},
        [
            (
                "'{k=" + "v" * 77 + "...'",
                "attributePayload.attributes",
                f"Map value must satisfy constraint: [{_shorter(800)}, {ATTRIBUTE_VALUE}]",
            )
        ],
    ),
    (
        "CreateThingGroup",
        {"thing_group_name": "g", "tags": [{"Key": "☃"}, {"Value": "v" * 257}]},
        [
            ("'☃'", "tags.1.member.Key", TAG),
            ("null", "tags.2.member.Key", NULL),
            (f"'{'v' * 80}...'", "tags.2.member.Value", _shorter(256)),
        ],
    ),
    (
        "UpdateThingGroupsForThing",
        {"thing_name": "t", "thing_groups_to_add": ["ok", "not ok"]},
        [
            (
                "'[ok, not ok]'",
                "thingGroupsToAdd",
                f"Member must satisfy constraint: [{_shorter(128)}, {NOT_EMPTY}, {THING}]",
            )
        ],
    ),
    (
        "CreateCertificateProvider",
        {
            "certificate_provider_name": "p",
            "lambda_function_arn": "arn",
            "account_default_for_operations": ["CreateCertificateFromCsr"] * 2,
        },
        [
            (
                "'[CreateCertificateFromCsr, CreateCertificateFromCsr]'",
                "accountDefaultForOperations",
                _shorter(1),
            )
        ],
    ),
    (  # a value without a maximum may not be of any length
        "DescribeManagedJobTemplate",
        {"template_name": "t", "template_version": "1" * 5000},
        [(f"'{'1' * 80}...'", "templateVersion", _shorter(2048))],
    ),
    (
        "CreateThing",
        {"thing_name": 7},
        [("'7'", "thingName", "Member must be of type string")],
    ),
    (
        "CreateThing",
        {"thing_name": "a", "attribute_payload": "x"},
        [("'x'", "attributePayload", "Member must be of type structure")],
    ),
    (
        "ListThings",
        {"max_results": True},
        [("'true'", "maxResults", "Member must be of type integer")],
    ),
]


@pytest.mark.parametrize(("operation", "params", "broken"), VIOLATIONS)
def test_violations_are_told_in_aws_style(
    iot: Service, operation: str, params: dict[str, Any], broken: list[tuple[str, str, str]]
) -> None:
    told = "; ".join(
        f"Value {value} at '{path}' failed to satisfy constraint: {rule}"
        for value, path, rule in broken
    )
    counted = "1 validation error" if len(broken) == 1 else f"{len(broken)} validation errors"
    assert _message(iot, operation, **params) == f"{counted} detected: {told}"


LONG_KEY = {"Key": "k" * 129, "Value": ""}
TAG_KEYS = rf"[{_shorter(128)}, {NOT_EMPTY}, {MATCH}[\p{{L}}\p{{Z}}\p{{N}}_.:/=+\-@]+, {NULL}]"


@pytest.mark.parametrize(
    ("operation", "params", "at"),
    [
        (
            "TagPolicy",
            {"policy_arn": "a" * 20, "tags": [LONG_KEY]},
            f"'tags.1.member.key' failed to satisfy constraint: {_shorter(128)}",
        ),
        (
            "TagPolicy",
            {"policy_arn": "a" * 20, "tags": [{"Key": f"k{at}", "Value": ""} for at in range(51)]},
            f"'tags' failed to satisfy constraint: {_shorter(50)}",
        ),
        (
            "UntagPolicy",
            {"policy_arn": "a" * 20, "tag_keys": ["k" * 129]},
            f"'tagKeys' failed to satisfy constraint: Member must satisfy constraint: {TAG_KEYS}",
        ),
        (
            "SetDefaultPolicyVersion",
            {"policy_arn": "a" * 20, "version_id": "wrong"},
            rf"'versionId' failed to satisfy constraint: {MATCH}v[1-9][0-9]*(\.[A-Za-z0-9-]*)?",
        ),
        (
            "CreateUser",
            {},
            f"'userName' failed to satisfy constraint: {NULL}",
        ),
    ],
)
def test_violations_are_told_in_the_style_of_iam(
    operation: str, params: dict[str, Any], at: str
) -> None:
    """Recorded from AWS (localstack, test_iam_policies.py); the last row is inferred."""
    model = botocore.loaders.Loader().load_service_model("iam", "service-2")
    shape = Service.from_json(model, "iam").operation(operation).input
    assert shape is not None
    with pytest.raises(ValidationError) as caught:
        constraints.validate(shape, params, ValidationError, constraints.IAM)
    assert caught.value.message == f"1 validation error detected: Value at {at}"


def test_a_sensitive_value_is_not_repeated(iot: Service) -> None:
    message = _message(
        iot, "CreatePackage", package_name="p", description="sec\x00ret", tags={"k": "v"}
    )
    assert "Value at 'description' failed" in message
    assert "sec" not in message


def test_not_more_violations_are_named_than_a_reader_wants(iot: Service) -> None:
    tags = [{"Key": "☃"}] * 1000
    message = _message(iot, "CreateThingGroup", thing_group_name="g", tags=tags)
    assert message.startswith("10 validation errors detected: ")
    assert "tags.10.member.Key" in message
    assert "tags.11.member.Key" not in message


def test_not_a_number_is_in_no_range(iot: Service) -> None:
    percent = iot.shape("Percent")
    assert constraints._broken_rule(percent, math.nan)
    assert constraints._broken_rule(percent, math.inf)
    assert constraints._broken_rule(percent, 100.0) is None


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"template_name": "a b"}, "templateName"),
        ({"template_name": "a" * 37}, "templateName"),
        ({"payload_format": "xml"}, "payloadFormat"),
        ({"payload_format": "JSON"}, "payloadFormat"),
        ({"parameters": {"k" * 2049: "v"}}, "parameters"),
        ({"parameters": {"k": "v" * 4097}}, "parameters"),
        ({"parameters": {"": "v"}}, "parameters"),
    ],
)
def test_the_provisioning_operations_have_their_limits(
    provisioning: Service, params: dict[str, Any], path: str
) -> None:
    params = {"payload_format": "json", "template_name": "t"} | params
    assert f"at '{path}'" in _message(provisioning, "RegisterThing", **params)


def test_the_operation_itself_tells_of_a_missing_token(provisioning: Service) -> None:
    _accept(provisioning, "RegisterThing", payload_format="cbor", template_name="t")
    _accept(
        provisioning,
        "RegisterThing",
        payload_format="cbor",
        template_name="a" * 36,
        certificate_ownership_token="",
        parameters={"k" * 2048: "v" * 4096, "e": ""},
    )


def test_the_operations_themselves_judge_token_and_csr(provisioning: Service) -> None:
    # so that the error code says which of the two it is
    long = "x" * 100_000
    _accept(
        provisioning,
        "RegisterThing",
        payload_format="json",
        template_name="t",
        certificate_ownership_token=long,
    )
    for csr in ("", long):
        _accept(
            provisioning,
            "CreateCertificateFromCsr",
            payload_format="json",
            certificate_signing_request=csr,
        )


@given(
    document=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    )
)
def test_any_decoded_document_is_valid_or_an_invalid_request(
    provisioning: Service, document: Any
) -> None:
    operation = provisioning.operation("RegisterThing")
    assert operation.input
    wrapped = {"parameters": document, "certificateOwnershipToken": document}
    try:
        params = restjson.decode_document(operation, {"templateName": "t"}, wrapped)
    except SerializationException:
        return
    with pytest.raises(InvalidRequestException, match="payloadFormat"):
        constraints.validate(operation.input, params)

"""Every served operation: what keeps the model's constraints passes both ways through botocore and
our codecs, what breaks one is refused with the documented error and changes nothing.

Source: botocore's service models; Smithy specification, "Constraint traits".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import botocore.loaders
import pytest
from botocore import xform_name
from botocore.model import ServiceModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetgate.errors import InvalidRequestException, ValidationError, ValidationException
from fleetgate.operations.dispatch import SERVED
from fleetgate.store.engine import Tx
from fleetgate.store.schema import REGISTRY_TABLES
from fleetgate.wire import constraints, patterns, query, restjson
from fleetgate.wire.model import Operation, Service, Shape
from tests.operations.conftest import Registry
from tests.wire import botocore_judge
from tests.wire.valid_values import valid_members

LOADER = botocore.loaders.Loader()
SERVICES = tuple(name for name in SERVED if name != "provisioning")
DOCUMENTS = {name: LOADER.load_service_model(name, "service-2") for name in SERVICES}
MODELS = {name: Service.from_json(DOCUMENTS[name], name) for name in SERVICES}
JUDGES = {name: ServiceModel(DOCUMENTS[name], name) for name in SERVICES}
EVERY = [(service, name) for service in SERVICES for name in sorted(SERVED[service])]
REST = [each for each in EVERY if each[0] in ("iot", "lambda")]

few = settings(max_examples=settings().max_examples // 5, suppress_health_check=list(HealthCheck))
every_query_operation = pytest.mark.parametrize(
    ("service", "name"), [each for each in EVERY if each not in REST]
)
XML = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"])
"""What a document of XML 1.0 can carry as it is."""
every_rest_operation = pytest.mark.parametrize(("service", "name"), REST)


@every_rest_operation
def test_valid_input_passes_through_botocore_and_the_decoder(service: str, name: str) -> None:
    shape = MODELS[service].operation(name).input
    if shape is None:
        return

    @few
    @given(valid_members(shape))
    def check(params: dict[str, Any]) -> None:
        request = botocore_judge.sent(JUDGES[service].operation_model(name), params)
        operation, decoded = botocore_judge.received(MODELS[service], request)
        assert operation.name == name
        for each in shape.members.values():
            # nothing of such a value is in a request
            value = params.get(each.name)
            if (each.location == "querystring" and value == []) or (
                each is shape.payload and value == b""
            ):
                del params[each.name]
        assert decoded == {xform_name(key): value for key, value in params.items()}
        if not any(each.required and each.name not in params for each in shape.members.values()):
            constraints.validate(shape, decoded)

    check()


@every_rest_operation
def test_a_valid_answer_passes_through_the_encoder_and_botocore(service: str, name: str) -> None:
    shape = MODELS[service].operation(name).output
    if shape is None:
        return
    model = JUDGES[service].operation_model(name)

    @few
    @given(valid_members(shape))
    def check(result: dict[str, Any]) -> None:
        status, headers, body = restjson.encode_response(MODELS[service].operation(name), result)
        # what is the whole body is read when somebody asks for it, and not by the parser
        read = body if shape.payload is None else b""
        parsed = botocore_judge.parsed(model, status, headers, read)
        assert parsed.pop("ResponseMetadata")["HTTPStatusCode"] == status
        said = {each.location: each.name for each in shape.members.values()}
        if "statusCode" in said:
            result = {said["statusCode"]: status, **result}
        if shape.payload is not None:
            result = {shape.payload.name: b"", **result}
            parsed[shape.payload.name] = body
        assert botocore_judge.inside(parsed) == result

    check()


@every_query_operation
def test_a_valid_form_passes_through_botocore_and_the_decoder(service: str, name: str) -> None:
    shape = MODELS[service].operation(name).input
    if shape is None:
        return

    @few
    @given(valid_members(shape, XML))
    def check(params: dict[str, Any]) -> None:
        body = botocore_judge.sent_form(JUDGES[service].operation_model(name), params)
        operation, decoded = query.decode_request(MODELS[service], body)
        assert operation.name == name
        expected = {xform_name(key): value for key, value in full(params).items()}
        assert full(decoded) == expected
        constraints.validate(shape, {**decoded, **{xform_name(k): v for k, v in params.items()}})

    check()


@every_query_operation
def test_a_valid_document_passes_through_the_encoder_and_botocore(service: str, name: str) -> None:
    operation = MODELS[service].operation(name)
    shape = operation.output
    if shape is None:
        return
    model = JUDGES[service].operation_model(name)

    @few
    @given(valid_members(shape, XML))
    def check(result: dict[str, Any]) -> None:
        status, headers, body = query.encode_response(operation, result, "id")
        parsed = botocore_judge.parsed(model, status, headers, body, "query")
        assert parsed.pop("ResponseMetadata")["HTTPStatusCode"] == status
        assert full(botocore_judge.inside(parsed)) == full(result)

    check()


def full(value: Any) -> Any:
    """Without empty lists, maps and structures: forms and XML cannot tell them from none."""
    if isinstance(value, dict):
        kept = {key: full(entry) for key, entry in value.items()}
        return {key: entry for key, entry in kept.items() if entry not in ({}, [])}
    if isinstance(value, list):
        return [entry for entry in map(full, value) if entry not in ({}, [])]
    return value


# --- breaking one constraint at a time ------------------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """A value that breaks one constraint, and the last name on the path to it."""

    rule: str
    params: dict[str, Any]


CANDIDATES = (
    "a",
    "1",
    "0" * 12,
    "aa",
    "a" * 64,
    "AKIA" + "A" * 16,
    "arn:aws:iam::123456789012:role/r",
    "arn:aws:acm:eu-west-1:123456789012:certificate/0",
    "arn:aws:lambda:eu-west-1:123456789012:function:f",
    "/",
    "/a/",
    "{}",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "2026-01-02T03:04:05Z",
    "json",
    "v1",
    "*",
    "o-0123456789",
    "arn:aws:kms:eu-west-1:123456789012:key/k",
    *(
        f"arn:aws:lambda:eu-west-1:123456789012:{resource}"
        for resource in ("capacity-provider:c", f"code-signing-config:csc-{'0' * 17}", "layer:l:1")
    ),
    "arn:aws:elasticfilesystem:eu-west-1:123456789012:access-point/fsap-" + "0" * 17,
    "arn:aws:lambda:eu-west-1:123456789012:runtime/" + "0" * 10,
    "/mnt/m",
    "ALL",
    "sg-0",
    "subnet-0",
)
ODD = ("\n", " ", "#", "\x00", "☃", "a b", "-", "=", "!", "\x01", "é", "A/", "")


def good(shape: Shape) -> Any:
    """A value that keeps every constraint of a shape."""
    low = int(shape.minimum or 0)
    if shape.enum:
        return shape.enum[0]
    match shape.type:
        case "string":
            tried = [text for each in CANDIDATES for text in (each, each * max(1, low))]
            kept = [text for text in tried if keeps(shape, text)]
            assert kept, f"add a candidate for {shape.name}, {shape.pattern}"
            return kept[0]
        case "boolean":
            return True
        case "integer" | "long" | "float" | "double" | "timestamp":
            return low
        case "blob":
            return b"a" * max(1, low)
        case "list":
            assert shape.element
            return [good(shape.element)] * max(1, low)
        case "map":
            assert shape.key
            assert shape.element
            return {good(shape.key): good(shape.element)}
    return {member.name: good(member.shape) for member in shape.members.values()}


def keeps(shape: Shape, text: str) -> bool:
    maximum = constraints.LONGEST_WITHOUT_MAXIMUM if shape.pattern else len(text)
    return (shape.minimum or 0) <= len(text) <= (shape.maximum or maximum) and (
        shape.pattern is None or patterns.matches(shape.pattern, text)
    )


def breaking(shape: Shape) -> Iterator[tuple[str, Any]]:
    """(the broken rule, a value that breaks it) for every rule of a shape and what it holds."""
    value = good(shape)
    if shape.enum:
        yield "enum", "NO_SUCH_VALUE"
        return
    if shape.type in {"integer", "long", "float", "double"}:
        if shape.minimum is not None:
            yield "minimum", int(shape.minimum) - 1
        if shape.maximum is not None:
            yield "maximum", int(shape.maximum) + 1
    if shape.type == "string":
        if shape.minimum:
            yield "minimum", value[: int(shape.minimum) - 1]
        if shape.maximum is not None:
            yield "maximum", value[:1] * (int(shape.maximum) + 1)
        if shape.pattern is not None:
            length = max(int(shape.minimum or 0), 1)
            fits = (
                text
                for odd in ODD
                for text in (odd, (odd * length)[:length], odd + value)
                if (shape.minimum or 0) <= len(text) <= (shape.maximum or 2048)
                and not patterns.matches(shape.pattern, text)
            )
            text = next(fits, None)
            if text is not None:
                yield "pattern", text
    if shape.type == "list":
        assert shape.element
        one = good(shape.element)
        if shape.minimum:
            yield "minimum", [one] * (int(shape.minimum) - 1)
        if shape.maximum is not None:
            yield "maximum", [one] * (int(shape.maximum) + 1)
        for rule, inner in breaking(shape.element):
            yield f"element {rule}", [inner]
    if shape.type == "map":
        assert shape.key
        assert shape.element
        for rule, key in breaking(shape.key):
            yield f"key {rule}", {key: good(shape.element)}
        for rule, inner in breaking(shape.element):
            yield f"value {rule}", {good(shape.key): inner}
    if shape.type == "structure":
        for member in shape.members.values():
            if member.required:
                yield (
                    f"{member.name} required",
                    {k: v for k, v in value.items() if k != member.name},
                )
            for rule, inner in breaking(member.shape):
                yield f"{member.name} {rule}", {**value, member.name: inner}


def every_violation(operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    """(what is broken, the parameters) for each constraint of an operation's input."""
    if operation.input is None:
        return
    value = {name: good(member.shape) for name, member in operation.input.members.items()}
    for member in operation.input.members.values():
        if member.required:
            yield f"{member.name} required", {k: v for k, v in value.items() if k != member.name}
        for rule, inner in breaking(member.shape):
            yield f"{member.name} {rule}", {**value, member.name: inner}


REFUSAL = {
    "iot": InvalidRequestException,
    "iam": ValidationError,
    "lambda": ValidationException,
    "sts": ValidationError,
}
"""AWS IoT API reference; IAM API reference, "Common Errors"; that of Lambda recorded from AWS."""


def contents(tx: Tx) -> dict[str, list[Any]]:
    return {
        table: sorted(tx.all(f"SELECT * FROM {table}"), key=repr)  # noqa: S608 - no input
        for table in REGISTRY_TABLES
    }


@pytest.mark.parametrize("service", SERVICES)
def test_each_broken_constraint_is_refused_and_changes_nothing(
    registry: Registry, service: str
) -> None:
    registry.call("CreateThing", thing_name="a")
    before = registry.runner.run(registry.services.store.read(contents))
    count = 0
    for name in sorted(SERVED[service]):
        operation = MODELS[service].operation(name)
        for rule, params in every_violation(operation):
            count += 1
            given_params = {xform_name(key): value for key, value in params.items()}
            with pytest.raises(REFUSAL[service]) as refused:
                registry.run(service, name, given_params)
                pytest.fail(f"{name}: {rule} was accepted")
            message = refused.value.message
            assert "1 validation error detected: Value" in message, (name, rule, message)
            # IAM and STS call a member `RoleName` `roleName`
            member = rule if service == "iot" else rule[:1].lower() + rule[1:]
            assert f"at '{member.split()[0]}" in message, (name, rule, message)
    assert registry.runner.run(registry.services.store.read(contents)) == before
    assert count > len(SERVED[service])


def test_good_values_keep_every_constraint() -> None:
    for service, name in EVERY:
        shape = MODELS[service].operation(name).input
        if shape is not None:
            value = {member.python_name: good(member.shape) for member in shape.members.values()}
            assert constraints.violations(shape, value) == (), (service, name)

"""Logging options and levels.

Sources: AWS IoT API reference, *V2Logging* and *LoggingOptions*; AWS CLI examples,
list-v2-logging-levels (NotConfiguredException, the default level as a target without a name); the
delete handler of AWS::IoT::Logging, which calls SetV2LoggingOptions with disableAllLogs alone.
"""

from typing import Any

import pytest

from fleetgate.domain.limits import Limits
from fleetgate.errors import (
    InvalidRequestException,
    LimitExceededException,
    NotConfiguredException,
)
from fleetgate.operations.log_levels import EVENT_TYPES
from tests.operations.conftest import Registry
from tests.operations.roles import add_role


@pytest.fixture
def role(registry: Registry) -> str:
    return add_role(registry, "logging")


def target(name: str, kind: str = "CLIENT_ID") -> dict[str, str]:
    return {"targetType": kind, "targetName": name}


def levels(registry: Registry, **params: Any) -> list[tuple[str, str | None, str]]:
    found = registry.call("ListV2LoggingLevels", **params)["logTargetConfigurations"]
    return [
        (each["logTarget"]["targetType"], each["logTarget"]["targetName"], each["logLevel"])
        for each in found
    ]


def test_nothing_is_configured_at_first(registry: Registry) -> None:
    for operation in ("GetV2LoggingOptions", "ListV2LoggingLevels"):
        with pytest.raises(NotConfiguredException, match="SetV2LoggingOptions"):
            registry.call(operation)
    with pytest.raises(NotConfiguredException):
        registry.call("SetV2LoggingLevel", log_target=target("lamp"), log_level="INFO")
    assert registry.call("GetLoggingOptions") == {}


def test_options_are_kept_until_they_are_named_again(registry: Registry, role: str) -> None:
    events = [{"eventType": "Connect", "logLevel": "DEBUG", "logDestination": "/iot/connects"}]
    registry.call(
        "SetV2LoggingOptions",
        role_arn=role,
        default_log_level="WARN",
        event_configurations=events,
    )
    registry.call("SetV2LoggingOptions", disable_all_logs=True)
    assert registry.call("GetV2LoggingOptions") == {
        "roleArn": role,
        "defaultLogLevel": "WARN",
        "disableAllLogs": True,
        "eventConfigurations": events,
    }
    registry.call("SetV2LoggingOptions", default_log_level="ERROR", event_configurations=[])
    assert registry.call("GetV2LoggingOptions") == {
        "roleArn": role,
        "defaultLogLevel": "ERROR",
        "disableAllLogs": False,
        "eventConfigurations": None,
    }


def test_verbose_names_the_other_event_types_too(registry: Registry, role: str) -> None:
    registry.call(
        "SetV2LoggingOptions",
        role_arn=role,
        default_log_level="WARN",
        event_configurations=[{"eventType": "Connect", "logLevel": "DEBUG"}],
    )
    found = registry.call("GetV2LoggingOptions", verbose=True)["eventConfigurations"]
    assert {each["eventType"]: each["logLevel"] for each in found} == {
        **dict.fromkeys(EVENT_TYPES, "WARN"),
        "Connect": "DEBUG",
    }


def test_the_role_has_to_trust_the_service(registry: Registry) -> None:
    foreign = add_role(registry, "foreign", "lambda.amazonaws.com")
    for arn in (foreign, "arn:aws:iam::123456789012:role/absent", "no-arn"):
        for operation, params in (
            ("SetV2LoggingOptions", {"role_arn": arn, "default_log_level": "INFO"}),
            ("SetLoggingOptions", {"logging_options_payload": {"roleArn": arn}}),
        ):
            with pytest.raises(InvalidRequestException, match=f"resource: {arn}. If the role was"):
                registry.call(operation, **params)


def test_logs_need_a_role_unless_there_are_to_be_none(registry: Registry) -> None:
    with pytest.raises(InvalidRequestException, match="roleArn is required"):
        registry.call("SetV2LoggingOptions", default_log_level="INFO")
    registry.call("SetV2LoggingOptions", disable_all_logs=True)
    assert registry.call("GetV2LoggingOptions")["disableAllLogs"] is True


def test_an_event_type_is_configured_once(registry: Registry, role: str) -> None:
    with pytest.raises(InvalidRequestException, match="`Connect` is configured twice"):
        registry.call(
            "SetV2LoggingOptions",
            role_arn=role,
            event_configurations=[{"eventType": "Connect"}, {"eventType": "Connect"}],
        )


def test_levels_are_set_listed_and_deleted(registry: Registry, role: str) -> None:
    registry.call("SetV2LoggingOptions", role_arn=role, default_log_level="ERROR")
    for name, kind, level in (
        ("lamps", "THING_GROUP", "WARN"),
        ("lamp-1", "CLIENT_ID", "DEBUG"),
        ("192.0.2.1", "SOURCE_IP", "INFO"),
        ("abc", "PRINCIPAL_ID", "DISABLED"),
        ("lamps", "THING_GROUP", "DEBUG"),
    ):
        registry.call("SetV2LoggingLevel", log_target=target(name, kind), log_level=level)
    assert levels(registry) == [
        ("DEFAULT", None, "ERROR"),
        ("CLIENT_ID", "lamp-1", "DEBUG"),
        ("PRINCIPAL_ID", "abc", "DISABLED"),
        ("SOURCE_IP", "192.0.2.1", "INFO"),
        ("THING_GROUP", "lamps", "DEBUG"),
    ]
    assert levels(registry, target_type="SOURCE_IP") == [("SOURCE_IP", "192.0.2.1", "INFO")]
    assert levels(registry, target_type="DEFAULT") == [("DEFAULT", None, "ERROR")]
    for _ in range(2):
        registry.call("DeleteV2LoggingLevel", target_type="THING_GROUP", target_name="lamps")
    assert levels(registry, target_type="THING_GROUP") == []


@pytest.mark.parametrize("size", [1, 2, 3])
def test_levels_are_listed_page_by_page(registry: Registry, role: str, size: int) -> None:
    registry.call("SetV2LoggingOptions", role_arn=role, default_log_level="ERROR")
    for name in "abcd":
        registry.call("SetV2LoggingLevel", log_target=target(name), log_level="INFO")
    names, token = [], None
    while True:
        page = registry.call("ListV2LoggingLevels", max_results=size, next_token=token)
        assert len(page["logTargetConfigurations"]) <= size
        names += [each["logTarget"]["targetName"] for each in page["logTargetConfigurations"]]
        token = page["nextToken"]
        if token is None:
            break
    assert names == [None, "a", "b", "c", "d"]


def test_a_token_belongs_to_its_filter(registry: Registry, role: str) -> None:
    registry.call("SetV2LoggingOptions", role_arn=role, default_log_level="ERROR")
    registry.call("SetV2LoggingLevel", log_target=target("a"), log_level="INFO")
    token = registry.call("ListV2LoggingLevels", max_results=1)["nextToken"]
    with pytest.raises(InvalidRequestException, match="not a page token"):
        registry.call("ListV2LoggingLevels", next_token=token, target_type="CLIENT_ID")


def test_the_default_level_is_one_of_the_options(registry: Registry, role: str) -> None:
    registry.call("SetV2LoggingOptions", role_arn=role, default_log_level="ERROR")
    registry.call("SetV2LoggingLevel", log_target={"targetType": "DEFAULT"}, log_level="INFO")
    assert registry.call("GetV2LoggingOptions")["defaultLogLevel"] == "INFO"
    with pytest.raises(InvalidRequestException, match="cannot be deleted"):
        registry.call("DeleteV2LoggingLevel", target_type="DEFAULT", target_name="x")


@pytest.mark.parametrize(
    ("log_target", "message"),
    [
        ({"targetType": "DEFAULT", "targetName": "x"}, "has no name"),
        ({"targetType": "CLIENT_ID"}, "targetName is required"),
        ({"targetType": "CLIENT_ID", "targetName": ""}, "targetName is required"),
    ],
)
def test_a_target_has_a_name_unless_it_is_the_default(
    registry: Registry, role: str, log_target: dict[str, str], message: str
) -> None:
    registry.call("SetV2LoggingOptions", role_arn=role, default_log_level="ERROR")
    with pytest.raises(InvalidRequestException, match=message):
        registry.call("SetV2LoggingLevel", log_target=log_target, log_level="INFO")


def test_levels_are_limited(registry: Registry, role: str) -> None:
    registry.services.limits = Limits(log_levels=1)
    registry.call("SetV2LoggingOptions", role_arn=role, default_log_level="ERROR")
    registry.call("SetV2LoggingLevel", log_target=target("a"), log_level="INFO")
    registry.call("SetV2LoggingLevel", log_target=target("a"), log_level="WARN")
    with pytest.raises(LimitExceededException, match="1 targets"):
        registry.call("SetV2LoggingLevel", log_target=target("b"), log_level="INFO")


def test_the_first_generation_has_options_of_its_own(registry: Registry, role: str) -> None:
    payload = {"roleArn": role, "logLevel": "INFO"}
    registry.call("SetLoggingOptions", logging_options_payload=payload)
    assert registry.call("GetLoggingOptions") == payload
    registry.call("SetLoggingOptions", logging_options_payload={"roleArn": role})
    assert registry.call("GetLoggingOptions") == payload
    with pytest.raises(NotConfiguredException):
        registry.call("GetV2LoggingOptions")


@pytest.mark.parametrize("name", ["x" * 2048, "\u20ac" * 682])
def test_a_name_of_2048_bytes_is_kept(registry: Registry, role: str, name: str) -> None:
    """The limit is ours: AWS's model has none, an index of PostgreSQL has."""
    registry.call("SetV2LoggingOptions", role_arn=role, default_log_level="ERROR")
    registry.call("SetV2LoggingLevel", log_target=target(name), log_level="INFO")
    assert levels(registry, target_type="CLIENT_ID") == [("CLIENT_ID", name, "INFO")]
    registry.call("DeleteV2LoggingLevel", target_type="CLIENT_ID", target_name=name)
    assert levels(registry, target_type="CLIENT_ID") == []


@pytest.mark.parametrize(
    ("name", "length"), [("x" * 2049, 2049), ("\u20ac" * 683, 2049), ("x" * 100_000, 100_000)]
)
def test_a_longer_name_is_refused(registry: Registry, role: str, name: str, length: int) -> None:
    registry.call("SetV2LoggingOptions", role_arn=role, default_log_level="ERROR")
    said = f"targetName .* has {length} bytes, at most 2048"
    with pytest.raises(InvalidRequestException, match=said):
        registry.call("SetV2LoggingLevel", log_target=target(name), log_level="INFO")
    with pytest.raises(InvalidRequestException, match=said):
        registry.call("DeleteV2LoggingLevel", target_type="CLIENT_ID", target_name=name)

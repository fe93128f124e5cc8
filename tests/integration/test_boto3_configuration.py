"""Endpoints, events, logging, role aliases and domain configurations through boto3."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.databases import settings_of
from tests.integration.fleet import arn, create_role
from tests.integration.refusal import members, pages, refusal
from tests.integration.server import ACCOUNT, Server


def recent(moment: datetime) -> bool:
    return abs(datetime.now(UTC) - moment) < timedelta(minutes=1)


@pytest.fixture(scope="module")
def credentials_role(server: Server) -> str:
    return create_role(server, "Credentials", trust="credentials.iot.amazonaws.com")


def test_every_endpoint_is_described_and_agrees_with_its_configuration(iot: Any) -> None:
    addresses = {
        iot.describe_endpoint(endpointType=kind)["endpointAddress"]
        for kind in ("iot:Data", "iot:Data-ATS", "iot:CredentialProvider", "iot:Jobs")
    }
    assert addresses == {iot.describe_endpoint()["endpointAddress"]}
    listed = iot.list_domain_configurations()["domainConfigurations"]
    defaults = [each for each in listed if each["domainConfigurationName"].startswith("iot:")]
    assert len(defaults) == 3
    for each in defaults:
        name = each["domainConfigurationName"]
        described = iot.describe_domain_configuration(domainConfigurationName=name)
        assert described["domainName"] in addresses
        assert described["domainConfigurationArn"] == each["domainConfigurationArn"]
    unknown = refusal(iot.describe_endpoint, endpointType="iot:Data-Beta")
    assert unknown.kind == (400, "InvalidRequestException")
    assert unknown.message == "Endpoint type iot:Data-Beta not recognized."


def test_events_are_switched_on_and_off(iot: Any) -> None:
    iot.update_event_configurations(eventConfigurations={"THING": {"Enabled": True}})
    described = iot.describe_event_configurations()
    assert len(described["eventConfigurations"]) == 11
    assert described["eventConfigurations"]["THING"] == {"Enabled": True}
    assert described["eventConfigurations"]["CERTIFICATE"] == {"Enabled": False}
    assert recent(described["lastModifiedDate"])
    iot.update_event_configurations(eventConfigurations={"THING": {"Enabled": False}})
    described = iot.describe_event_configurations()
    assert described["eventConfigurations"]["THING"] == {"Enabled": False}
    assert described["creationDate"] <= described["lastModifiedDate"]


def test_logging_is_configured(
    database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with Server(tmp_path / "data", env=settings_of(database, request)) as server:
        iot = server.iot
        first = refusal(iot.get_v2_logging_options)
        assert first.kind == (404, "NotConfiguredException")
        assert members(iot.get_logging_options()) == {}
        role = create_role(server, "Logging")
        iot.set_v2_logging_options(roleArn=role, defaultLogLevel="WARN")
        assert members(iot.get_v2_logging_options()) == {
            "roleArn": role,
            "defaultLogLevel": "WARN",
            "disableAllLogs": False,
        }
        for name in ("a", "b", "c"):
            target = {"targetType": "CLIENT_ID", "targetName": name}
            iot.set_v2_logging_level(logTarget=target, logLevel="DEBUG")
        listed = [
            each["logTarget"].get("targetName")
            for page in pages(iot, "list_v2_logging_levels", "logTargetConfigurations", 2)
            for each in page
        ]
        assert listed == [None, "a", "b", "c"]
        iot.delete_v2_logging_level(targetType="CLIENT_ID", targetName="b")
        levels = iot.list_v2_logging_levels(targetType="CLIENT_ID")["logTargetConfigurations"]
        assert [each["logTarget"]["targetName"] for each in levels] == ["a", "c"]
        untrusted = refusal(
            iot.set_v2_logging_options, roleArn=f"arn:aws:iam::{ACCOUNT}:role/nobody"
        )
        assert untrusted.kind == (400, "InvalidRequestException")
        assert "If the role was just created or updated" in untrusted.message


def test_a_role_alias_lives_and_dies(iot: Any, credentials_role: str, name: str) -> None:
    tags = [{"Key": "team", "Value": "light"}]
    named = {"roleAlias": name, "roleAliasArn": arn(f"rolealias/{name}")}
    created = iot.create_role_alias(roleAlias=name, roleArn=credentials_role, tags=tags)
    assert members(created) == named
    described = iot.describe_role_alias(roleAlias=name)["roleAliasDescription"]
    assert recent(described.pop("creationDate"))
    assert recent(described.pop("lastModifiedDate"))
    assert described == {
        **named,
        "roleArn": credentials_role,
        "owner": ACCOUNT,
        "credentialDurationSeconds": 3600,
    }
    assert iot.list_tags_for_resource(resourceArn=named["roleAliasArn"])["tags"] == tags
    assert members(iot.update_role_alias(roleAlias=name, credentialDurationSeconds=900)) == named
    taken = refusal(iot.create_role_alias, roleAlias=name, roleArn=credentials_role)
    assert taken.kind == (409, "ResourceAlreadyExistsException")
    assert members(iot.delete_role_alias(roleAlias=name)) == {}
    gone = refusal(iot.describe_role_alias, roleAlias=name)
    assert gone.kind == (404, "ResourceNotFoundException")


def test_role_aliases_are_listed_page_by_page(iot: Any, credentials_role: str, name: str) -> None:
    names = [f"{name}-{number}" for number in range(5)]
    for each in names:
        iot.create_role_alias(roleAlias=each, roleArn=credentials_role)
    for ascending in (True, False):
        paginator = iot.get_paginator("list_role_aliases")
        found = [
            page["roleAliases"]
            for page in paginator.paginate(
                ascendingOrder=ascending, PaginationConfig={"PageSize": 2}
            )
        ]
        assert all(len(page) <= 2 for page in found)
        flat = [each for page in found for each in page if each in names]
        assert flat == sorted(names, reverse=not ascending)


def test_a_domain_configuration_lives_until_it_was_disabled_for_a_week(iot: Any, name: str) -> None:
    created = iot.create_domain_configuration(domainConfigurationName=name, serviceType="DATA")
    assert created["domainConfigurationArn"].startswith(arn(f"domainconfiguration/{name}/"))
    described = iot.describe_domain_configuration(domainConfigurationName=name)
    assert described["domainType"] == "AWS_MANAGED"
    assert described["domainConfigurationStatus"] == "ENABLED"
    assert described["serverCertificates"] == []
    assert described["domainName"] == iot.describe_endpoint()["endpointAddress"]
    assert recent(described["lastStatusChangeDate"])
    enabled = refusal(iot.delete_domain_configuration, domainConfigurationName=name)
    assert enabled.kind == (400, "InvalidRequestException")
    iot.update_domain_configuration(
        domainConfigurationName=name, domainConfigurationStatus="DISABLED"
    )
    early = refusal(iot.delete_domain_configuration, domainConfigurationName=name)
    assert early.kind == (400, "InvalidRequestException")
    assert "at least 7 days" in early.message
    custom = refusal(
        iot.create_domain_configuration,
        domainConfigurationName=f"{name}-custom",
        domainName="iot.example.com",
        serverCertificateArns=["arn:aws:acm:us-east-1:123456789012:certificate/0"],
    )
    assert custom.kind == (400, "InvalidRequestException")
    assert "customer-managed domains are not offered" in custom.message


def test_domain_configurations_are_listed_page_by_page(iot: Any, name: str) -> None:
    for number in range(3):
        iot.create_domain_configuration(domainConfigurationName=f"{name}-{number}")
    paginator = iot.get_paginator("list_domain_configurations")
    found = [
        each["domainConfigurationName"]
        for page in paginator.paginate(PaginationConfig={"PageSize": 2})
        for each in page["domainConfigurations"]
    ]
    assert found == sorted(set(found))
    assert {f"{name}-0", f"{name}-2", "iot:Jobs"} <= set(found)


@pytest.mark.parametrize(
    ("operation", "params", "reason"),
    [
        ("list_jobs", {}, "jobs are out of its scope"),
        ("list_topic_rules", {}, "rules are out of its scope"),
        ("describe_account_audit_configuration", {}, "Device Defender is out of its scope"),
        ("list_packages", {}, "software packages are out of its scope"),
        ("search_index", {"queryString": "*"}, "fleet indexing"),
        ("list_authorizers", {}, "no custom authorizers"),
    ],
)
def test_what_is_out_of_scope_says_so(
    iot: Any, operation: str, params: dict[str, Any], reason: str
) -> None:
    refused = refusal(getattr(iot, operation), **params)
    assert refused.kind == (501, "NotImplementedException")
    assert reason in refused.message

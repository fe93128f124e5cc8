"""Domain configurations and endpoints.

Sources: AWS IoT API reference, *DomainConfiguration* and DescribeEndpoint; AWS IoT Developer
Guide, "Managing domain configurations" (DISABLED, seven days) and "Transport security" (the
default security policy); AWS CLI examples, list-domain-configurations (the default endpoints and
the random end of the ARN).
"""

from typing import Any

import pytest

from fleetgate.domain.limits import Limits
from fleetgate.errors import (
    InvalidRequestException,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from fleetgate.operations.domain_configurations import DISABLED_SECONDS, SECURITY_POLICY
from tests.operations.conftest import START, Registry

CERTIFICATE = "arn:aws:acm:eu-west-1:123456789012:certificate/0"


def create(registry: Registry, name: str = "extra", **params: Any) -> dict[str, Any]:
    return registry.call("CreateDomainConfiguration", domain_configuration_name=name, **params)


def describe(registry: Registry, name: str = "extra") -> dict[str, Any]:
    return registry.call("DescribeDomainConfiguration", domain_configuration_name=name)


def update(registry: Registry, name: str = "extra", **params: Any) -> dict[str, Any]:
    return registry.call("UpdateDomainConfiguration", domain_configuration_name=name, **params)


def delete(registry: Registry, name: str = "extra") -> dict[str, Any]:
    return registry.call("DeleteDomainConfiguration", domain_configuration_name=name)


@pytest.mark.parametrize("kind", ["iot:Data", "iot:Data-ATS", "iot:CredentialProvider", "iot:Jobs"])
def test_every_endpoint_is_the_server(registry: Registry, kind: str) -> None:
    found = registry.call("DescribeEndpoint", endpoint_type=kind)
    assert found == {"endpointAddress": "gate.example"}
    assert found == registry.call("DescribeEndpoint")


@pytest.mark.parametrize("kind", ["iot:data", "iot:Data-Beta", ""])
def test_other_endpoints_are_not_recognized(registry: Registry, kind: str) -> None:
    with pytest.raises(InvalidRequestException) as info:
        registry.call("DescribeEndpoint", endpoint_type=kind)
    assert info.value.message == f"Endpoint type {kind} not recognized."


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("iot:Data-ATS", "DATA"),
        ("iot:CredentialProvider", "CREDENTIAL_PROVIDER"),
        ("iot:Jobs", "JOBS"),
    ],
)
def test_the_default_endpoints_are_there(registry: Registry, name: str, service: str) -> None:
    described = describe(registry, name)
    assert described["domainConfigurationArn"] == registry.arn(f"domainconfiguration/{name}")
    assert described["domainName"] == "gate.example"
    assert described["domainType"] == "ENDPOINT"
    assert described["serviceType"] == service
    assert described["domainConfigurationStatus"] == "ENABLED"
    assert described["tlsConfig"] == {"securityPolicy": SECURITY_POLICY}
    with pytest.raises(InvalidRequestException, match="default endpoints can't be updated"):
        update(registry, name, domain_configuration_status="DISABLED")
    with pytest.raises(InvalidRequestException, match="domainConfigurationName"):
        delete(registry, name)


def test_a_configuration_lives_and_dies(registry: Registry) -> None:
    created = create(registry)
    name, _, suffix = created["domainConfigurationArn"].rpartition("/")
    assert name == registry.arn("domainconfiguration/extra")
    assert len(suffix) == 5
    assert created["domainConfigurationName"] == "extra"
    assert describe(registry) == {
        **created,
        "domainName": "gate.example",
        "serverCertificates": [],
        "domainConfigurationStatus": "ENABLED",
        "serviceType": "DATA",
        "domainType": "AWS_MANAGED",
        "lastStatusChangeDate": START,
        "tlsConfig": {"securityPolicy": SECURITY_POLICY},
        "serverCertificateConfig": None,
        "authenticationType": "DEFAULT",
        "applicationProtocol": "DEFAULT",
    }
    registry.clock.now = START + 5
    changed = update(
        registry,
        authentication_type="AWS_X509",
        application_protocol="SECURE_MQTT",
        tls_config={"securityPolicy": SECURITY_POLICY},
        server_certificate_config={"enableOCSPCheck": False},
        remove_authorizer_config=True,
    )
    assert changed == created
    described = describe(registry)
    assert described["authenticationType"] == "AWS_X509"
    assert described["applicationProtocol"] == "SECURE_MQTT"
    assert described["serverCertificateConfig"] == {"enableOCSPCheck": False}
    assert described["lastStatusChangeDate"] == START

    with pytest.raises(InvalidRequestException, match="has to be DISABLED"):
        delete(registry)
    update(registry, domain_configuration_status="DISABLED")
    assert describe(registry)["lastStatusChangeDate"] == START + 5
    registry.clock.now = START + 5 + DISABLED_SECONDS - 1
    update(registry, domain_configuration_status="DISABLED")
    with pytest.raises(InvalidRequestException, match="disabled for at least 7 days"):
        delete(registry)
    registry.clock.now += 1
    assert delete(registry) == {}
    for gone in (describe, update, delete):
        with pytest.raises(ResourceNotFoundException, match="extra"):
            gone(registry)


def test_a_name_is_taken_once(registry: Registry) -> None:
    created = create(registry)
    with pytest.raises(ResourceAlreadyExistsException, match="extra") as info:
        create(registry)
    assert info.value.members == {
        "resourceId": "extra",
        "resourceArn": created["domainConfigurationArn"],
    }


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"domain_name": "iot.example.com"},
            "Cannot provide a custom domain name for an AWS Managed Domain",
        ),
        (
            {"domain_name": "iot.example.com", "server_certificate_arns": [CERTIFICATE]},
            "serverCertificateArns `arn:aws:acm.*customer-managed domains are not offered",
        ),
        ({"validation_certificate_arn": CERTIFICATE}, "validationCertificateArn"),
        ({"service_type": "JOBS"}, "supports only the DATA service type"),
        ({"authorizer_config": {"defaultAuthorizerName": "a"}}, "custom authorizers"),
        (
            {"tls_config": {"securityPolicy": "IoTSecurityPolicy_TLS13_1_3_2022_10"}},
            "TLS13_1_3_2022_10` is not offered",
        ),
        ({"server_certificate_config": {"enableOCSPCheck": True}}, "enableOCSPCheck"),
        ({"authentication_type": "CUSTOM_AUTH"}, "CUSTOM_AUTH` is not offered"),
        ({"application_protocol": "MQTT_WSS"}, "MQTT_WSS` is not offered"),
        (
            {"client_certificate_config": {"clientCertificateCallbackArn": "arn:aws:lambda:x"}},
            "clientCertificateCallbackArn",
        ),
    ],
)
def test_what_the_server_would_not_do_is_refused(
    registry: Registry, params: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestException, match=message):
        create(registry, **params)
    with pytest.raises(ResourceNotFoundException):
        describe(registry)
    create(registry, "other")
    settable = {key: value for key, value in params.items() if key.endswith("config")}
    if settable:
        with pytest.raises(InvalidRequestException, match=message):
            update(registry, "other", **settable)


def listed(registry: Registry, **params: Any) -> list[str]:
    names: list[str] = []
    marker = None
    while True:
        page = registry.call("ListDomainConfigurations", marker=marker, **params)
        assert len(page["domainConfigurations"]) <= params.get("page_size", 250)
        names += [each["domainConfigurationName"] for each in page["domainConfigurations"]]
        marker = page["nextMarker"]
        if marker is None:
            return names


@pytest.mark.parametrize("size", [1, 2, 3, 250])
def test_configurations_are_listed_by_name(registry: Registry, size: int) -> None:
    for name in ("z", "extra", "iot.data"):
        create(registry, name)
    assert listed(registry, page_size=size) == [
        "extra",
        "iot.data",
        "iot:CredentialProvider",
        "iot:Data-ATS",
        "iot:Jobs",
        "z",
    ]
    assert listed(registry, page_size=size, service_type="DATA") == [
        "extra",
        "iot.data",
        "iot:Data-ATS",
        "z",
    ]
    assert listed(registry, page_size=size, service_type="JOBS") == ["iot:Jobs"]


def test_configurations_are_limited(registry: Registry) -> None:
    registry.services.limits = Limits(domain_configurations=1)
    create(registry)
    with pytest.raises(LimitExceededException, match="1 domain configurations"):
        create(registry, "b")


def test_a_configuration_has_tags_under_its_whole_arn(registry: Registry) -> None:
    arn = create(registry, tags=[{"Key": "team", "Value": "light"}])["domainConfigurationArn"]
    found = registry.call("ListTagsForResource", resource_arn=arn)
    assert found["tags"] == [{"Key": "team", "Value": "light"}]
    with pytest.raises(ResourceNotFoundException):
        registry.call("ListTagsForResource", resource_arn=arn[:-5] + "AAAAA")

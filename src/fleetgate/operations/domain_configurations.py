"""Domain configurations: the endpoints of the account and what was decided about them.

There are those of the default endpoints, which nobody creates or changes, and those that AWS calls
AWS-managed: they lie under the server's own host name. A domain of one's own needs a certificate
in ACM, which is not here; what a configuration asks for and the server would not do is refused.

Source: AWS IoT Developer Guide, "Domain configurations" and "Managing domain configurations".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from fleetgate.errors import (
    InvalidRequestException,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
)
from fleetgate.operations import pages
from fleetgate.operations.call import Call
from fleetgate.operations.endpoints import endpoint_address
from fleetgate.operations.tags import Tags, add_tags, checked_tags
from fleetgate.store import domain_configurations
from fleetgate.store import tags as stored_tags
from fleetgate.store.domain_configurations import DomainConfiguration
from fleetgate.store.engine import Tx

DEFAULTS: Mapping[str, str] = {
    "iot:CredentialProvider": "CREDENTIAL_PROVIDER",
    "iot:Data-ATS": "DATA",
    "iot:Jobs": "JOBS",
}
"""The configurations of the default endpoints and their service types, as AWS lists them (AWS CLI
examples, list-domain-configurations)."""

SECURITY_POLICY = "IoTSecurityPolicy_TLS13_1_2_2022_10"
"""TLS 1.2 and 1.3: AWS's default, and what the gateway does."""

AUTHENTICATION_TYPES = ("DEFAULT", "AWS_X509")
APPLICATION_PROTOCOLS = ("DEFAULT", "SECURE_MQTT")
"""What the gateway does: MQTT over TLS with client certificates."""

DISABLED_SECONDS = 7 * 24 * 3600
"""How long an AWS-managed configuration has to be disabled before it can be deleted."""

_SUFFIX_LETTERS = "abcdefghijklmnopqrstuvwxyz"


async def create_domain_configuration(
    call: Call,
    domain_configuration_name: str,
    domain_name: str | None = None,
    server_certificate_arns: Sequence[str] | None = None,
    validation_certificate_arn: str | None = None,
    authorizer_config: Mapping[str, Any] | None = None,
    service_type: str = "DATA",
    tags: Tags | None = None,
    tls_config: Mapping[str, str] | None = None,
    server_certificate_config: Mapping[str, Any] | None = None,
    authentication_type: str = "DEFAULT",
    application_protocol: str = "DEFAULT",
    client_certificate_config: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """CreateDomainConfiguration: an AWS-managed one for the service type `DATA`."""
    _check_managed(domain_name, server_certificate_arns, validation_certificate_arn)
    if service_type != "DATA":
        raise InvalidRequestException(
            f"AWS IoT Core currently supports only the DATA service type, not {service_type}"
        )
    _check_offered(authorizer_config, tls_config, server_certificate_config)
    _check_served(authentication_type, application_protocol, client_certificate_config)
    checked = checked_tags(call, tags)
    configuration = DomainConfiguration(
        domain_configuration_name,
        "".join(_SUFFIX_LETTERS[byte % 26] for byte in call.services.random_bytes(5)),
        service_type,
        "ENABLED",
        call.now,
        SECURITY_POLICY,
        authentication_type,
        application_protocol,
        _text(server_certificate_config),
    )

    def change(tx: Tx) -> None:
        before = domain_configurations.find_domain_configuration(tx, domain_configuration_name)
        if before is not None:
            raise ResourceAlreadyExistsException(
                f"Domain configuration {domain_configuration_name} already exists",
                resourceId=domain_configuration_name,
                resourceArn=_arn(call, before),
            )
        limit = call.services.limits.domain_configurations
        if domain_configurations.count_domain_configurations(tx) >= limit:
            raise LimitExceededException(
                f"the account has {limit} domain configurations, the limit `domain_configurations`"
            )
        domain_configurations.add_domain_configuration(tx, configuration)
        add_tags(tx, call, _arn(call, configuration), checked)

    await call.write(change)
    return _named(call, configuration)


async def describe_domain_configuration(
    call: Call, domain_configuration_name: str
) -> dict[str, Any]:
    """DescribeDomainConfiguration: also of the default endpoints, e.g. `iot:Data-ATS`."""
    if domain_configuration_name in DEFAULTS:
        return {
            "domainConfigurationName": domain_configuration_name,
            "domainConfigurationArn": _default_arn(call, domain_configuration_name),
            "domainName": endpoint_address(call),
            "serverCertificates": [],
            "domainConfigurationStatus": "ENABLED",
            "serviceType": DEFAULTS[domain_configuration_name],
            "domainType": "ENDPOINT",
            "tlsConfig": {"securityPolicy": SECURITY_POLICY},
            "authenticationType": "DEFAULT",
            "applicationProtocol": "DEFAULT",
        }
    found = await call.read(_require, domain_configuration_name)
    return {
        **_named(call, found),
        "domainName": endpoint_address(call),
        "serverCertificates": [],
        "domainConfigurationStatus": found.status,
        "serviceType": found.service_type,
        "domainType": "AWS_MANAGED",
        "lastStatusChangeDate": found.status_changed_at,
        "tlsConfig": {"securityPolicy": found.security_policy},
        "serverCertificateConfig": None
        if found.server_certificate is None
        else msgspec.json.decode(found.server_certificate),
        "authenticationType": found.authentication_type,
        "applicationProtocol": found.application_protocol,
    }


async def update_domain_configuration(
    call: Call,
    domain_configuration_name: str,
    authorizer_config: Mapping[str, Any] | None = None,
    domain_configuration_status: str | None = None,
    remove_authorizer_config: bool = False,  # noqa: ARG001 - there is none to remove
    tls_config: Mapping[str, str] | None = None,
    server_certificate_config: Mapping[str, Any] | None = None,
    authentication_type: str | None = None,
    application_protocol: str | None = None,
    client_certificate_config: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """UpdateDomainConfiguration: what is left out stays as it is."""
    if domain_configuration_name in DEFAULTS:
        raise InvalidRequestException(
            "Domain configurations for default endpoints can't be updated "
            f"(domainConfigurationName: {domain_configuration_name})"
        )
    _check_offered(authorizer_config, tls_config, server_certificate_config)
    _check_served(authentication_type, application_protocol, client_certificate_config)

    def change(tx: Tx) -> DomainConfiguration:
        before = _require(tx, domain_configuration_name)
        status = domain_configuration_status or before.status
        after = replace(
            before,
            status=status,
            status_changed_at=before.status_changed_at if status == before.status else call.now,
            authentication_type=authentication_type or before.authentication_type,
            application_protocol=application_protocol or before.application_protocol,
            server_certificate=_text(server_certificate_config) or before.server_certificate,
        )
        domain_configurations.update_domain_configuration(tx, after)
        return after

    return _named(call, await call.write(change))


async def delete_domain_configuration(call: Call, domain_configuration_name: str) -> dict[str, Any]:
    """DeleteDomainConfiguration: one that has been disabled for seven days."""

    def change(tx: Tx) -> None:
        found = _require(tx, domain_configuration_name)
        if found.status != "DISABLED":
            raise InvalidRequestException(
                f"Domain configuration {domain_configuration_name} is {found.status}; it has to "
                "be DISABLED before it can be deleted"
            )
        if call.now - found.status_changed_at < DISABLED_SECONDS:
            raise InvalidRequestException(
                "AWS Managed Domain Configuration must be disabled for at least 7 days before it "
                "can be deleted"
            )
        domain_configurations.remove_domain_configuration(tx, domain_configuration_name)
        stored_tags.remove_tags(tx, _arn(call, found))

    await call.write(change)
    return {}


async def list_domain_configurations(
    call: Call,
    marker: str | None = None,
    page_size: int = pages.PAGE,
    service_type: str | None = None,
) -> dict[str, Any]:
    """ListDomainConfigurations: by name, those of the default endpoints among them."""
    operation = f"ListDomainConfigurations {service_type or ''}"
    after = pages.start_after_name(call, operation, marker)
    created = await call.read(
        domain_configurations.list_domain_configurations, service_type, after, page_size + 1
    )
    summaries = [{**_named(call, each), "serviceType": each.service_type} for each in created]
    summaries += [
        {
            "domainConfigurationName": name,
            "domainConfigurationArn": _default_arn(call, name),
            "serviceType": kind,
        }
        for name, kind in DEFAULTS.items()
        if name > after and service_type in (None, kind)
    ]
    summaries.sort(key=lambda summary: summary["domainConfigurationName"])
    items, following = pages.page(
        call,
        operation,
        summaries[: page_size + 1],
        page_size,
        lambda summary: (summary["domainConfigurationName"],),
    )
    return {"domainConfigurations": items, "nextMarker": following}


def _require(tx: Tx, name: str) -> DomainConfiguration:
    found = domain_configurations.find_domain_configuration(tx, name)
    if found is None:
        raise ResourceNotFoundException(f"Domain configuration {name} not found")
    return found


def _arn(call: Call, configuration: DomainConfiguration) -> str:
    return call.account.arn(f"domainconfiguration/{configuration.name}/{configuration.suffix}")


def _default_arn(call: Call, name: str) -> str:
    return call.account.arn(f"domainconfiguration/{name}")


def _named(call: Call, configuration: DomainConfiguration) -> dict[str, Any]:
    return {
        "domainConfigurationName": configuration.name,
        "domainConfigurationArn": _arn(call, configuration),
    }


def _check_managed(
    domain_name: str | None,
    server_certificate_arns: Sequence[str] | None,
    validation_certificate_arn: str | None,
) -> None:
    for member, value in (
        ("serverCertificateArns", ", ".join(server_certificate_arns or ())),
        ("validationCertificateArn", validation_certificate_arn),
    ):
        if value:
            raise InvalidRequestException(
                f"{member} `{value[:120]}`: customer-managed domains are not offered by this "
                "server, which has no certificates in ACM; its own names are the setting "
                "`host_names`"
            )
    if domain_name is not None:
        raise InvalidRequestException(
            "Cannot provide a custom domain name for an AWS Managed Domain"
        )


def _check_offered(
    authorizer_config: Mapping[str, Any] | None,
    tls_config: Mapping[str, str] | None,
    server_certificate_config: Mapping[str, Any] | None,
) -> None:
    if authorizer_config:
        raise InvalidRequestException(
            "authorizerConfig: custom authorizers are not offered by this server"
        )
    policy = (tls_config or {}).get("securityPolicy")
    if policy and policy != SECURITY_POLICY:
        raise InvalidRequestException(
            f"securityPolicy `{policy}` is not offered by this server, only `{SECURITY_POLICY}`"
        )
    for member, value in (server_certificate_config or {}).items():
        if value:
            raise InvalidRequestException(
                f"serverCertificateConfig.{member} `{value}`: OCSP stapling is not offered by "
                "this server"
            )


def _check_served(
    authentication_type: str | None,
    application_protocol: str | None,
    client_certificate_config: Mapping[str, str] | None,
) -> None:
    if authentication_type is not None and authentication_type not in AUTHENTICATION_TYPES:
        raise InvalidRequestException(
            f"authenticationType `{authentication_type}` is not offered by this server, only "
            f"{' and '.join(AUTHENTICATION_TYPES)}"
        )
    if application_protocol is not None and application_protocol not in APPLICATION_PROTOCOLS:
        raise InvalidRequestException(
            f"applicationProtocol `{application_protocol}` is not offered by this server, only "
            f"{' and '.join(APPLICATION_PROTOCOLS)}"
        )
    callback = (client_certificate_config or {}).get("clientCertificateCallbackArn")
    if callback:
        raise InvalidRequestException(
            f"clientCertificateCallbackArn `{callback[:140]}`: it would never be asked, "
            "certificate callbacks are not offered by this server"
        )


def _text(server_certificate_config: Mapping[str, Any] | None) -> str | None:
    if not server_certificate_config:
        return None
    return msgspec.json.encode(server_certificate_config).decode()

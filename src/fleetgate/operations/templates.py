"""Provisioning templates and their versions."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fleetgate.domain.template import Kind, registration_message
from fleetgate.errors import (
    DeleteConflictException,
    InvalidRequestException,
    InvalidTemplate,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
    VersionsLimitExceededException,
)
from fleetgate.names import Account
from fleetgate.operations import pages
from fleetgate.operations.authorization import require_role
from fleetgate.operations.call import Call
from fleetgate.operations.hooks import check_kind, checked_hook, shown_hook
from fleetgate.operations.registration import parsed_template
from fleetgate.operations.tags import Tags, add_tags, checked_tags
from fleetgate.store import ca_certificates, certificates, templates
from fleetgate.store.engine import Tx
from fleetgate.store.tags import remove_tags

log = logging.getLogger("fleetgate.provisioning")

_ROLE = re.compile(r"arn:aws[a-z-]*:iam:[a-z0-9-]*:[0-9]{12}:role/[\w+=,.@/-]{1,512}")


def template_arn(account: Account, template_name: str) -> str:
    """The ARN of a provisioning template."""
    return account.arn(f"provisioningtemplate/{template_name}")


async def create_provisioning_template(
    call: Call,
    template_name: str,
    template_body: str,
    provisioning_role_arn: str,
    description: str | None = None,
    enabled: bool = False,
    pre_provisioning_hook: Mapping[str, str] | None = None,
    tags: Tags | None = None,
    type: str = "FLEET_PROVISIONING",  # noqa: A002 - the member's name
) -> dict[str, Any]:
    """CreateProvisioningTemplate: stores a template with its version 1; its type is for good."""
    kind = Kind(type)
    hook = await checked_hook(call, pre_provisioning_hook, kind, template_name)
    _check_role(provisioning_role_arn)
    _check_body(call, template_body, kind)
    checked = checked_tags(call, tags)
    arn = template_arn(call.account, template_name)
    await require_role(call, provisioning_role_arn, source_arn=arn)

    def change(tx: Tx) -> None:
        if templates.find_template(tx, template_name) is not None:
            raise ResourceAlreadyExistsException(
                f"Template with name {template_name} already exists",
                resourceId=template_name,
                resourceArn=arn,
            )
        limit = call.services.limits.templates
        if templates.count_templates(tx) >= limit:
            raise LimitExceededException(
                f"the account has {limit} templates, the limit `templates`"
            )
        template = templates.Template(
            template_name,
            description,
            enabled,
            provisioning_role_arn,
            1,
            1,
            call.now,
            call.now,
            kind,
            hook,
        )
        templates.add_template(tx, template, template_body)
        add_tags(tx, call, arn, checked)

    await call.write(change)
    return {
        "templateArn": arn,
        "templateName": template_name,
        "defaultVersionId": 1,
    }


async def describe_provisioning_template(call: Call, template_name: str) -> dict[str, Any]:
    """DescribeProvisioningTemplate: with the body of the default version."""

    def find(tx: Tx) -> tuple[templates.Template, str]:
        template = require_template(tx, template_name)
        found = templates.find_in_force(tx, template_name)
        return template, "" if found is None else found.body

    template, body = await call.read(find)
    return {
        **_summary(call.account, template),
        "defaultVersionId": template.default_version_id,
        "templateBody": body,
        "provisioningRoleArn": template.provisioning_role_arn,
        "preProvisioningHook": shown_hook(template.hook),
    }


async def update_provisioning_template(
    call: Call,
    template_name: str,
    description: str | None = None,
    enabled: bool | None = None,
    default_version_id: int | None = None,
    provisioning_role_arn: str | None = None,
    pre_provisioning_hook: Mapping[str, str] | None = None,
    remove_pre_provisioning_hook: bool = False,
) -> dict[str, Any]:
    """UpdateProvisioningTemplate: what is left out stays as it is."""
    hook = None
    if pre_provisioning_hook is not None:
        if remove_pre_provisioning_hook:
            raise InvalidRequestException(
                "preProvisioningHook and removePreProvisioningHook exclude each other"
            )
        kind = (await call.read(require_template, template_name)).kind
        hook = await checked_hook(call, pre_provisioning_hook, kind, template_name)
    if provisioning_role_arn is not None:
        _check_role(provisioning_role_arn)
        await call.read(require_template, template_name)
        arn = template_arn(call.account, template_name)
        await require_role(call, provisioning_role_arn, source_arn=arn)

    def change(tx: Tx) -> None:
        template = require_template(tx, template_name)
        if default_version_id is not None:
            _require_version(tx, template, default_version_id)
        if hook is not None:
            check_kind(template.kind)  # it may have been made anew meanwhile
        templates.update_template(
            tx,
            replace(
                template,
                description=template.description if description is None else description,
                enabled=template.enabled if enabled is None else enabled,
                default_version_id=default_version_id or template.default_version_id,
                provisioning_role_arn=provisioning_role_arn or template.provisioning_role_arn,
                modified_at=call.now,
                hook=None if remove_pre_provisioning_hook else hook or template.hook,
            ),
        )

    await call.write(change)
    return {}


async def delete_provisioning_template(call: Call, template_name: str) -> dict[str, Any]:
    """DeleteProvisioningTemplate: with all its versions; its temporary claims end."""

    def change(tx: Tx) -> list[str]:
        require_template(tx, template_name)
        users = ca_certificates.list_ca_certificates(tx, template_name, None, 1, ascending=True)
        if users:
            raise DeleteConflictException(
                f"template {template_name} is named by the registration configuration of CA "
                f"certificate {users[0].certificate_id}: change that with UpdateCACertificate first"
            )
        templates.remove_template(tx, template_name)
        remove_tags(tx, template_arn(call.account, template_name))
        return certificates.update_claims_of_deleted_template(tx, template_name)

    for certificate_id in await call.write(change):
        call.services.certificate_changed(certificate_id)
    return {}


async def list_provisioning_templates(
    call: Call, max_results: int = pages.PAGE, next_token: str | None = None
) -> dict[str, Any]:
    """ListProvisioningTemplates: by name."""
    found = await call.read(
        templates.list_templates,
        pages.start_after_name(call, "ListProvisioningTemplates", next_token),
        max_results + 1,
    )
    items, following = pages.page(
        call, "ListProvisioningTemplates", found, max_results, lambda item: (item.template_name,)
    )
    return {
        "templates": [_summary(call.account, item) for item in items],
        "nextToken": following,
    }


async def create_provisioning_template_version(
    call: Call, template_name: str, template_body: str, set_as_default: bool = False
) -> dict[str, Any]:
    """CreateProvisioningTemplateVersion: in force at once when `set_as_default`."""
    # the type of a template of this name is another one only when it is made anew meanwhile
    checked = (await call.read(require_template, template_name)).kind
    _check_body(call, template_body, checked)

    def change(tx: Tx) -> int:
        template = require_template(tx, template_name)
        if template.kind is not checked:
            _check_body(call, template_body, template.kind)
        limit = call.services.limits.template_versions
        if templates.count_template_versions(tx, template_name) >= limit:
            raise VersionsLimitExceededException(
                f"template {template_name} has {limit} versions, the limit; "
                "delete one that is not the default"
            )
        return templates.add_template_version(
            tx, template, template_body, call.now, default=set_as_default
        )

    version_id = await call.write(change)
    return {
        "templateArn": template_arn(call.account, template_name),
        "templateName": template_name,
        "versionId": version_id,
        "isDefaultVersion": set_as_default,
    }


async def describe_provisioning_template_version(
    call: Call, template_name: str, version_id: int
) -> dict[str, Any]:
    """DescribeProvisioningTemplateVersion."""

    def find(tx: Tx) -> tuple[templates.Template, templates.TemplateVersion]:
        template = require_template(tx, template_name)
        return template, _require_version(tx, template, version_id)

    template, version = await call.read(find)
    return {"templateBody": version.body, **_version(template, version)}


async def delete_provisioning_template_version(
    call: Call, template_name: str, version_id: int
) -> dict[str, Any]:
    """DeleteProvisioningTemplateVersion: any version but the default one."""

    def change(tx: Tx) -> None:
        template = require_template(tx, template_name)
        _require_version(tx, template, version_id)
        if version_id == template.default_version_id:
            raise DeleteConflictException(
                f"version {version_id} is the default version of template {template_name}; "
                "make another one the default first"
            )
        templates.remove_template_version(tx, template_name, version_id)

    await call.write(change)
    return {}


async def list_provisioning_template_versions(
    call: Call,
    template_name: str,
    max_results: int = pages.PAGE,
    next_token: str | None = None,
) -> dict[str, Any]:
    """ListProvisioningTemplateVersions: by id."""
    after = pages.start(call, "ListProvisioningTemplateVersions", next_token)

    def find(tx: Tx) -> tuple[templates.Template, list[templates.TemplateVersion]]:
        return require_template(tx, template_name), templates.list_template_versions(
            tx, template_name, 0 if after is None else int(after[0]), max_results + 1
        )

    template, found = await call.read(find)
    items, following = pages.page(
        call,
        "ListProvisioningTemplateVersions",
        found,
        max_results,
        lambda version: (version.version_id,),
    )
    return {
        "versions": [_version(template, version) for version in items],
        "nextToken": following,
    }


def require_template(tx: Tx, template_name: str) -> templates.Template:
    """The template; raises ResourceNotFoundException when there is none of this name."""
    template = templates.find_template(tx, template_name)
    if template is None:
        raise ResourceNotFoundException(f"Template {template_name} not found")
    return template


def require_jitp_template(tx: Tx, template_name: str) -> templates.Template:
    """The template, for the registration configuration of a CA certificate.

    Raises ResourceNotFoundException, and InvalidRequestException when it is of another type.
    """
    template = templates.find_template(tx, template_name)
    if template is None:
        raise ResourceNotFoundException(f"Template not found (name={template_name})")
    if template.kind is not Kind.JITP:
        raise InvalidRequestException(
            f"registrationConfig: template {template_name} is of type {template.kind}; "
            "just-in-time provisioning takes one of type JITP"
        )
    return template


def _require_version(
    tx: Tx, template: templates.Template, version_id: int
) -> templates.TemplateVersion:
    name = template.template_name
    version = None
    if 0 < version_id <= template.last_version_id:  # the database cannot hold every integer
        version = templates.find_template_version(tx, name, version_id)
    if version is None:
        raise ResourceNotFoundException(f"Template {name} has no version {version_id}")
    return version


def _check_body(call: Call, body: str, kind: Kind) -> None:
    try:
        parsed_template(call, body, kind)
    except InvalidTemplate as error:
        if kind is Kind.JITP:
            raise InvalidRequestException(registration_message(error)) from None
        raise InvalidRequestException(f"Invalid provisioning template. {error.message}") from None


def _check_role(arn: str) -> None:
    if not _ROLE.fullmatch(arn):
        raise InvalidRequestException(
            f"provisioningRoleArn `{arn[:120]}` is not the ARN of an IAM role "
            "(arn:aws:iam::ACCOUNT:role/NAME)"
        )


def _summary(account: Account, template: templates.Template) -> dict[str, Any]:
    return {
        "templateArn": template_arn(account, template.template_name),
        "templateName": template.template_name,
        "description": template.description,
        "creationDate": template.created_at,
        "lastModifiedDate": template.modified_at,
        "enabled": template.enabled,
        "type": template.kind.value,
    }


def _version(template: templates.Template, version: templates.TemplateVersion) -> dict[str, Any]:
    return {
        "versionId": version.version_id,
        "creationDate": version.created_at,
        "isDefaultVersion": version.version_id == template.default_version_id,
    }

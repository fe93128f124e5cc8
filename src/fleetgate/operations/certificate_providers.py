"""The certificate provider of the account: a function that signs instead of the server.

There is one at most. While there is, each CreateCertificateFromCsr of a device is signed by its
function (operations/provider_signing.py); nothing else is. Devices ask all the time and the
provider changes hardly ever, so the services have it in memory, as it was stored last: every
change holds `certificate_provider_lock` until they do.

Sources: AWS IoT API Reference, *CertificateProvider*; AWS IoT Developer Guide, "Self-managed
certificate signing using AWS IoT Core certificate provider".
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec

from fleetgate.errors import (
    InvalidRequestException,
    LimitExceededException,
    ResourceAlreadyExistsException,
    ResourceNotFoundException,
    ServiceError,
)
from fleetgate.functions.target import FunctionError
from fleetgate.names import Account
from fleetgate.operations import invocation, pages
from fleetgate.operations.call import Call, Services
from fleetgate.operations.tags import Tags, add_tags, checked_tags
from fleetgate.store import certificate_providers
from fleetgate.store import tags as stored_tags
from fleetgate.store.certificate_providers import CertificateProvider
from fleetgate.store.engine import Tx

log = logging.getLogger("fleetgate.certificate_providers")

OPERATIONS = ("CreateCertificateFromCsr",)
"""What a provider signs for: all there is to say (AWS IoT API Reference,
`accountDefaultForOperations`)."""


def provider_arn(account: Account, name: str) -> str:
    """The ARN of a certificate provider as the API tells it; see `Account.known_as`."""
    return account.arn(f"certificateprovider:{name}")


async def create_certificate_provider(
    call: Call,
    certificate_provider_name: str,
    lambda_function_arn: str,
    account_default_for_operations: Sequence[str],
    client_token: str | None = None,
    tags: Tags | None = None,
) -> dict[str, Any]:
    """CreateCertificateProvider: from now on its function signs what devices ask for by CSR."""
    name = certificate_provider_name
    _check_function(call, lambda_function_arn)
    checked = checked_tags(call, tags)
    request = _digest(name, lambda_function_arn, account_default_for_operations, checked)
    new = CertificateProvider(name, lambda_function_arn, client_token, request, call.now, call.now)

    def change(tx: Tx) -> None:
        there = certificate_providers.find_certificate_provider(tx)
        if there is not None and client_token is not None and there.client_token == client_token:
            if there.request == request:
                return  # a request that is sent again has the same answer
            raise InvalidRequestException(
                f"clientToken `{client_token}` was used to create certificate provider "
                f"`{there.name}` from another request"
            )
        if there is not None and there.name == name:
            raise ResourceAlreadyExistsException(
                f"CertificateProvider cannot be created - already exists (name={name})",
                resourceId=name,
                resourceArn=provider_arn(call.account, name),
            )
        if there is not None:
            raise LimitExceededException(
                f"the account has certificate provider `{there.name}`, and one is the limit"
            )
        certificate_providers.add_certificate_provider(tx, new)
        add_tags(tx, call, _known_as(call, name), checked)

    await _change(call, change)
    return _named(call, name)


async def describe_certificate_provider(
    call: Call, certificate_provider_name: str
) -> dict[str, Any]:
    """DescribeCertificateProvider: its function, and since when."""
    found = await call.read(require_certificate_provider, certificate_provider_name)
    return {
        **_named(call, found.name),
        "lambdaFunctionArn": found.function_arn,
        "accountDefaultForOperations": list(OPERATIONS),
        "creationDate": found.created_at,
        "lastModifiedDate": found.modified_at,
    }


async def update_certificate_provider(
    call: Call,
    certificate_provider_name: str,
    lambda_function_arn: str | None = None,
    account_default_for_operations: Sequence[str] | None = None,  # noqa: ARG001 - one value
) -> dict[str, Any]:
    """UpdateCertificateProvider: what is left out stays as it is."""
    if lambda_function_arn is not None:
        _check_function(call, lambda_function_arn)

    def change(tx: Tx) -> None:
        before = require_certificate_provider(tx, certificate_provider_name)
        after = replace(
            before,
            function_arn=lambda_function_arn or before.function_arn,
            modified_at=call.now,
        )
        certificate_providers.update_certificate_provider(tx, after)

    await _change(call, change)
    return _named(call, certificate_provider_name)


async def delete_certificate_provider(call: Call, certificate_provider_name: str) -> dict[str, Any]:
    """DeleteCertificateProvider: from now on the server signs again."""

    def change(tx: Tx) -> None:
        require_certificate_provider(tx, certificate_provider_name)
        certificate_providers.remove_certificate_provider(tx, certificate_provider_name)
        stored_tags.remove_tags(tx, _known_as(call, certificate_provider_name))

    await _change(call, change)
    return {}


async def list_certificate_providers(
    call: Call,
    next_token: str | None = None,
    ascending_order: bool = False,  # noqa: ARG001 - one has no order
) -> dict[str, Any]:
    """ListCertificateProviders: the one there is, all on one page."""
    pages.start(call, "ListCertificateProviders", next_token)
    found = await call.read(certificate_providers.find_certificate_provider)
    return {"certificateProviders": [] if found is None else [_named(call, found.name)]}


async def load_certificate_provider(services: Services) -> None:
    """Has the services know who signs, as it is stored."""
    services.certificate_provider = await services.store.read(
        certificate_providers.find_certificate_provider
    )


def require_certificate_provider(tx: Tx, name: str) -> CertificateProvider:
    """The certificate provider; raises ResourceNotFoundException when none has this name."""
    found = certificate_providers.find_certificate_provider_named(tx, name)
    if found is None:
        raise ResourceNotFoundException(f"CertificateProvider not found (name={name})")
    return found


async def _change(call: Call, change: Callable[[Tx], None]) -> None:
    """Makes a change, and has the services know of it before anybody hears that it was made."""
    services = call.services
    async with services.certificate_provider_lock:
        try:
            services.certificate_provider = await call.write(_changed, change)
        except ServiceError:
            # of some writes nobody knows whether they were made
            with suppress(ServiceError):
                await load_certificate_provider(services)
            raise
        found = services.certificate_provider
    if found is None:
        log.info("event=signing by=server request=%s", call.request_id)
        return
    log.info(
        "event=signing by=provider provider=%s function=%s request=%s",
        *(found.name, found.function_arn, call.request_id),
    )
    await _tell_unready(call, found)


async def _tell_unready(call: Call, provider: CertificateProvider) -> None:
    """Logs why the function cannot be invoked yet, if it cannot: devices are refused until then."""
    try:
        name = invocation.function_name(call.account, provider.function_arn)
        function = await invocation.resolve(call, name)
        await invocation.require_permission(
            call, function, provider_arn(call.account, provider.name)
        )
    except (FunctionError, ServiceError) as error:
        log.warning(
            "event=provider-not-ready provider=%s function=%s reason=%r request=%s",
            *(provider.name, provider.function_arn, error.message, call.request_id),
        )


def _check_function(call: Call, arn: str) -> None:
    try:
        invocation.function_name(call.account, arn)
    except InvalidRequestException as error:
        raise InvalidRequestException(f"lambdaFunctionArn: {error.message}") from None


def _changed(tx: Tx, change: Callable[[Tx], None]) -> CertificateProvider | None:
    change(tx)
    return certificate_providers.find_certificate_provider(tx)


def _known_as(call: Call, name: str) -> str:
    return call.account.known_as(provider_arn(call.account, name))


def _named(call: Call, name: str) -> dict[str, Any]:
    return {
        "certificateProviderName": name,
        "certificateProviderArn": provider_arn(call.account, name),
    }


def _digest(
    name: str, function_arn: str, operations: Sequence[str], tags: Mapping[str, str]
) -> str:
    content = msgspec.json.encode((name, function_arn, operations, tags), order="deterministic")
    return hashlib.sha256(content).hexdigest()

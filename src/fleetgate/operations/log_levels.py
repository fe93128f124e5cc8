"""Logging options and levels: kept as AWS keeps them. There is no CloudWatch to log to, and the
server's own log goes by its ``log_level`` setting alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from fleetgate.errors import (
    InvalidRequestException,
    LimitExceededException,
    NotConfiguredException,
)
from fleetgate.operations import pages
from fleetgate.operations.authorization import require_role
from fleetgate.operations.call import Call
from fleetgate.store import log_levels
from fleetgate.store.engine import Tx
from fleetgate.store.log_levels import LoggingOptions, LogLevel

V1, V2 = "v1", "v2"
"""The two generations of the API. Neither sees the options of the other."""

EVENT_TYPES = (
    "Connect",
    "Disconnect",
    "DeleteConnection",
    "GetRetainedMessage",
    "ListRetainedMessage",
    "Publish-In",
    "Publish-Out",
    "Queued",
    "Subscribe",
    "Unsubscribe",
    "GetDeviceCredentials",
    "ProvisionDevice",
)
"""Types of log entries this server could have something to say about (AWS IoT Developer Guide,
"CloudWatch Logs AWS IoT log entries": message broker and device provisioning)."""

TARGET_NAME_BYTES = 2048
"""Bytes of a target's name at most, in UTF-8. AWS's model has no bound; names, client ids and
principals are shorter, and a name has to fit into a page of an index of the database."""

_DEFAULT = "DEFAULT"
_FIRST = ("", "")


async def get_v2_logging_options(call: Call, verbose: bool = False) -> dict[str, Any]:
    """GetV2LoggingOptions: `verbose` adds the event types without a configuration of their own."""
    options = await call.read(_require_options)
    configured = _event_configurations(options)
    if verbose:
        named = {each["eventType"] for each in configured}
        configured += [
            {"eventType": event_type, "logLevel": options.log_level}
            for event_type in EVENT_TYPES
            if event_type not in named
        ]
    return {
        "roleArn": options.role_arn,
        "defaultLogLevel": options.log_level,
        "disableAllLogs": options.disabled,
        "eventConfigurations": configured or None,
    }


async def set_v2_logging_options(
    call: Call,
    role_arn: str | None = None,
    default_log_level: str | None = None,
    disable_all_logs: bool = False,
    event_configurations: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """SetV2LoggingOptions: what is left out stays as it is, but `disable_all_logs` is off then."""
    _check_event_types(event_configurations or ())
    if role_arn is not None:
        await _require_logging_role(call, role_arn)

    def change(tx: Tx) -> None:
        before = log_levels.find_logging_options(tx, V2)
        options = LoggingOptions(
            V2,
            role_arn or (before.role_arn if before else None),
            default_log_level or (before.log_level if before else None),
            disable_all_logs,
            before.event_configurations
            if before and event_configurations is None
            else _text(event_configurations),
        )
        if options.role_arn is None and not disable_all_logs:
            raise InvalidRequestException(
                "roleArn is required: no role has been set that may write the logs"
            )
        log_levels.update_logging_options(tx, options)

    await call.write(change)
    return {}


async def set_v2_logging_level(
    call: Call, log_target: Mapping[str, str], log_level: str
) -> dict[str, Any]:
    """SetV2LoggingLevel: of one target, or the default level."""
    target_type, target_name = log_target["targetType"], log_target.get("targetName") or ""
    _check_target(target_type, target_name)

    def change(tx: Tx) -> None:
        options = _require_options(tx)
        if target_type == _DEFAULT:
            log_levels.update_logging_options(tx, _with_level(options, log_level))
            return
        limit = call.services.limits.log_levels
        if log_levels.find_log_level(tx, target_type, target_name) is None and (
            log_levels.count_log_levels(tx) >= limit
        ):
            raise LimitExceededException(
                f"{limit} targets have a log level of their own, the limit `log_levels`"
            )
        log_levels.update_log_level(tx, LogLevel(target_type, target_name, log_level))

    await call.write(change)
    return {}


async def list_v2_logging_levels(
    call: Call,
    target_type: str | None = None,
    next_token: str | None = None,
    max_results: int = pages.PAGE,
) -> dict[str, Any]:
    """ListV2LoggingLevels: the default level first, then by target type and name."""
    operation = f"ListV2LoggingLevels {target_type or ''}"
    position = pages.start(call, operation, next_token)
    after = _FIRST if position is None else (str(position[0]), str(position[1]))

    def find(tx: Tx) -> list[LogLevel]:
        options = _require_options(tx)
        first = []
        if position is None and target_type in (None, _DEFAULT) and options.log_level is not None:
            first = [LogLevel(_DEFAULT, "", options.log_level)]
        return first + log_levels.list_log_levels(
            tx, target_type, after, max_results + 1 - len(first)
        )

    items, following = pages.page(
        call,
        operation,
        await call.read(find),
        max_results,
        # all others come after the default level, which no further page shows again
        lambda level: (
            _FIRST if level.target_type == _DEFAULT else (level.target_type, level.target_name)
        ),
    )
    return {
        "logTargetConfigurations": [
            {
                "logTarget": {
                    "targetType": level.target_type,
                    "targetName": level.target_name or None,
                },
                "logLevel": level.log_level,
            }
            for level in items
        ],
        "nextToken": following,
    }


async def delete_v2_logging_level(call: Call, target_type: str, target_name: str) -> dict[str, Any]:
    """DeleteV2LoggingLevel: deleting a level that was not set succeeds."""
    if target_type == _DEFAULT:
        raise InvalidRequestException(
            "the level of the target type DEFAULT cannot be deleted, only set"
        )
    _check_target(target_type, target_name)
    await call.write(log_levels.remove_log_level, target_type, target_name)
    return {}


async def get_logging_options(call: Call) -> dict[str, Any]:
    """GetLoggingOptions: the first generation's options; empty when they were never set."""
    options = await call.read(log_levels.find_logging_options, V1)
    if options is None:
        return {}
    return {"roleArn": options.role_arn, "logLevel": options.log_level}


async def set_logging_options(
    call: Call, logging_options_payload: Mapping[str, str]
) -> dict[str, Any]:
    """SetLoggingOptions: the first generation's; a level that is left out stays as it is."""
    role_arn = logging_options_payload["roleArn"]
    await _require_logging_role(call, role_arn)

    def change(tx: Tx) -> None:
        before = log_levels.find_logging_options(tx, V1)
        level = logging_options_payload.get("logLevel") or (before.log_level if before else None)
        log_levels.update_logging_options(tx, LoggingOptions(V1, role_arn, level, False, None))

    await call.write(change)
    return {}


async def _require_logging_role(call: Call, role_arn: str) -> None:
    try:
        await require_role(call, role_arn)
    except InvalidRequestException:
        # AWS's words: clients (Terraform) wait for a new role as long as they read them
        raise InvalidRequestException(
            "AWS IoT (iot.amazonaws.com) is unable to assume role (sts:AssumeRole) on resource: "
            f"{role_arn}. If the role was just created or updated, please try again in a few "
            "seconds."
        ) from None


def _require_options(tx: Tx) -> LoggingOptions:
    options = log_levels.find_logging_options(tx, V2)
    if options is None:
        raise NotConfiguredException("logging is not configured: call SetV2LoggingOptions first")
    return options


def _with_level(options: LoggingOptions, level: str) -> LoggingOptions:
    return LoggingOptions(
        options.generation, options.role_arn, level, options.disabled, options.event_configurations
    )


def _check_target(target_type: str, target_name: str) -> None:
    if target_type == _DEFAULT and target_name:
        raise InvalidRequestException(
            f"a target of type DEFAULT has no name, but targetName is `{target_name[:120]}`"
        )
    if target_type != _DEFAULT and not target_name:
        raise InvalidRequestException(f"targetName is required with targetType {target_type}")
    # what is no Unicode text is refused by the store
    length = len(target_name.encode(errors="surrogatepass"))
    if length > TARGET_NAME_BYTES:
        raise InvalidRequestException(
            f"targetName `{target_name[:40]}...` has {length} bytes, at most {TARGET_NAME_BYTES} "
            "are allowed"
        )


def _check_event_types(event_configurations: Sequence[Mapping[str, Any]]) -> None:
    names = [each["eventType"] for each in event_configurations]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequestException(f"eventType `{name}` is configured twice")


def _text(event_configurations: Sequence[Mapping[str, Any]] | None) -> str | None:
    if not event_configurations:
        return None
    return msgspec.json.encode(event_configurations).decode()


def _event_configurations(options: LoggingOptions) -> list[dict[str, Any]]:
    if options.event_configurations is None:
        return []
    configured: list[dict[str, Any]] = msgspec.json.decode(options.event_configurations)
    return configured

"""Where the service is."""

from __future__ import annotations

from typing import Any

from fleetgate.errors import InvalidRequestException
from fleetgate.operations.call import Call

SERVED = ("iot:Data-ATS", "iot:Data")
"""Endpoint types this server answers for."""


async def describe_endpoint(call: Call, endpoint_type: str = "iot:Data") -> dict[str, Any]:
    """DescribeEndpoint: the host name devices connect to. As with AWS, without a port."""
    if endpoint_type not in SERVED:
        raise InvalidRequestException(
            f"endpointType `{endpoint_type[:120]}` is not offered by this server; "
            f"offered are {', '.join(SERVED)}"
        )
    return {"endpointAddress": call.services.host_names[0]}

"""Where the service is."""

from __future__ import annotations

from typing import Any

from fleetgate.errors import InvalidRequestException
from fleetgate.operations.call import Call

ENDPOINT_TYPES = ("iot:Data", "iot:Data-ATS", "iot:CredentialProvider", "iot:Jobs")
"""Types DescribeEndpoint knows (AWS IoT API reference, DescribeEndpoint)."""


async def describe_endpoint(call: Call, endpoint_type: str = "iot:Data") -> dict[str, Any]:
    """DescribeEndpoint: the host name devices connect to. As with AWS, without a port."""
    if endpoint_type not in ENDPOINT_TYPES:
        raise InvalidRequestException(f"Endpoint type {endpoint_type} not recognized.")
    return {"endpointAddress": endpoint_address(call)}


def endpoint_address(call: Call) -> str:
    """The one host name to tell, whatever is looked for there."""
    return call.services.host_names[0]

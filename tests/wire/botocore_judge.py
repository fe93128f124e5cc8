"""botocore's serialisers and parsers around our codecs."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import HeadersDict, create_request_object, prepare_request_dict
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

from fleetgate.wire import restjson
from fleetgate.wire.model import Operation, Service


def inside(value: Any) -> Any:
    """A parameter as it is inside the server."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, dict):
        return {name: inside(entry) for name, entry in value.items()}
    return [inside(entry) for entry in value] if isinstance(value, list) else value


def sent(operation: Any, params: dict[str, Any]) -> Any:
    """The request botocore would put on the wire."""
    serializer = create_serializer("rest-json", include_validation=False)
    request = serializer.serialize_to_request(params, operation)
    prepare_request_dict(request, endpoint_url="http://localhost:4566")
    return create_request_object(request).prepare()


def received(service: Service, request: Any) -> tuple[Operation, dict[str, Any]]:
    """What our decoder makes of a request."""
    url = urlsplit(request.url)
    query = restjson.parse_query(url.query)
    found = service.route(request.method, url.path, query)
    assert found is not None
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else value
        for name, value in request.headers.items()
    }
    body = request.body or b""
    assert isinstance(body, bytes)
    return found[0], restjson.decode_request(found[0], found[1], query, headers, body)


def sent_form(operation: Any, params: dict[str, Any]) -> bytes:
    """The body of the request botocore would put on the wire, in the Query protocol."""
    serializer = create_serializer("query", include_validation=False)
    request = serializer.serialize_to_request(params, operation)
    prepare_request_dict(request, endpoint_url="http://localhost:4566")
    body = create_request_object(request).prepare().body
    return body if isinstance(body, bytes) else body.encode()


def parsed(
    model: Any, status: int, headers: dict[str, str], body: bytes, protocol: str = "rest-json"
) -> Any:
    """What botocore makes of an answer."""
    parser = create_parser(protocol)
    response = {"status_code": status, "headers": HeadersDict(headers), "body": body}
    return parser.parse(response, model.output_shape)

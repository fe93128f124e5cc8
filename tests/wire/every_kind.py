"""A service model with a member of every kind: the ``iot`` model has none of some."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)

SMALL: dict[str, Any] = {
    "version": "2.0",
    "metadata": {"protocol": "rest-json", "apiVersion": "1", "endpointPrefix": "small"},
    "operations": {
        "Put": {
            "name": "Put",
            "http": {"method": "PUT", "requestUri": "/put/{Int}/{Flag}"},
            "input": {"shape": "Everything"},
            "output": {"shape": "Everything"},
        },
        "Blob": {
            "name": "Blob",
            "http": {"method": "POST", "requestUri": "/blob", "responseCode": 201},
            "input": {"shape": "WholeBlob"},
            "output": {"shape": "WholeBlob"},
        },
        "Text": {
            "name": "Text",
            "http": {"method": "POST", "requestUri": "/text"},
            "input": {"shape": "WholeText"},
            "output": {"shape": "WholeText"},
        },
    },
    "shapes": {
        "Everything": {
            "type": "structure",
            "required": ["Int", "Flag"],
            "members": {
                "Int": {"shape": "Integer", "location": "uri", "locationName": "Int"},
                "Flag": {"shape": "Boolean", "location": "uri", "locationName": "Flag"},
                "QueryTime": {"shape": "Time", "location": "querystring", "locationName": "t"},
                "QueryEpoch": {"shape": "Epoch", "location": "querystring", "locationName": "e"},
                "QueryReal": {"shape": "Double", "location": "querystring", "locationName": "r"},
                "QueryList": {"shape": "Integers", "location": "querystring", "locationName": "l"},
                "HeaderTime": {"shape": "Time", "location": "header", "locationName": "X-Time"},
                "HeaderFlag": {"shape": "Boolean", "location": "header", "locationName": "X-Flag"},
                "Prefixed": {"shape": "Map", "location": "headers", "locationName": "X-Meta-"},
                "BodyIso": {"shape": "Iso"},
                "BodyHttp": {"shape": "Time", "timestampFormat": "rfc822"},
                "BodyReal": {"shape": "Double"},
                "BodyName": {"shape": "String", "locationName": "body_name"},
                "BodyBlob": {"shape": "Bytes"},
            },
        },
        "WholeBlob": {
            "type": "structure",
            "payload": "Body",
            "members": {
                "Body": {"shape": "Bytes"},
                "Topic": {"shape": "String", "location": "header", "locationName": "x-topic"},
            },
        },
        "WholeText": {
            "type": "structure",
            "payload": "Body",
            "members": {"Body": {"shape": "String"}},
        },
        "String": {"type": "string"},
        "Integer": {"type": "integer"},
        "Double": {"type": "double"},
        "Boolean": {"type": "boolean"},
        "Bytes": {"type": "blob"},
        "Time": {"type": "timestamp"},
        "Iso": {"type": "timestamp", "timestampFormat": "iso8601"},
        "Epoch": {"type": "timestamp", "timestampFormat": "unixTimestamp"},
        "Integers": {"type": "list", "member": {"shape": "Integer"}},
        "Map": {"type": "map", "key": {"shape": "String"}, "value": {"shape": "String"}},
    },
}
EVERYTHING: dict[str, Any] = {
    "Int": -3,
    "Flag": True,
    "QueryTime": MOMENT,
    "QueryEpoch": MOMENT.replace(microsecond=0),
    "QueryReal": -0.25,
    "QueryList": [3, 1, 2],
    "HeaderTime": MOMENT.replace(microsecond=0),
    "HeaderFlag": False,
    "Prefixed": {"a": "1", "b-c": "x y"},
    "BodyIso": MOMENT,
    "BodyHttp": MOMENT.replace(microsecond=0),
    "BodyReal": math.inf,
    "BodyName": "n",
    "BodyBlob": b"\x00\xff",
}


def deep(levels: int, opening: bytes, closing: bytes) -> bytes:
    """A JSON object of so many levels, in a member nobody knows."""
    return b'{"x":' + opening * (levels - 1) + b"1" + closing * (levels - 1) + b"}"

"""What can be connected to, and what is refused before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from fleetgate.device.endpoint import Endpoint, Proxy
from fleetgate.device.errors import BadRequest


@pytest.mark.parametrize(
    ("port", "alpn", "offered"),
    [
        (8883, None, None),
        (443, None, "x-amzn-mqtt-ca"),  # AWS: "Device communication protocols"
        (8883, "x-amzn-mqtt-ca", "x-amzn-mqtt-ca"),
        (443, "mqtt", "mqtt"),
    ],
)
def test_alpn_is_offered_where_it_is_wanted(
    port: int, alpn: str | None, offered: str | None
) -> None:
    assert Endpoint("host", port, alpn=alpn).offered_alpn == offered


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"host": ""}, "'' is no host name"),
        ({"host": "a b"}, "'a b' is no host name"),
        ({"host": "mqtts://host"}, "is no host name"),
        ({"port": 0}, "port is 1 to 65535, not 0"),
        ({"port": 65536}, "port is 1 to 65535, not 65536"),
        ({"mqtt_version": 3}, "4 (for 3.1.1) or 5, not 3"),
        ({"alpn": ""}, "1 to 255 bytes, not ''"),
        ({"keep_alive": 0}, "keep-alive is 1 to 65535 seconds, not 0"),
        ({"keep_alive": 65536}, "keep-alive is 1 to 65535 seconds, not 65536"),
        ({"connect_timeout": 0.0}, "more than 0 and less than a day, not 0.0"),
        ({"connect_timeout": float("nan")}, "more than 0 and less than a day, not nan"),
        ({"max_packet_size": 127}, "up to 128 bytes have to be taken, not 127"),
    ],
)
def test_what_cannot_be_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Endpoint(**{"host": "host", **values})
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"host": "a\r\nb"}, "is no host name or address of a proxy"),
        ({"port": 0}, "a proxy's port is 1 to 65535, not 0"),
        ({"user": "a:b"}, "contains a colon"),  # RFC 7617 section 2
        ({"user": "a", "password": "b\r\nX-Evil: 1"}, "password contains a control character"),
        ({"password": "b"}, "comes without a user"),
    ],
)
def test_a_proxy_that_cannot_be_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Proxy(**{"host": "proxy", "port": 3128, **values})
    assert said in caught.value.message


def test_no_password_is_shown() -> None:
    proxy = Proxy("proxy", 3128, "user", "secret")
    endpoint = Endpoint("host", proxy=proxy)
    assert "secret" not in repr(endpoint)
    assert endpoint.shown == "`host` port 8883 through the proxy `proxy` port 3128"

"""What can be connected to, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleetgate.device.endpoint import Credentials, Endpoint, Proxy, TokenKey
from fleetgate.device.errors import BadRequest
from fleetgate.device.retry import Retries


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
        ({"host": None}, "`host` has to be a text, not None"),
        ({"port": "8883"}, "`port` has to be a whole number, not '8883'"),
        ({"port": True}, "`port` has to be a whole number, not True"),
        ({"ca": b"ca.pem"}, "`ca` has to be a text or a path or None, not b'ca.pem'"),
        ({"proxy": "p:1"}, "`proxy` has to be Proxy or None, not 'p:1'"),
        ({"mqtt_version": 5.0}, "`mqtt_version` has to be a whole number, not 5.0"),
        ({"keep_alive": 1.5}, "`keep_alive` has to be a whole number, not 1.5"),
        ({"connect_timeout": "5"}, "`connect_timeout` has to be a number, not '5'"),
        ({"max_packet_size": None}, "`max_packet_size` has to be a whole number, not None"),
        ({"alpn": 7}, "`alpn` has to be a text or None, not 7"),
        ({"alpn": "\u00e9"}, "ASCII of 1 to 255 bytes"),
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
        ({"host": 1}, "`host` has to be a text, not 1"),
        ({"user": 1}, "`user` has to be a text or None, not 1"),
        ({"user": "a", "password": b"secret"}, "`password` has to be a text or None, not bytes"),
        ({"user": "a:b"}, "contains a colon"),  # RFC 7617 section 2
        ({"user": "a", "password": "b\r\nX-Evil: 1"}, "password contains a control character"),
        ({"password": "b"}, "comes without a user"),
    ],
)
def test_a_proxy_that_cannot_be_is_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Proxy(**{"host": "proxy", "port": 3128, **values})
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Credentials(None, "k"), "`certificate` has to be a text or a path, not None"),  # type: ignore[arg-type]
        (lambda: Credentials("c", b"PEM"), "`key` has to be a text or a path, not bytes"),  # type: ignore[arg-type]
        (lambda: TokenKey("m", 1, "k", "p", "c"), "`token` has to be a text, not 1"),  # type: ignore[arg-type]
        (lambda: TokenKey("m", "t", "k", None, "c"), "`pin_file` has to be a text or a path"),  # type: ignore[arg-type]
        (lambda: Retries(attempts=1.5), "`attempts` has to be a whole number, not 1.5"),  # type: ignore[arg-type]
        (lambda: Retries(seconds="9"), "`seconds` has to be a number, not '9'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_shown_and_how_often_it_is_tried_is_checked(
    make: Callable[[], object], said: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        make()
    assert said in caught.value.message


def test_no_password_is_shown() -> None:
    proxy = Proxy("proxy", 3128, "user", "secret")
    endpoint = Endpoint("host", proxy=proxy)
    assert "secret" not in repr(endpoint)
    assert endpoint.shown == "`host` port 8883 through the proxy `proxy` port 3128"

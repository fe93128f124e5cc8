"""Why awscrt does not connect, found out by connecting once with Python's TLS.

awscrt tells little of a failed handshake or proxy, and nothing of the code in a CONNACK of MQTT
3.1.1. A key on a token cannot be used here, and what was read from a pipe is gone: with these the
server is shown no certificate, and not asked.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future
from typing import Final

from fleetgate.device import client_state, credentials, tls
from fleetgate.device.endpoint import AnyCredentials, Credentials, Endpoint
from fleetgate.device.errors import ConnectionFailed
from fleetgate.device.mqtt_client import begun
from fleetgate.device.mqtt_socket import MqttContext, MqttSocket
from fleetgate.device.paho_endings import failed_opening, how_it_ended
from fleetgate.mqtt.codec import encode
from fleetgate.mqtt.packets import Connect, Disconnect

_ALERT_WITHIN: Final = 0.5
_ASKED_WITHIN: Final = 1.0
_CONNACK_BYTES: Final = 4  # MQTT 3.1.1 section 3.2


def diagnose(
    endpoint: Endpoint, shown: AnyCredentials, deadline: float, opened: Future[None]
) -> ConnectionFailed | None:
    """What fails on the way as far as TLS, until `deadline`; None if nothing does.

    A server that refuses the certificate says so after the handshake (TLS 1.3), hence the wait for
    what it has to say. It ends when `opened` is done: when awscrt has connected meanwhile.
    """
    return _look(endpoint, shown, deadline, opened, None)


def refusal(
    endpoint: Endpoint, shown: AnyCredentials, client_id: str, deadline: float, *, clean: bool
) -> ConnectionFailed:
    """Which CONNACK of MQTT 3.1.1 it is that refuses `client_id`, asked for once more.

    When it cannot be asked for, it counts as a refusal for good, which it nearly always is.
    """
    if _readable(shown) is None:
        error = ConnectionFailed(
            f"{endpoint.shown} refused the connection (awscrt does not tell the code of MQTT "
            "3.1.1, and it could not be asked for again; it may also be that the server is "
            f"unavailable); {client_state.may_connect(client_id)}"
        )
        error.refused = True
        return error
    hello = Connect(client_id, clean, endpoint.keep_alive, version=4)
    deadline = max(deadline, time.monotonic() + _ASKED_WITHIN)
    found = _look(endpoint, shown, deadline, begun(), hello)
    return found or ConnectionFailed(
        f"{endpoint.shown} refused the connection (awscrt does not tell the code of MQTT 3.1.1), "
        "and does not when it is asked again; try again later"
    )


def _readable(shown: AnyCredentials) -> Credentials | None:
    """`shown`, if Python's TLS can show them."""
    if not isinstance(shown, Credentials):
        return None
    return None if credentials.has_pipe([shown.certificate, shown.key]) else shown


def _look(
    endpoint: Endpoint,
    shown: AnyCredentials,
    deadline: float,
    opened: Future[None],
    hello: Connect | None,
) -> ConnectionFailed | None:
    files = _readable(shown)
    going_on: list[MqttContext] = []

    def connected(opened: Future[None]) -> None:
        if opened.exception() is None:
            for each in going_on:
                each.give_up()

    try:
        context = MqttContext.of(endpoint, files)
        context.deadline = deadline
        going_on.append(context)
        opened.add_done_callback(connected)
        stream = context.wrap_socket(tls.open_tcp(endpoint, deadline))
        with stream:
            stream.do_handshake()
            if hello is not None:
                return _answer(context, stream, hello, deadline)
            if files is not None:
                stream.settimeout(min(_ALERT_WITHIN, tls.left(endpoint, deadline)))
                stream.recv(1)
    except ConnectionFailed as error:
        return error
    except TimeoutError:
        return None
    except OSError as error:
        return tls.handshake_failed(error, endpoint)
    finally:
        going_on.clear()
    return None


def _answer(
    context: MqttContext, stream: MqttSocket, hello: Connect, deadline: float
) -> ConnectionFailed | None:
    """What is wrong with the answer to `hello`; None if nothing is."""
    endpoint, watch, client_id = context.endpoint, context.watch, hello.client_id
    try:
        stream.sendall(encode(hello, hello.version))
        while watch.connack is None and watch.ended is None:
            stream.settimeout(tls.left(endpoint, deadline))
            stream.recv(_CONNACK_BYTES)
    except TimeoutError:
        return client_state.no_answer(endpoint, client_id)
    except OSError:
        pass  # the watch knows
    if watch.connack is not None and not watch.connack.reason_code:
        with contextlib.suppress(OSError):
            stream.sendall(encode(Disconnect(), hello.version))
        return None
    return failed_opening(watch, endpoint, client_id, how_it_ended(watch, client_id, endpoint))

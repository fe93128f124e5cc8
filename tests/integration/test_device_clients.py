"""Every adapter of the device library, on MQTT 3.1.1 and 5, against a real server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fleetgate.device import aiomqtt_client
from fleetgate.device.endpoint import Credentials, Endpoint, Proxy, TokenKey
from fleetgate.device.errors import BadRequest, ConnectionFailed, ConnectionLost, NotAuthorized
from fleetgate.mqtt.packets import Version
from tests.device.clients import (
    ADAPTERS,
    Inbox,
    Losses,
    Remains,
    both_versions,
    connect,
    every_adapter,
    refusal,
    result,
)
from tests.device.connect_proxy import connect_proxy
from tests.functions import softhsm
from tests.functions.softhsm import MODULE, PIN
from tests.integration.fleet import (
    Identity,
    arn,
    create_identity,
    policy_document,
)
from tests.integration.paho_device import PahoDevice
from tests.integration.server import Server, environment


@dataclass(frozen=True)
class Site:
    """A server, and a device `device-...` that may use the topics ``free/#``."""

    server: Server
    endpoint: Endpoint
    identity: Identity
    device: Credentials
    directory: Path

    def of(self, version: Version, **changes: Any) -> Endpoint:
        return replace(self.endpoint, mqtt_version=version, **changes)


FREE = policy_document(
    {"Effect": "Allow", "Action": "iot:Connect", "Resource": arn("client/device*")},
    {
        "Effect": "Allow",
        "Action": ["iot:Publish", "iot:Receive"],
        "Resource": arn("topic/free/*"),
    },
    {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": arn("topicfilter/free/*")},
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("clients")
    with Server(directory / "data") as server:
        server.iot.create_policy(policyName="free", policyDocument=FREE)
        device = create_identity(server, directory, "device", "free")
        endpoint = Endpoint("localhost", server.mqtt_port, server.ca_file)
        credentials = Credentials(device.certificate, device.key)
        yield Site(server, endpoint, device, credentials, directory)


@every_adapter
@both_versions
def test_messages_go_round_and_nothing_stays(adapter: str, version: Version, site: Site) -> None:
    remains = Remains()
    client = connect(adapter, site.of(version), site.device, "device")
    losses, inbox, other = Losses(client), Inbox(), Inbox()
    result(client.subscribe("free/+/x", 1, inbox))
    result(client.subscribe("free/a/#", 0, other))
    result(client.publish("free/b/x", b"1", 1))
    assert inbox.next() == ("free/b/x", b"1")
    result(client.publish("free/b/x", b"\0\xff" * 10_000, 0))
    assert inbox.next() == ("free/b/x", b"\0\xff" * 10_000)
    assert other.empty()
    result(client.unsubscribe("free/+/x"))
    result(client.publish("free/a/x", b"2", 1))
    assert other.next() == ("free/a/x", b"2")
    assert inbox.empty()
    result(client.disconnect())
    assert "this client disconnected" in losses.next().message
    assert losses.none_more()
    assert remains.none(), remains
    result(client.disconnect())
    for future in (
        client.publish("free/x", b"", 1),
        client.subscribe("free/x", 1, inbox),
        client.unsubscribe("free/x"),
    ):
        with pytest.raises(ConnectionLost, match="has ended already: this client disconnected"):
            future.result(0)


@every_adapter
@both_versions
def test_a_callback_may_call_and_fail(adapter: str, version: Version, site: Site) -> None:
    client = connect(adapter, site.of(version), site.device, "device")
    inbox = Inbox()

    def answer(topic: str, payload: bytes) -> None:
        client.publish("free/answer", payload, 1)
        raise RuntimeError("a mistake of the program")

    result(client.subscribe("free/question", 1, answer))
    result(client.subscribe("free/answer", 1, inbox))
    result(client.publish("free/question", b"?", 1))
    assert inbox.next() == ("free/answer", b"?")
    result(client.publish("free/question", b"!", 1))
    assert inbox.next() == ("free/answer", b"!")
    result(client.disconnect())


@every_adapter
@both_versions
def test_a_refused_subscription_names_filter_and_action(
    adapter: str, version: Version, site: Site
) -> None:
    client = connect(adapter, site.of(version), site.device, "device")
    with pytest.raises(NotAuthorized) as caught:
        result(client.subscribe("closed/+", 1, Inbox()))
    error = caught.value
    assert (error.topic, error.action) == ("closed/+", "iot:Subscribe")
    assert error.reason_code == (0x80 if version == 4 else 0x87)
    assert "iot:Subscribe on `topicfilter/closed/+`" in error.message
    result(client.publish("free/x", b"it goes on", 1))
    result(client.disconnect())


@every_adapter
@both_versions
def test_a_refused_message_names_topic_and_action(
    adapter: str, version: Version, site: Site
) -> None:
    """MQTT 3.1.1 cannot say it: the server hangs up, and everything that waits hears of it."""
    remains = Remains()
    client = connect(adapter, site.of(version), site.device, "device")
    losses = Losses(client)
    future = client.publish("closed/x", b"", 1)
    if version == 5:
        with pytest.raises(NotAuthorized) as refused:
            result(future)
        assert (refused.value.topic, refused.value.action) == ("closed/x", "iot:Publish")
        assert refused.value.reason_code == 0x87
        hint = refused.value.message
    else:
        with pytest.raises(ConnectionLost) as lost:
            result(future)
        hint = lost.value.message
    assert "iot:Publish on `topic/closed/x`" in hint
    losses.next()  # the server disconnects a client that does what it may not, as AWS does
    assert losses.none_more()
    assert remains.none(), remains  # without disconnect(), and without a new connection
    with pytest.raises(ConnectionLost, match="has ended already"):
        client.publish("free/x", b"", 1).result(0)
    result(client.disconnect())


@every_adapter
@both_versions
def test_a_refused_connection_says_why(adapter: str, version: Version, site: Site) -> None:
    remains = Remains()
    error = refusal(adapter, site.of(version), site.device, "stranger")
    assert error.refused
    message = error.message
    assert f"`localhost` port {site.endpoint.port} refused the connection" in message
    assert "iot:Connect on `client/stranger`" in message
    if version == 5:
        assert "(not authorized, 0x87" in message
    else:
        assert "(not authorized, 0x05)" in message
    assert remains.none(), remains


@every_adapter
@both_versions
def test_what_is_too_large_is_an_error(adapter: str, version: Version, site: Site) -> None:
    remains = Remains()
    client = connect(adapter, site.of(version, max_packet_size=2000), site.device, "device")
    losses = Losses(client)
    result(client.subscribe("free/large", 1, Inbox()))
    client.publish("free/large", bytes(3000), 1)
    error = losses.next()
    assert "the server sent a packet of 30" in error.message
    assert "at most 2000 (max_packet_size)" in error.message
    assert not error.retry
    result(client.disconnect())
    assert remains.none(), remains


@every_adapter
def test_nothing_is_sent_that_cannot_be(adapter: str, site: Site) -> None:
    client = connect(adapter, site.of(5), site.device, "device")
    with pytest.raises(BadRequest, match="the server takes at most 149504"):
        result(client.publish("free/x", bytes(149_500), 1))
    with pytest.raises(BadRequest, match="must not contain wildcards"):
        result(client.publish("free/+", b"", 1))
    with pytest.raises(BadRequest, match="QoS 0 or 1, not 2"):
        result(client.publish("free/x", b"", 2))
    with pytest.raises(BadRequest, match="must fill a whole level"):
        result(client.subscribe("free/x#", 1, Inbox()))
    result(client.publish("free/x", b"it goes on", 1))
    result(client.disconnect())


@every_adapter
def test_a_second_connection_of_the_name_ends_the_first(adapter: str, site: Site) -> None:
    first = connect(adapter, site.of(5), site.device, "device")
    losses = Losses(first)
    second = connect(adapter, site.of(5), site.device, "device")
    assert "another connection uses the client id `device`" in losses.next().message
    result(second.publish("free/x", b"", 1))
    result(second.disconnect())


@every_adapter
@both_versions
def test_a_session_is_kept_when_asked_for(adapter: str, version: Version, site: Site) -> None:
    endpoint, name = site.of(version), f"device-{adapter}-{version}"
    client = connect(adapter, endpoint, site.device, name, clean=False)
    result(client.subscribe(f"free/{name}", 1, Inbox()))
    result(client.disconnect())
    other = connect("paho", endpoint, site.device, "device")
    result(other.publish(f"free/{name}", b"meanwhile", 1))
    result(other.disconnect())
    with PahoDevice(site.server, site.identity, name, version=version, clean=False) as device:
        assert device.session_present
        assert device.message().payload == b"meanwhile"
    result(connect(adapter, endpoint, site.device, name, clean=True).disconnect())
    with PahoDevice(site.server, site.identity, name, version=version, clean=False) as device:
        assert not device.session_present


def test_every_client_hears_that_the_server_stops(site: Site, tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        server.iot.create_policy(policyName="free", policyDocument=FREE)
        device = create_identity(server, tmp_path, "device", "free")
        endpoint = Endpoint("localhost", server.mqtt_port, server.ca_file)
        credentials = Credentials(device.certificate, device.key)
        remains = Remains()
        clients = {}
        for adapter in ADAPTERS:
            for version in (4, 5):
                name = f"device-{adapter}-{version}"
                client = connect(
                    adapter, replace(endpoint, mqtt_version=version), credentials, name
                )
                clients[name] = (client, Losses(client))
        server.terminate()
        for name, (_client, losses) in clients.items():
            message = losses.next().message
            if name.endswith("5"):
                assert "server shutting down, 0x8b" in message, name
            else:
                assert message == "the server closed the connection", name
        assert remains.none(), remains
        for client, losses in clients.values():
            assert losses.none_more()
            result(client.disconnect())


# --- the way there ---


@every_adapter
@both_versions
def test_through_a_proxy_to_port_443(adapter: str, version: Version, site: Site) -> None:
    """The proxy leads to the server's real port; ALPN is what AWS IoT wants on 443."""
    remains = Remains()
    with connect_proxy(site.endpoint.port, user="user", password="p:w d") as proxy:
        through = Proxy("127.0.0.1", proxy.port, "user", "p:w d")
        endpoint = site.of(version, port=443, proxy=through)
        assert endpoint.offered_alpn == "x-amzn-mqtt-ca"
        client = connect(adapter, endpoint, site.device, "device")
        result(client.publish("free/x", b"", 1))
        result(client.disconnect())
        assert proxy.asked == ["CONNECT localhost:443 HTTP/1.1"]
    assert remains.none(), remains


@every_adapter
@both_versions
def test_a_network_that_goes_away(adapter: str, version: Version, site: Site) -> None:
    remains = Remains()
    with connect_proxy(site.endpoint.port) as proxy:
        endpoint = site.of(version, proxy=Proxy("127.0.0.1", proxy.port))
        client = connect(adapter, endpoint, site.device, "device")
        losses = Losses(client)
        proxy.cut()
        losses.next()
        result(client.disconnect())
        assert len(proxy.asked) == 1
    assert remains.none(), remains


@every_adapter
def test_a_proxy_that_refuses(adapter: str, site: Site) -> None:
    remains = Remains()
    port = site.endpoint.port
    with connect_proxy(port, user="user", password="right") as proxy:
        message = refusal(
            adapter, site.of(5, proxy=Proxy("127.0.0.1", proxy.port)), site.device
        ).message
        assert message == (
            f"the proxy wants a user and a password: `127.0.0.1` port {proxy.port} answered "
            f"CONNECT localhost:{port} with 407 Proxy Authentication Required"
        )
        wrong = Proxy("127.0.0.1", proxy.port, "user", "wrong")
        error = refusal(adapter, site.of(5, proxy=wrong), site.device)
        assert "does not take the user `user` with this password" in error.message
        assert "wrong" not in error.message.replace("with this password", "")
        assert not error.retry
    with connect_proxy(port, answer=b"HTTP/1.1 403 Forbidden\r\n\r\n") as proxy:
        message = refusal(
            adapter, site.of(5, proxy=Proxy("127.0.0.1", proxy.port)), site.device
        ).message
        assert "the proxy does not allow this server and port" in message
    message = refusal(
        adapter, site.of(5, proxy=Proxy("127.0.0.1", proxy.port)), site.device
    ).message
    assert message == (
        f"no TCP connection to the proxy `127.0.0.1` port {proxy.port}: Connection refused"
    )
    assert remains.none(), remains


@every_adapter
def test_a_server_of_another_name(adapter: str, site: Site) -> None:
    with connect_proxy(site.endpoint.port) as proxy:
        through = Proxy("127.0.0.1", proxy.port)
        endpoint = site.of(5, host="elsewhere.example", proxy=through)
        error = refusal(adapter, endpoint, site.device)
        assert "the server says that it is not `elsewhere.example`" in error.message
        # an address is not said in the handshake, and compared by the client alone (RFC 6066)
        error = refusal(adapter, replace(endpoint, host="127.0.0.9"), site.device)
    assert "`127.0.0.9` is not among the names of the server's certificate" in error.message
    assert not error.retry


@every_adapter
def test_a_server_of_a_foreign_authority(adapter: str, site: Site) -> None:
    error = refusal(adapter, site.of(5, ca=site.device.certificate), site.device)
    assert "the server's certificate is not trusted" in error.message
    assert not error.retry


@every_adapter
def test_nobody_there(adapter: str, site: Site) -> None:
    remains = Remains()
    message = refusal(adapter, site.of(5, port=1), site.device).message
    assert message == "no TCP connection to `localhost` port 1: Connection refused"
    message = refusal(adapter, site.of(5, host="nowhere.invalid"), site.device).message
    assert message.startswith("no TCP connection to `nowhere.invalid` port ")
    assert "the name has no address" in message
    assert remains.none(), remains


@every_adapter
def test_files_that_cannot_be_used(adapter: str, site: Site) -> None:
    exchanged = Credentials(site.device.key, site.device.certificate)
    error = refusal(adapter, site.endpoint, exchanged)
    assert "are certificate and key exchanged?" in error.message
    assert not error.retry


# --- asyncio ---


async def _in_a_loop(site: Site, version: Version) -> None:
    client = await aiomqtt_client.connect_async(site.of(version), site.device, "device")
    inbox = Inbox()
    await asyncio.wrap_future(client.subscribe("free/x", 1, inbox))
    await asyncio.wrap_future(client.publish("free/x", b"1", 1))
    await asyncio.sleep(0)
    with pytest.raises(NotAuthorized):
        await asyncio.wrap_future(client.subscribe("closed/x", 1, inbox))
    await asyncio.wrap_future(client.disconnect())
    assert inbox.next() == ("free/x", b"1")
    assert len(asyncio.all_tasks()) == 1


@both_versions
def test_aiomqtt_in_a_running_loop(version: Version, site: Site) -> None:
    remains = Remains()
    asyncio.run(_in_a_loop(site, version))
    assert remains.none(), remains


def test_aiomqtt_when_the_loop_ends_first(site: Site) -> None:
    remains = Remains()
    told: list[ConnectionLost] = []

    async def leave() -> Any:
        client = await aiomqtt_client.connect_async(site.endpoint, site.device, "device")
        client.on_lost(told.append)
        return client

    client = asyncio.run(leave())
    result(client.disconnect())
    assert [error.message for error in told] == ["the event loop stopped"]
    assert remains.none(), remains


def test_aiomqtt_cancelled_while_it_connects(site: Site) -> None:
    remains = Remains()

    async def give_up(after: float) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                aiomqtt_client.connect_async(site.endpoint, site.device, "device"), after
            )
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(give_up(0.001))
    with connect_proxy(site.endpoint.port, answer=b"HTTP/1.1 ") as proxy:
        through = replace(site.endpoint, proxy=Proxy("127.0.0.1", proxy.port))
        with pytest.raises((TimeoutError, ConnectionFailed)):
            asyncio.run(
                asyncio.wait_for(aiomqtt_client.connect_async(through, site.device, "device"), 0.05)
            )
    assert remains.none(), remains


# --- a key on a token ---

ON_A_TOKEN = """
import sys
from dataclasses import replace
from fleetgate.device import awscrt_client
from fleetgate.device.endpoint import Endpoint, TokenKey
from fleetgate.device.errors import ConnectionFailed

port, ca, module, label, pin, certificate = sys.argv[1:]
credentials = TokenKey(module, label, "device", pin, certificate)
for version in (4, 5):
    endpoint = Endpoint("localhost", int(port), ca, mqtt_version=version)
    client = awscrt_client.connect(endpoint, credentials, "device-token")
    client.publish("free/x", b"from the token", 1).result(10)
    client.disconnect().result(10)
for wrong in (
    replace(credentials, token="none"),
    replace(credentials, key="none"),
    replace(credentials, pin_file=ca),
    replace(credentials, module="/nowhere.so"),
):
    try:
        awscrt_client.connect(endpoint, wrong, "device-token")
    except ConnectionFailed as error:
        print(error.message, error.retry)
"""


@pytest.mark.needs("softhsm2-util")
def test_awscrt_with_a_key_on_a_token(site: Site, tmp_path: Path) -> None:
    """In a process of its own: SoftHSM reads its configuration once."""
    hsm = softhsm.make(tmp_path)
    hsm.add_token("fleet")
    key = Path(site.device.key)
    hsm.add_key("fleet", key, "device")
    pin = tmp_path / "pin"
    pin.write_text(f"{PIN}\n")
    arguments = [site.endpoint.port, site.endpoint.ca, MODULE, "fleet", pin]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ON_A_TOKEN]
        + [str(each) for each in (*arguments, site.device.certificate)],
        env=environment(SOFTHSM2_CONF=str(hsm.configuration)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    token, label, wrong_pin, module = done.stdout.splitlines()
    assert token.startswith(f"cannot use the key `device` on the token `none` (`{MODULE}`): ")
    assert label.startswith(f"cannot use the key `none` on the token `fleet` (`{MODULE}`): ")
    assert wrong_pin.startswith(f"cannot use the key `device` on the token `fleet` (`{MODULE}`): ")
    assert module.startswith("cannot use the PKCS#11 module `/nowhere.so`: ")
    assert all(line.endswith(" False") for line in done.stdout.splitlines())


@pytest.mark.parametrize("adapter", ["paho", "aiomqtt"])
def test_the_others_say_that_they_cannot(adapter: str, site: Site) -> None:
    key = TokenKey(MODULE, "fleet", "device", "/pin", site.device.certificate)
    with pytest.raises(BadRequest, match=r"connect with fleetgate\.device\.awscrt_client"):
        connect(adapter, site.endpoint, key, "device")

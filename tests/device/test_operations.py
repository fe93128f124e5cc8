"""Operations on a scripted client: what they return and raise, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.device import operations, reply_topics
from fleetgate.device.errors import (
    BadAnswer,
    BadRequest,
    ClientFailed,
    ConnectionLost,
    InProgress,
    NoAnswer,
    NotAcknowledged,
    NotAuthorized,
    ProvisioningError,
    Rejected,
    Status,
)
from fleetgate.device.exchange import Terms
from fleetgate.device.mqtt_client import OnMessage
from fleetgate.device.protocol import Issued, PayloadFormat, Registered
from tests.device.conftest import Issuer
from tests.device.scripted_client import Messages, ScriptedClient

KEYS = "$aws/certificates/create/json"
CSR = "$aws/certificates/create-from-csr/json"
REGISTER = "$aws/provisioning-templates/T/provision/json"
ISSUED = {
    "certificateId": "ab",
    "certificatePem": "PEM",
    "certificateOwnershipToken": "tok",
    "privateKey": "KEY",
}
TURN = [
    "subscribe accepted",
    "subscribe rejected",
    "publish json",
    "unsubscribe accepted",
    "unsubscribe rejected",
]
SOON = Terms(timeout=0.03, mqtt_timeout=0.03)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread, and no operation that is taken for running."""
    before = set(threading.enumerate())  # those other tests left may end meanwhile
    yield
    assert set(threading.enumerate()) <= before
    assert reply_topics._running == {}
    assert reply_topics._unanswered == {}


def accepts(**values: object) -> Callable[[str, bytes], Messages]:
    return lambda topic, _: [(f"{topic}/accepted", json.dumps(values).encode())]


def rejects(code: int) -> Callable[[str, bytes], Messages]:
    values = {"statusCode": code, "errorCode": "E", "errorMessage": "why"}
    return lambda topic, _: [(f"{topic}/rejected", json.dumps(values).encode())]


Call = Callable[[ScriptedClient, Terms], Issued | Registered]


def keys(client: ScriptedClient, terms: Terms = SOON) -> Issued:
    return operations.create_keys_and_certificate(client, terms)


def keys_awaited(client: ScriptedClient, terms: Terms = SOON) -> Issued:
    return asyncio.run(operations.create_keys_and_certificate_async(client, terms))


both = pytest.mark.parametrize("call", [keys, keys_awaited])


# --- values ---


def test_the_three_operations() -> None:
    client = ScriptedClient(accepts(**ISSUED))
    assert operations.create_keys_and_certificate(client) == Issued("ab", "PEM", "tok", "KEY")
    assert operations.create_certificate_from_csr(client, "CSR") == Issued("ab", "PEM", "tok", None)
    client._answer = accepts(thingName="t", deviceConfiguration={"a": "b"})
    registered = Registered("t", {"a": "b"})
    assert operations.register_thing(client, "T", "tok") == registered
    assert operations.register_thing(client, "T", "tok", {"p": "v"}) == registered
    assert operations.register_thing(client, "T", "tok", {}, certificate_id="ab") == registered
    assert client.payloads == [
        b"{}",
        b'{"certificateSigningRequest":"CSR"}',
        b'{"certificateOwnershipToken":"tok"}',
        b'{"certificateOwnershipToken":"tok","parameters":{"p":"v"}}',
        b'{"certificateId":"ab","certificateOwnershipToken":"tok","parameters":{}}',
    ]
    assert client.packets == TURN * 5
    assert client.subscribed == {}
    assert client.listeners == []


def test_the_three_operations_awaited() -> None:
    async def all_three() -> tuple[Issued, Issued, Registered]:
        return await asyncio.gather(
            operations.create_keys_and_certificate_async(client),
            operations.create_certificate_from_csr_async(client, "CSR"),
            operations.register_thing_async(client, "T", "tok"),
        )

    client = ScriptedClient(accepts(**ISSUED, thingName="t"), delay=0.01)
    by_keys, by_csr, registered = asyncio.run(all_three())
    assert (by_keys.private_key, by_csr.private_key) == ("KEY", None)
    assert registered == Registered("t", {})
    assert client.subscribed == {}
    client.disconnect()


@pytest.mark.parametrize("qos", [0, 1])
def test_the_request_s_quality_of_service(qos: int) -> None:
    client = ScriptedClient(accepts(**ISSUED))
    keys(client, Terms(qos=qos))
    assert client.qos == [qos]


@both
def test_an_answer_from_another_thread(call: Call) -> None:
    client = ScriptedClient(accepts(**ISSUED), delay=0.02)
    assert call(client, Terms(timeout=5)) == Issued("ab", "PEM", "tok", "KEY")
    client.disconnect()


# --- errors: what, where, and that both subscriptions are given back ---


@pytest.mark.parametrize(
    ("client", "error", "step", "topic", "packets"),
    [
        (
            functools.partial(ScriptedClient, refused=[f"{KEYS}/accepted"]),
            NotAuthorized,
            "subscribe",
            f"{KEYS}/accepted",
            TURN[:2] + TURN[3:],
        ),
        (
            functools.partial(ScriptedClient, refused=[f"{KEYS}/rejected"]),
            NotAuthorized,
            "subscribe",
            f"{KEYS}/rejected",
            TURN[:2] + TURN[3:],
        ),
        (functools.partial(ScriptedClient, refused=[KEYS]), NotAuthorized, "create", KEYS, TURN),
        (
            functools.partial(ScriptedClient, silent=[f"{KEYS}/rejected"]),
            NotAcknowledged,
            "subscribe",
            f"{KEYS}/rejected",
            TURN[:2] + TURN[3:],
        ),
        (functools.partial(ScriptedClient, silent=[KEYS]), NotAcknowledged, "create", KEYS, TURN),
        (
            functools.partial(ScriptedClient, broken=OSError("out of order")),
            ClientFailed,
            "create",
            KEYS,
            TURN,
        ),
        (ScriptedClient, NoAnswer, "create", KEYS, TURN),
        (
            functools.partial(ScriptedClient, rejects(403)),
            Rejected,
            "create",
            f"{KEYS}/rejected",
            TURN,
        ),
        (
            functools.partial(ScriptedClient, accepts(certificateId="ab")),
            BadAnswer,
            "create",
            f"{KEYS}/accepted",
            TURN,
        ),
    ],
    ids=[
        *("accepted refused", "rejected refused", "publish refused", "no SUBACK", "no PUBACK"),
        *("broken client", "no answer", "rejected", "bad answer"),
    ],
)
@both
def test_errors(
    call: Call,
    client: Callable[[], ScriptedClient],
    error: type[ProvisioningError],
    step: str,
    topic: str,
    packets: list[str],
) -> None:
    made = client()
    with pytest.raises(error) as caught:
        call(made, SOON)
    assert type(caught.value) is error
    assert (caught.value.step, caught.value.topic) == (step, topic)
    assert caught.value.message.startswith(f"{step}: ")
    assert made.packets == packets
    made.lose()
    assert made.listeners == []


def test_the_time_out_is_kept() -> None:
    client = ScriptedClient(silent=["unsubscribe"])
    begin = time.monotonic()
    with pytest.raises(NoAnswer) as caught:
        keys(client, Terms(timeout=0.05, mqtt_timeout=0.05))
    assert 0.1 <= time.monotonic() - begin < 1  # the answer's, and that of UNSUBSCRIBE
    client.lose()
    assert caught.value.waited == 0.05


@both
def test_the_connection_ends_meanwhile(call: Call) -> None:
    client = ScriptedClient(silent=["unsubscribe"])

    def lose(topic: str, payload: bytes) -> Messages:
        client.lose()
        return ()

    client._answer = lose
    with pytest.raises(ConnectionLost, match="the network went away; it was during the request"):
        call(client, Terms(timeout=5))
    assert client.packets == TURN


@both
def test_the_connection_has_ended_before(call: Call) -> None:
    client = ScriptedClient()
    client.lose()
    with pytest.raises(ConnectionLost, match="subscribe: the network went away"):
        call(client, Terms(timeout=5))
    assert client.packets == []


@pytest.mark.parametrize("csr", ["", b"CSR", None])
def test_a_csr_that_is_none_is_refused_before_anything_is_sent(csr: Any) -> None:
    client = ScriptedClient()
    with pytest.raises(BadRequest, match="signing request is no text"):
        operations.create_certificate_from_csr(client, csr)
    assert client.packets == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"template": ""}, "name of the template"),
        ({"template": None}, "name of the template"),
        ({"template": "T" * 37}, "cannot be the name of a provisioning template"),
        ({"ownership_token": ""}, "ownership token"),
        ({"ownership_token": "\ud800"}, "UTF-8"),
        ({"certificate_id": ""}, "certificate id"),
        ({"parameters": {"a": 1}}, "parameter `a` is not a text: int"),
        ({"parameters": {1: "a"}}, "parameter `1` is not a text: str"),
        ({"parameters": []}, "`parameters` has to be a mapping or None, not list"),
        ({"parameters": {"a": "b" * 131072}}, r"131\d\d\d bytes, more than the 131072"),
    ],
)
@pytest.mark.parametrize("payload_format", ["json", "cbor"])
def test_a_registration_that_cannot_be_is_refused_before_anything_is_sent(
    arguments: dict[str, Any], words: str, payload_format: PayloadFormat
) -> None:
    client = ScriptedClient()
    given: dict[str, Any] = {"template": "T", "ownership_token": "tok", **arguments}
    with pytest.raises(BadRequest, match=words):
        operations.register_thing(client, **given, terms=Terms(payload_format))
    assert client.packets == []


@pytest.mark.parametrize("client", [None, "client"])
def test_what_is_no_client_is_told(client: Any) -> None:
    for step, call in (
        ("create", operations.create_keys_and_certificate),
        ("create", lambda client: operations.create_certificate_from_csr(client, "CSR")),
        ("register", lambda client: operations.register_thing(client, "T", "tok")),
    ):
        with pytest.raises(BadRequest, match="`client` is no MQTT client, but") as caught:
            call(client)
        assert caught.value.step == step


def test_what_are_no_terms_is_told() -> None:
    client = ScriptedClient()
    for terms in (None, {"timeout": 5}):
        with pytest.raises(BadRequest, match="`terms` has to be Terms, not"):
            operations.create_keys_and_certificate(client, terms)  # type: ignore[arg-type]
    assert client.packets == []


# --- duplicates and late answers ---


def test_a_duplicate_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    def twice(topic: str, payload: bytes) -> Messages:
        return [*accepts(**ISSUED)(topic, payload)] * 2

    # it stays subscribed, because UNSUBSCRIBE is not acknowledged
    client = ScriptedClient(twice, silent=["unsubscribe"])
    with caplog.at_level(logging.INFO, "fleetgate.device"):
        assert keys(client).certificate_id == "ab"
        client.deliver(f"{KEYS}/accepted", b"garbage")
    assert "event=operation-done operation=CreateKeysAndCertificate" in caplog.text
    assert caplog.text.count("event=answer-ignored operation=CreateKeysAndCertificate") == 2
    assert "KEY" not in caplog.text
    assert "tok" not in caplog.text


def signing_request(key: ec.EllipticCurvePrivateKey) -> str:
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def certificate(issuer: Issuer, key: ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    certificate = issuer.authority.certificate
    builder = x509.CertificateBuilder(
        name,
        name,
        key.public_key(),
        x509.random_serial_number(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def test_a_late_certificate_for_another_key_is_ignored(issuer: Issuer) -> None:
    mine, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def late_and_mine(topic: str, payload: bytes) -> Messages:
        for key in (other, mine):
            yield from accepts(**{**ISSUED, "certificatePem": certificate(issuer, key)})(topic, b"")

    client = ScriptedClient(late_and_mine)
    issued = operations.create_certificate_from_csr(client, signing_request(mine))
    key = x509.load_pem_x509_certificate(issued.certificate_pem.encode()).public_key()
    assert key == mine.public_key()


@pytest.mark.parametrize(
    "asked",
    [
        lambda client: operations.create_keys_and_certificate(client, SOON),
        lambda client: operations.create_certificate_from_csr(client, "CSR", SOON),
        lambda client: operations.register_thing(client, "T", "tok", {"a": "1"}, SOON),
    ],
    ids=["keys", "csr", "register"],
)
def test_after_a_time_out_the_same_may_be_asked_again(
    asked: Callable[[ScriptedClient], Issued | Registered],
) -> None:
    client = ScriptedClient()
    for _ in range(2):
        with pytest.raises(NoAnswer):
            asked(client)
        client.deliver(f"{KEYS}/accepted", json.dumps(ISSUED).encode())
    client._answer = accepts(**ISSUED, thingName="t")
    for _ in range(2):
        asked(client)
    assert client.subscribed == {}
    client.lose()


def registers(client: ScriptedClient, serial: str, template: str = "T", terms: Terms = SOON) -> str:
    return str(operations.register_thing(client, template, "tok", {"a": serial}, terms).thing_name)


def names_the_late_one(topic: str, payload: bytes) -> Messages:
    return [(f"{topic}/accepted", b'{"thingName": "first"}')]


def test_a_late_answer_is_never_taken_for_that_to_another_request() -> None:
    client = ScriptedClient(names_the_late_one, delay=0.05)
    with pytest.raises(NoAnswer):
        registers(client, "1", terms=Terms(timeout=0.01, mqtt_timeout=1))
    sent = len(client.packets)
    with pytest.raises(InProgress, match="was not answered in time on this connection") as caught:
        registers(client, "2", terms=Terms(timeout=1))  # until then it got the thing of the first
    assert caught.value.topic == REGISTER
    assert len(client.packets) == sent
    # what has other topics goes on as ever, and so does another connection
    client._answer, client._delay = accepts(thingName="other", **ISSUED), None
    assert registers(client, "3", "U") == "other"
    assert keys(client).certificate_id == "ab"
    client.disconnect()
    other = ScriptedClient(accepts(thingName="second"))
    assert registers(other, "2") == "second"


def test_nothing_is_awaited_of_what_was_refused_or_answered_while_it_ended() -> None:
    refused = ScriptedClient(refused=[REGISTER])
    for serial in ("1", "2"):
        with pytest.raises(NotAuthorized):
            registers(refused, serial)
    rejected = ScriptedClient(rejects(403))
    for serial in ("1", "2"):
        with pytest.raises(Rejected):
            registers(rejected, serial)
    # answered after the time-out, and before UNSUBSCRIBE was acknowledged
    late = ScriptedClient(names_the_late_one, delay=0.03, silent=["unsubscribe"])
    with pytest.raises(NoAnswer):
        registers(late, "1", terms=Terms(timeout=0.01, mqtt_timeout=0.2))
    late._answer, late._delay = accepts(thingName="second"), None
    assert registers(late, "2") == "second"
    for client in (refused, rejected, late):
        client.disconnect()


def test_a_cancelled_call_is_one_without_its_answer() -> None:
    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await operations.register_thing_async(client, "T", "tok", {"a": "1"})

    client = ScriptedClient()
    asyncio.run(cancelled())
    with pytest.raises(InProgress):
        registers(client, "2")
    client.disconnect()


# --- one at a time ---


def test_one_of_a_kind_at_a_time() -> None:
    client, other = ScriptedClient(), ScriptedClient(accepts(**ISSUED))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(keys, client, Terms(timeout=5))
        assert client.published.wait(5)
        with pytest.raises(InProgress, match="another CreateKeysAndCertificate is running"):
            keys(client, Terms("cbor"))
        with pytest.raises(InProgress):
            keys_awaited(client)
        assert keys(other).certificate_id == "ab"  # another connection
        with pytest.raises(NoAnswer):
            operations.register_thing(client, "T", "tok", terms=SOON)  # another kind
        client.deliver(f"{KEYS}/accepted", json.dumps(ISSUED).encode())
        assert first.result(5).certificate_id == "ab"
    client._answer = accepts(**ISSUED)
    assert keys(client).certificate_id == "ab"
    client.lose()


def test_of_many_threads_one_gets_through() -> None:
    client = ScriptedClient(accepts(**ISSUED), delay=0.05)
    barrier = threading.Barrier(8)

    def attempt() -> str:
        barrier.wait(5)
        try:
            return keys(client, Terms(timeout=5)).certificate_id
        except InProgress:
            return "busy"

    with ThreadPoolExecutor(8) as pool:
        results = [each.result(5) for each in [pool.submit(attempt) for _ in range(8)]]
    assert sorted(results) == ["ab", *["busy"] * 7]
    assert client.packets == TURN
    client.disconnect()


# --- cancelling ---


def test_a_cancelled_call_cleans_up() -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(
            operations.create_keys_and_certificate_async(client, Terms(timeout=5))
        )
        await asyncio.to_thread(client.published.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.packets == TURN
        assert client.subscribed == {}

    client = ScriptedClient()
    asyncio.run(cancelled())
    client.lose()
    assert client.listeners == []


def test_cancelled_twice_it_does_not_wait_for_the_acknowledgement() -> None:
    async def cancelled() -> float:
        task = asyncio.create_task(
            operations.create_keys_and_certificate_async(client, Terms(timeout=5))
        )
        await asyncio.to_thread(client.published.wait, 5)
        begin = time.monotonic()
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.packets == TURN
        with pytest.raises(InProgress):  # the server may still grant what was asked for
            await operations.create_keys_and_certificate_async(client)
        return time.monotonic() - begin

    client = ScriptedClient(silent=["unsubscribe"])
    assert asyncio.run(cancelled()) < 4
    client.lose()


def test_news_on_the_loop_itself_take_no_way_round() -> None:
    """Each would write a byte into the loop's own socket."""

    class Loop(asyncio.SelectorEventLoop):
        from_elsewhere = 0

        def call_soon_threadsafe(self, *arguments: Any, **options: Any) -> asyncio.Handle:  # type: ignore[override]
            self.from_elsewhere += 1
            return super().call_soon_threadsafe(*arguments, **options)

    client = ScriptedClient(accepts(**ISSUED))
    with asyncio.Runner(loop_factory=Loop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        runner.run(operations.create_keys_and_certificate_async(client))
        assert loop.from_elsewhere == 0


def test_news_after_the_loop_was_closed_does_no_harm() -> None:
    client = ScriptedClient(silent=["unsubscribe"])
    terms = Terms(timeout=0.01, mqtt_timeout=0.01)
    with pytest.raises(NoAnswer):
        keys_awaited(client, terms)
    client.lose()  # completes the futures of UNSUBSCRIBE


def test_an_exception_in_the_waiting_thread_gives_the_subscriptions_back() -> None:
    client = ScriptedClient(broken=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        keys(client)
    assert client.packets == TURN
    client.lose()


def test_who_left_for_good_does_not_lock_out_the_next() -> None:
    """UNSUBSCRIBE is never acknowledged, and the caller who would have noticed is gone."""
    client = ScriptedClient(broken=KeyboardInterrupt(), silent=["unsubscribe"])
    with pytest.raises(KeyboardInterrupt):
        keys(client, Terms(mqtt_timeout=0.05))
    client._broken, client._answer = None, accepts(**ISSUED)
    with pytest.raises(InProgress, match=r"^create: another CreateKeysAndCertificate is running"):
        keys(client)
    time.sleep(0.06)
    assert keys(client).certificate_id == "ab"
    client.lose()


# --- what is no client as it should be ---


class Careless(ScriptedClient):
    """Its futures fail with whatever there is, or are cancelled."""

    def __init__(self, failure: Exception | None) -> None:
        super().__init__()
        self._failure = failure

    def subscribe(self, topic_filter: str, qos: int, on_message: OnMessage) -> Future[None]:
        super().subscribe(topic_filter, qos, on_message)
        future: Future[None] = Future()
        if self._failure is None:
            future.cancel()
        else:
            future.set_exception(self._failure)
        return future


@pytest.mark.parametrize("failure", [OSError("out of order"), None])
@both
def test_a_careless_client_is_an_mqtt_error(call: Call, failure: Exception | None) -> None:
    client = Careless(failure)
    with pytest.raises(
        ClientFailed, match=r"failed with (OSError: out of|CancelledError)"
    ) as found:
        call(client, Terms(timeout=5))
    assert (found.value.step, found.value.status) == ("subscribe", Status.MQTT_ERROR)
    client.lose()


def test_a_request_that_cannot_be_tells_its_step() -> None:
    client = ScriptedClient()
    with pytest.raises(BadRequest) as create:
        operations.create_certificate_from_csr(client, "")
    with pytest.raises(BadRequest) as register:
        operations.register_thing(client, "bad name!", "tok")
    assert (create.value.step, register.value.step) == ("create", "register")
    assert client.packets == []

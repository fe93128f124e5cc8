"""Every row of the C library's table of errors, for each operation; and its defects, absent.

Source: AWS IoT Device SDK for Embedded C, v4 beta, libraries/aws/provisioning: the header's
documentation of what each function returns, and src/aws_iot_provisioning_api.c.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import cbor2
import pytest

from fleetgate.device import reply_topics
from fleetgate.device.c_contract import (
    FLAG_ENCRYPT_CREDENTIALS,
    AcceptedRegisterThing,
    CreateCertificateFromCsrResponse,
    Provisioning,
    RegisterThingRequest,
    RegisterThingResponse,
    RejectedResponse,
    strerror,
)
from fleetgate.device.errors import BadRequest, InProgress, ServerStatusCode, Status
from tests.device.scripted_client import Messages, ScriptedClient

REQUEST = RegisterThingRequest("T", "ab", "tok")
KEYS_TOPIC = "$aws/certificates/create/cbor"
CSR_TOPIC = "$aws/certificates/create-from-csr/cbor"
REGISTER_TOPIC = "$aws/provisioning-templates/T/provision/cbor"
ISSUED = {
    "certificatePem": "PEM",
    "certificateId": "ab",
    "certificateOwnershipToken": "tok",
    "privateKey": "KEY",
}
REFUSAL = {"statusCode": 403, "errorCode": "AccessDenied", "errorMessage": "no"}

TIMEOUT_MS = 20


@dataclass(frozen=True)
class Kind:
    """One of the three operations: `call(provisioning, timeout, callback, **arguments)`."""

    name: str
    topic: str
    call: Callable[..., Status]
    answer: Mapping[str, Any]

    def __str__(self) -> str:
        return self.name


def call_keys(provisioning: Provisioning, timeout: Any, callback: Any, **more: Any) -> Status:
    return provisioning.create_keys_and_certificate(more.get("flags", 0), timeout, callback)


def call_csr(provisioning: Provisioning, timeout: Any, callback: Any, **more: Any) -> Status:
    qos, csr = more.get("qos", 1), more.get("csr", "CSR")
    return provisioning.create_certificate_from_csr(qos, csr, timeout, callback)


def call_register(provisioning: Provisioning, timeout: Any, callback: Any, **more: Any) -> Status:
    return provisioning.register_thing(more.get("request", REQUEST), timeout, callback)


KEYS = Kind("keys", KEYS_TOPIC, call_keys, ISSUED)
CSR = Kind("csr", CSR_TOPIC, call_csr, ISSUED)
REGISTER = Kind("register", REGISTER_TOPIC, call_register, {"thingName": "t"})
each_kind = pytest.mark.parametrize("kind", [KEYS, CSR, REGISTER], ids=str)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before
    assert reply_topics._running == {}
    assert reply_topics._unanswered == {}


def answers(payload: bytes, ending: str = "accepted") -> Callable[[str, bytes], Messages]:
    return lambda topic, _: [(f"{topic}/{ending}", payload)]


def accepts(values: object) -> Callable[[str, bytes], Messages]:
    return answers(cbor2.dumps(values))


def rejects(values: object) -> Callable[[str, bytes], Messages]:
    return answers(cbor2.dumps(values), "rejected")


def begun(client: ScriptedClient | None, mqtt_timeout_ms: int = 0) -> Provisioning:
    provisioning = Provisioning(client)
    assert provisioning.init(mqtt_timeout_ms) == Status.SUCCESS
    return provisioning


def outcome(
    kind: Kind, client: ScriptedClient, *, mqtt_timeout_ms: int = 0, **arguments: Any
) -> tuple[Status, list[Any]]:
    """The status, and what the callback was given before the call returned."""
    given: list[Any] = []
    status = kind.call(begun(client, mqtt_timeout_ms), TIMEOUT_MS, given.append, **arguments)
    received = list(given)
    assert client.subscribed == {}
    assert len([each for each in client.packets if each.startswith("unsubscribe")]) in (0, 2)
    client.lose()
    assert client.listeners == []
    assert given == received
    return status, received


# --- the table, row by row ---


@each_kind
def test_not_initialized(kind: Kind) -> None:
    client = ScriptedClient()
    provisioning = Provisioning(client)
    assert kind.call(provisioning, TIMEOUT_MS, print) == Status.NOT_INITIALIZED
    provisioning.init()
    provisioning.cleanup()
    assert kind.call(provisioning, TIMEOUT_MS, print) == Status.NOT_INITIALIZED
    assert client.packets == []


BAD_PARAMETERS: list[tuple[Kind, dict[str, Any]]] = [
    *((kind, {"callback": None}) for kind in (KEYS, CSR, REGISTER)),
    *((kind, {"callback": "no function"}) for kind in (KEYS, CSR, REGISTER)),
    *((kind, {"timeout": -1}) for kind in (KEYS, CSR, REGISTER)),
    *((kind, {"timeout": 2**32}) for kind in (KEYS, CSR, REGISTER)),
    (CSR, {"csr": None}),
    (CSR, {"csr": ""}),
    (CSR, {"qos": 2}),
    (REGISTER, {"request": None}),
    (REGISTER, {"request": replace(REQUEST, certificate_id="")}),
    (REGISTER, {"request": replace(REQUEST, certificate_id=None)}),  # type: ignore[arg-type]
    (REGISTER, {"request": replace(REQUEST, certificate_ownership_token="")}),
    (REGISTER, {"request": replace(REQUEST, certificate_ownership_token=None)}),  # type: ignore[arg-type]
    (REGISTER, {"request": replace(REQUEST, template_name="")}),
    (REGISTER, {"request": replace(REQUEST, template_name=None)}),  # type: ignore[arg-type]
    (REGISTER, {"request": replace(REQUEST, template_name="T" * 37)}),
]


@pytest.mark.parametrize(("kind", "arguments"), BAD_PARAMETERS)
def test_bad_parameter_before_any_network_use(kind: Kind, arguments: dict[str, Any]) -> None:
    given: list[Any] = []
    client = ScriptedClient(accepts(kind.answer))
    merged = {"timeout": TIMEOUT_MS, "callback": given.append, **arguments}
    assert kind.call(begun(client), **merged) == Status.BAD_PARAMETER
    assert client.packets == []
    assert given == []


NO_UINT32: list[Any] = [None, -1, 2**32, True, 1.0, float("nan"), "1", b"1", [], {}]
NO_TEXT: list[Any] = [None, "", 0, 5, True, 1.5, b"text", [], {}, object(), "\ud800"]
NO_MAP: list[Any] = [0, False, 5, 1.5, "", "text", b"", [], [("a", "b")], (), object()]
NO_PARAMETERS: list[Any] = [*NO_MAP, {1: "a"}, {"a": 1}, {"a": None}, {"a": b""}, {"\ud800": "a"}]
WRONG: list[tuple[Kind, str, list[Any]]] = [
    *((kind, "callback", [*NO_MAP, None]) for kind in (KEYS, CSR, REGISTER)),
    *((kind, "timeout", NO_UINT32) for kind in (KEYS, CSR, REGISTER)),
    *((kind, "connection", [*NO_MAP, None]) for kind in (KEYS, CSR, REGISTER)),
    (KEYS, "flags", NO_UINT32),
    (CSR, "qos", [*NO_UINT32, 2, 255]),
    (CSR, "csr", NO_TEXT),
    (REGISTER, "request", [*NO_TEXT, RegisterThingRequest, RegisterThingResponse(202)]),
    (REGISTER, "template_name", [*NO_TEXT, "T" * 37, "a b", "T\n"]),
    (REGISTER, "certificate_id", NO_TEXT),
    (REGISTER, "certificate_ownership_token", NO_TEXT),
    (REGISTER, "parameters", NO_PARAMETERS),
]


@pytest.mark.parametrize(
    ("kind", "argument", "values"), WRONG, ids=[f"{kind}-{argument}" for kind, argument, _ in WRONG]
)
def test_bad_parameter_whatever_an_argument_is(
    kind: Kind, argument: str, values: list[Any]
) -> None:
    """Every argument of every function: of another type, or not what it could be."""
    for value in values:
        client = ScriptedClient(accepts(kind.answer))
        given: list[Any] = []
        provisioning = begun(value if argument == "connection" else client)
        merged: dict[str, Any] = {"timeout": TIMEOUT_MS, "callback": given.append}
        if argument in RegisterThingRequest.__slots__:
            merged["request"] = replace(REQUEST, **{argument: value})
        else:
            merged[argument] = value
        assert kind.call(provisioning, **merged) == Status.BAD_PARAMETER, value
        assert provisioning.error is not None
        assert provisioning.error.status == Status.BAD_PARAMETER
        assert (client.packets, given) == ([], [])


@each_kind
def test_bad_parameter_without_a_connection(kind: Kind) -> None:
    assert kind.call(begun(None), TIMEOUT_MS, print) == Status.BAD_PARAMETER


def test_the_longest_name_of_a_template_is_taken() -> None:
    client = ScriptedClient(accepts(REGISTER.answer))
    status, _ = outcome(REGISTER, client, request=replace(REQUEST, template_name="T" * 36))
    assert status == Status.SUCCESS


@each_kind
@pytest.mark.parametrize("what", ["refused", "silent"])
@pytest.mark.parametrize("where", ["/accepted", "/rejected", ""])
def test_mqtt_error(kind: Kind, what: str, where: str) -> None:
    topics = [f"{kind.topic}{where}"]
    client = ScriptedClient(refused=topics) if what == "refused" else ScriptedClient(silent=topics)
    # QoS 0, which is the default of two operations, has no acknowledgement that could be missing
    # in time; a client that has not sent the message in time is the same to the caller
    assert outcome(kind, client, mqtt_timeout_ms=20) == (Status.MQTT_ERROR, [])


@each_kind
def test_mqtt_error_when_the_connection_ends(kind: Kind) -> None:
    def lose(topic: str, payload: bytes) -> Messages:
        client.lose()
        return ()

    client = ScriptedClient(lose)
    assert outcome(kind, client) == (Status.MQTT_ERROR, [])


@each_kind
def test_timeout(kind: Kind) -> None:
    assert outcome(kind, ScriptedClient()) == (Status.TIMEOUT, [])


@each_kind
@pytest.mark.parametrize("code", [400, 403, 404, 429, 500, 418])
def test_server_refused(kind: Kind, code: int) -> None:
    status, given = outcome(kind, ScriptedClient(rejects({**REFUSAL, "statusCode": code})))
    assert status == Status.SERVER_REFUSED
    (response,) = given
    assert response.status_code == code
    assert isinstance(response.status_code, ServerStatusCode) == (code != 418)
    assert response.accepted is None
    assert response.rejected == RejectedResponse("AccessDenied", "no")


def without(values: Mapping[str, Any], member: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != member}


BAD_RESPONSES: list[tuple[Kind, Callable[[str, bytes], Messages]]] = [
    *((kind, accepts([])) for kind in (KEYS, CSR, REGISTER)),
    *((kind, accepts("text")) for kind in (KEYS, CSR, REGISTER)),
    *((kind, rejects(7)) for kind in (KEYS, CSR, REGISTER)),
    *((KEYS, accepts(without(ISSUED, member))) for member in ISSUED),
    *((CSR, accepts(without(ISSUED, member))) for member in list(ISSUED)[:3]),
    *((KEYS, accepts({**ISSUED, member: b"bytes"})) for member in ISSUED),
    *((CSR, accepts({**ISSUED, member: 10})) for member in list(ISSUED)[:3]),
    *(
        (kind, rejects(without(REFUSAL, each)))
        for each in REFUSAL
        for kind in (KEYS, CSR, REGISTER)
    ),
    *((KEYS, rejects({**REFUSAL, "statusCode": each})) for each in ("403", 403.0, True)),
    *((KEYS, rejects({**REFUSAL, each: b""})) for each in ("errorCode", "errorMessage")),
    (REGISTER, accepts({"thingName": 1})),
    (REGISTER, accepts({"deviceConfiguration": []})),
    (REGISTER, accepts({"deviceConfiguration": {"a": 1}})),
    (REGISTER, accepts({"deviceConfiguration": {1: "a"}})),
    (KEYS, accepts({**ISSUED, "more": "x" * 131072})),
]


@pytest.mark.parametrize(("kind", "answer"), BAD_RESPONSES)
def test_bad_response(kind: Kind, answer: Callable[[str, bytes], Messages]) -> None:
    assert outcome(kind, ScriptedClient(answer)) == (Status.BAD_RESPONSE, [])


@each_kind
@pytest.mark.parametrize("payload", [b"", b"\xff", b"\x1c", b"\xfe\xa0", b"\xb8", b"\xb9\0"])
def test_internal_failure_when_the_decoder_cannot_begin(kind: Kind, payload: bytes) -> None:
    client = ScriptedClient(answers(payload))
    assert outcome(kind, client) == (Status.INTERNAL_FAILURE, [])


def test_no_memory() -> None:
    class Exhausting(dict[str, str]):
        """Parameters whose copy does not fit."""

        def keys(self) -> Any:
            raise MemoryError

        def items(self) -> Any:
            raise MemoryError

    client = ScriptedClient()
    request = replace(REQUEST, parameters=Exhausting(a="b"))
    assert outcome(REGISTER, client, request=request) == (Status.NO_MEMORY, [])
    assert client.packets == []


@each_kind
def test_success(kind: Kind) -> None:
    status, given = outcome(kind, ScriptedClient(accepts(kind.answer)))
    assert status == Status.SUCCESS
    assert [each.status_code for each in given] == [ServerStatusCode.ACCEPTED]
    assert given[0].rejected is None
    for secret in ("tok", "KEY"):
        assert secret not in repr(given[0])


# --- the contract beside the table ---


@pytest.mark.parametrize("value", NO_UINT32, ids=repr)
def test_a_failed_init_has_initialized_nothing(value: Any) -> None:
    """The C library takes itself for initialized before it can fail."""
    provisioning = Provisioning(ScriptedClient())
    assert provisioning.init(value) == Status.INIT_FAILED
    assert call_keys(provisioning, TIMEOUT_MS, print) == Status.NOT_INITIALIZED
    assert provisioning.init() == Status.SUCCESS


def test_the_words_of_every_status() -> None:
    """The C library has none for NOT_INITIALIZED, and its test stops at the first entry."""
    words = {each: strerror(each) for each in Status}
    assert words[Status.INTERNAL_FAILURE] == "FAILED: INTERNAL FAILURE"
    assert words[Status.NOT_INITIALIZED] == "NOT INITIALIZED"
    assert len(set(words.values())) == 10
    assert "INVALID STATUS" not in words.values()
    for no_status in (None, "SUCCESS", -1, [], 1.5, object()):
        assert strerror(no_status) == "INVALID STATUS"  # type: ignore[arg-type]
    assert strerror(0) == strerror(11) == Provisioning.strerror(99) == "INVALID STATUS"


@pytest.mark.parametrize("flags", [0, FLAG_ENCRYPT_CREDENTIALS, 2])
def test_flags_have_no_effect(flags: int) -> None:
    """Also an unknown one; the C library's test of it fails for its empty callback only."""
    status, given = outcome(KEYS, ScriptedClient(accepts(ISSUED)), flags=flags)
    assert (status, len(given)) == (Status.SUCCESS, 1)


def test_numbers_may_have_names() -> None:
    """As a port of a program in C is likely to have them."""

    class Number(IntEnum):
        ZERO = 0
        ONE = 1
        MILLISECONDS = TIMEOUT_MS

    for kind, more in ((KEYS, {"flags": Number.ONE}), (CSR, {"qos": Number.ZERO})):
        provisioning = begun(ScriptedClient(accepts(kind.answer)), Number.ONE)
        assert kind.call(provisioning, Number.MILLISECONDS, print, **more) == Status.SUCCESS


@pytest.mark.parametrize(("kind", "qos"), [(KEYS, 0), (REGISTER, 0), (CSR, 0), (CSR, 1)])
def test_the_quality_of_service_of_the_request(kind: Kind, qos: int) -> None:
    client = ScriptedClient(accepts(kind.answer))
    assert outcome(kind, client, qos=qos)[0] == Status.SUCCESS
    assert client.qos == [qos]


def test_json_instead_of_cbor() -> None:
    client = ScriptedClient(
        lambda topic, _: [(f"{topic}/accepted", json.dumps({"thingName": "t"}).encode())]
    )
    provisioning = Provisioning(client, "json")
    provisioning.init()
    given: list[RegisterThingResponse] = []
    assert call_register(provisioning, TIMEOUT_MS, given.append) == Status.SUCCESS
    assert given == [RegisterThingResponse(202, AcceptedRegisterThing("t", {}))]
    with pytest.raises(BadRequest):
        Provisioning(client, "xml")  # type: ignore[arg-type]


def test_the_words_of_a_failure_can_be_asked_for() -> None:
    provisioning = begun(ScriptedClient(rejects(REFUSAL)))
    call_keys(provisioning, TIMEOUT_MS, lambda _: None)
    assert "403 AccessDenied: no" in str(provisioning.error)
    call_keys(provisioning, TIMEOUT_MS, None)
    assert "the callback cannot be called: None" in str(provisioning.error)


def test_the_callback_runs_in_the_caller_s_thread_before_the_call_returns() -> None:
    threads: list[int] = []
    client = ScriptedClient(accepts(ISSUED), delay=0.005)
    provisioning = begun(client)
    status = call_keys(provisioning, 5000, lambda _: threads.append(threading.get_ident()))
    assert (status, threads) == (Status.SUCCESS, [threading.get_ident()])
    client.disconnect()


def test_a_callback_may_make_the_next_call() -> None:
    client = ScriptedClient(accepts({**ISSUED, "thingName": "t"}))
    provisioning = begun(client)
    statuses: list[Status] = []

    def register(response: CreateCertificateFromCsrResponse) -> None:
        assert response.accepted is not None
        token = response.accepted.certificate_ownership_token
        request = RegisterThingRequest("T", response.accepted.certificate_id, token)
        statuses.append(provisioning.register_thing(request, TIMEOUT_MS, lambda _: None))

    assert call_csr(provisioning, TIMEOUT_MS, register) == Status.SUCCESS
    assert statuses == [Status.SUCCESS]


# --- defects of the C library that are not here ---


@each_kind
def test_after_a_publish_error_the_subscriptions_are_given_back(kind: Kind) -> None:
    """The C library's CSR call leaves them, and its payload, behind."""
    client = ScriptedClient(refused=[kind.topic])
    assert outcome(kind, client)[0] == Status.MQTT_ERROR
    assert client.packets[-2:] == ["unsubscribe accepted", "unsubscribe rejected"]


@each_kind
def test_a_duplicate_calls_nothing(kind: Kind) -> None:
    """The C library never clears its callback."""

    def twice(topic: str, payload: bytes) -> Messages:
        return [*accepts(kind.answer)(topic, payload)] * 2

    given: list[Any] = []
    client = ScriptedClient(twice, silent=["unsubscribe"])
    provisioning = begun(client, 10)
    assert kind.call(provisioning, TIMEOUT_MS, given.append) == Status.SUCCESS
    client.deliver(f"{kind.topic}/accepted", cbor2.dumps(kind.answer))
    assert len(given) == 1
    client.lose()


@each_kind
def test_a_late_answer_neither_calls_back_nor_spoils_the_next_call(kind: Kind) -> None:
    """The C library's semaphore stays raised: its next call returns TIMEOUT at once."""
    given: list[Any] = []
    client = ScriptedClient(silent=["unsubscribe"])
    provisioning = begun(client, 10)
    assert kind.call(provisioning, TIMEOUT_MS, given.append) == Status.TIMEOUT
    client.deliver(f"{kind.topic}/accepted", cbor2.dumps(kind.answer))
    assert given == []
    client._answer = accepts(kind.answer)
    assert kind.call(provisioning, TIMEOUT_MS, given.append) == Status.SUCCESS
    assert len(given) == 1
    client.lose()


def test_a_second_call_of_a_kind_is_refused_not_mixed_up() -> None:
    """In the C library both would wait on one semaphore, for one callback."""
    client = ScriptedClient()
    provisioning = begun(client)
    thread = threading.Thread(target=call_keys, args=(provisioning, 5000, print))
    thread.start()
    assert client.published.wait(5)
    second = begun(client)
    assert call_keys(second, TIMEOUT_MS, print) == Status.BAD_PARAMETER
    assert isinstance(second.error, InProgress)
    client.lose()
    thread.join()

"""Spoilt replies, in both forms."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fleetgate.gateway.fault_replies import (
    KINDS,
    spoil,
    with_another_key,
    with_another_request,
)
from fleetgate.wire import payload
from tests.integration.fleet import signing_request

FORMS = pytest.mark.parametrize("form", ["json", "cbor"])
ACCEPTED = {"deviceConfiguration": {"a": "1"}, "thingName": "lamp-7"}
REJECTED = {"statusCode": 404, "errorCode": "ResourceNotFound", "errorMessage": "no"}


def decoded(form: str, sent: bytes) -> Any:
    return json.loads(sent) if form == "json" else cbor2.loads(sent)


@FORMS
@pytest.mark.parametrize("reply", [ACCEPTED, REJECTED])
def test_what_a_spoilt_reply_is(form: str, reply: dict[str, Any]) -> None:
    sent = payload.encode(form, reply)
    made = {kind: spoil(kind, form, sent, size=5000) for kind in KINDS}
    for kind in ("undecodable", "truncated", "empty"):
        with pytest.raises((ValueError, cbor2.CBORError)):
            decoded(form, made[kind])
    assert sent.startswith(made["truncated"])
    assert decoded(form, made["no-map"]) == list(reply)
    wrong = decoded(form, made["wrong-types"])
    assert wrong.keys() == reply.keys()
    assert all(type(wrong[name]) is not type(value) for name, value in reply.items())
    assert decoded(form, made["missing-members"]) == {}
    huge = decoded(form, made["huge"])
    assert len(made["huge"]) == 5000
    assert set(huge.pop("padding")) == {"x"}
    assert huge == reply


@FORMS
def test_some_members_are_missing(form: str) -> None:
    sent = payload.encode(form, ACCEPTED)
    made = spoil("missing-members", form, sent, ("thingName", "unknown"))
    assert decoded(form, made) == {"deviceConfiguration": {"a": "1"}}


@FORMS
@pytest.mark.parametrize("size", [1, 80, 300, 331, 332, 333, 66_000, 131_072])
def test_a_huge_one_has_the_size_or_its_own(form: str, size: int) -> None:
    sent = payload.encode(form, ACCEPTED)
    made = spoil("huge", form, sent, size=size)
    assert decoded(form, made) == {**ACCEPTED, "padding": decoded(form, made)["padding"]}
    assert len(made) == size or len(sent) < len(made) <= len(sent) + 20 >= size


@FORMS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", ["undecodable", "truncated", "empty", "no-map"])
def test_what_is_spoilt_can_be_spoilt_again(form: str, kind: str, first: str) -> None:
    spoil(kind, form, spoil(first, form, payload.encode(form, ACCEPTED)), size=100)


@FORMS
def test_a_request_becomes_one_for_another_key(form: str) -> None:
    own = signing_request("lamp")
    sent = payload.encode(form, {"certificateSigningRequest": own.csr})
    made = payload.decode(form, with_another_request(form, sent))["certificateSigningRequest"]
    csr = x509.load_pem_x509_csr(made.encode())
    assert csr.is_signature_valid
    assert csr.subject == x509.load_pem_x509_csr(own.csr.encode()).subject
    assert csr.public_key() != load_pem_private_key(own.key.encode(), None).public_key()


@pytest.mark.parametrize(
    "sent",
    [b"", b"[]", b"{}", b'{"certificateSigningRequest": 7}', b'{"certificateSigningRequest": "x"}'],
)
def test_what_is_no_request_stays_so(sent: bytes) -> None:
    assert with_another_request("json", sent) == sent


@FORMS
def test_a_reply_gets_another_key(form: str) -> None:
    sent = payload.encode(form, {"privateKey": "own", "certificateId": "1"})
    made = payload.decode(form, with_another_key(form, sent))
    assert made["certificateId"] == "1"
    load_pem_private_key(made["privateKey"].encode(), None)
    other = payload.encode(form, ACCEPTED)
    assert payload.decode(form, with_another_key(form, other)) == ACCEPTED

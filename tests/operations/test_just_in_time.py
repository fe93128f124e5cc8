"""Certificates that register themselves: who is let in, who is not, and what the log says.

Sources: AWS IoT Developer Guide, "Register a client certificate when the client connects to AWS IoT
just-in-time registration (JITR)", "Manage your CA certificates", "Transport security in AWS IoT
Core"; AWS IoT API Reference, RegisterCACertificate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from fleetgate.errors import ResourceAlreadyExistsException
from fleetgate.operations.admission import NotActivated, NotAdmitted, NotRegistered
from fleetgate.operations.identity import Peer
from fleetgate.operations.just_in_time import Allowance, JustInTime
from fleetgate.operations.sweep import sweep
from tests.operations.arrivals import GATE, Door, Interrupted, der, id_of, open_to
from tests.operations.conftest import START, Registry, elsewhere
from tests.operations.foreign import authority, name_of, register, with_other_signature

DAY = 86400.0


@pytest.fixture
def door(registry: Registry, caplog: pytest.LogCaptureFixture) -> Iterator[Door]:
    made = Door(registry, caplog)
    yield made
    registry.runner.run(made.just_in_time.provisioning.close(5.0))


# --- registration --------------------------------------------------------------------------------


def test_an_unknown_certificate_is_registered_by_its_first_connect(
    registry: Registry, door: Door
) -> None:
    foreign = authority()
    ca_id = open_to(registry, foreign)
    leaf = foreign.sign("lamp")
    heard = door.connect(leaf)
    assert isinstance(heard, NotActivated)
    assert "PENDING_ACTIVATION" in heard.message
    described = door.describe(leaf)
    assert described["status"] == "PENDING_ACTIVATION"
    assert described["caCertificateId"] == ca_id
    assert described["certificateMode"] == "DEFAULT"
    assert described["certificatePem"] == leaf
    assert described["creationDate"] == START
    listed = registry.call("ListCertificatesByCA", ca_certificate_id=ca_id)["certificates"]
    assert [each["certificateId"] for each in listed] == [id_of(leaf)]
    [line] = door.lines()
    assert line == (
        f"event=registered certificate={id_of(leaf)} ca={ca_id} mode=DEFAULT peer=192.0.2.7 "
        "subject='CN=lamp' template=none"
    )


def test_the_event_has_awss_types_and_comes_again_at_each_connect(
    registry: Registry, door: Door
) -> None:
    """One time is a number, the other one a string."""
    foreign = authority()
    ca_id = open_to(registry, foreign)
    leaf = foreign.sign("lamp")
    expected = {
        "certificateId": id_of(leaf),
        "caCertificateId": ca_id,
        "timestamp": 1790000000000,
        "certificateStatus": "PENDING_ACTIVATION",
        "awsAccountId": "123456789012",
        "certificateRegistrationTimestamp": "1790000000000",
    }
    topic = f"$aws/events/certificates/registered/{ca_id}"
    door.connect(leaf)
    assert door.events == [(topic, expected)]
    assert list(door.events[0][1]) == list(expected)
    registry.clock.now += 1.5
    assert isinstance(door.connect(leaf), NotActivated)
    assert door.events[1:] == [(topic, {**expected, "timestamp": 1790000001500})]
    assert "nobody has activated it" in door.lines()[-1]


def test_an_activated_certificate_is_let_in_without_an_event(
    registry: Registry, door: Door
) -> None:
    foreign = authority()
    open_to(registry, foreign)
    leaf = foreign.sign("lamp")
    door.connect(leaf)
    registry.call("UpdateCertificate", certificate_id=id_of(leaf), new_status="ACTIVE")
    assert door.connect(leaf) is None
    for status in ("INACTIVE", "REVOKED"):
        registry.call("UpdateCertificate", certificate_id=id_of(leaf), new_status=status)
        heard = door.connect(leaf)
        assert heard is not None
        assert heard.message == f"certificate {id_of(leaf)} is {status}, not ACTIVE"
    assert len(door.events) == 1


def test_the_sweep_for_unused_tokens_leaves_it_alone(registry: Registry, door: Door) -> None:
    foreign = authority()
    open_to(registry, foreign)
    leaf = foreign.sign("lamp")
    door.connect(leaf)
    services = registry.services
    far = START + 50 * 365 * DAY
    registry.runner.run(services.store.write(sweep, services.account, far))
    assert door.listed() == [id_of(leaf)]


def test_a_deleted_one_begins_anew(registry: Registry, door: Door) -> None:
    foreign = authority()
    open_to(registry, foreign)
    leaf = foreign.sign("lamp")
    door.connect(leaf)
    registry.call("DeleteCertificate", certificate_id=id_of(leaf))
    assert door.listed() == []
    assert isinstance(door.connect(leaf), NotActivated)
    assert door.listed() == [id_of(leaf)]
    assert len(door.events) == 2


def test_racing_connects_of_one_device_give_one_certificate(registry: Registry, door: Door) -> None:
    foreign = authority()
    open_to(registry, foreign)
    leaf = foreign.sign("lamp")
    peer = Peer("192.0.2.7", GATE, der(leaf))

    async def race() -> list[BaseException | object]:
        connects = (door.just_in_time.admit(peer) for _ in range(20))
        return list(await asyncio.gather(*connects, return_exceptions=True))

    assert {type(each) for each in registry.runner.run(race())} == {NotActivated}
    assert door.listed() == [id_of(leaf)]
    assert len(door.events) == 20
    assert sum("event=registered" in line for line in door.lines()) == 1


def test_a_certificate_without_a_ca_makes_no_event(registry: Registry, door: Door) -> None:
    """One that a device asked for over MQTT waits for RegisterThing, and for nothing else."""
    created = registry.device("CreateKeysAndCertificate")
    assert isinstance(door.connect(created["certificatePem"]), NotActivated)
    assert door.events == []
    assert door.lines() == []


# --- refusals ------------------------------------------------------------------------------------


def test_nothing_is_known_of_its_issuer(registry: Registry, door: Door) -> None:
    open_to(registry, authority("Lamp CA"))
    line = door.refused(authority("Nobody").sign("lamp"))
    assert "step=issuer" in line
    assert "no registered CA certificate has the subject `CN=Nobody`" in line


@pytest.mark.parametrize(
    ("params", "step", "reason"),
    [
        ({"set_as_active": False}, "issuer", "it is INACTIVE, not ACTIVE"),
        (
            {"allow_auto_registration": False},
            "issuer",
            "its auto registration is DISABLE, not ENABLE",
        ),
    ],
)
def test_the_ca_has_to_be_active_and_enabled(
    registry: Registry, door: Door, params: dict[str, Any], step: str, reason: str
) -> None:
    foreign = authority()
    ca_id = register(registry, foreign, **{"allow_auto_registration": True, **params})
    line = door.refused(foreign.sign("lamp"))
    assert f"step={step} " in line
    assert f"CA certificate {ca_id}: {reason}" in line


def test_the_ca_has_to_be_valid(registry: Registry, door: Door) -> None:
    foreign = authority(days=10)
    open_to(registry, foreign)
    leaf = foreign.sign("lamp")
    registry.clock.now = START + 11 * DAY
    assert "it expired at 2026-10-01T" in door.refused(leaf)
    early = authority("Early", starts=12)
    open_to(registry, early, verification_certificate=None, certificate_mode="SNI_ONLY")
    assert "it is not valid before 2026-10-03T" in door.refused(early.sign("lamp"))


def test_the_signature_has_to_match(registry: Registry, door: Door) -> None:
    ca_id = open_to(registry, authority("Lamp CA"))
    line = door.refused(authority("Lamp CA").sign("lamp"))
    assert "step=signature" in line
    assert f"its signature does not match the key of the CA (id={ca_id})" in line


def _weak() -> dict[str, tuple[dict[str, Any], str, str]]:
    return {
        "expired": ({"days": -1}, "validity", "it expired at 2026-09-20T"),
        "not valid yet": ({"starts": 1}, "validity", "it is not valid before 2026-09-22T"),
        "RSA key": (
            {"key": rsa.generate_private_key(65537, 1024).public_key()},  # noqa: S505
            "certificate",
            "at least 2048 bits, not 1024",
        ),
        "curve": (
            {"key": ec.generate_private_key(ec.SECP256K1()).public_key()},
            "certificate",
            "one of the curves P-256, P-384, P-521",
        ),
        "kind of key": (
            {"key": ed25519.Ed25519PrivateKey.generate().public_key()},
            "certificate",
            "the key has to be an RSA or an EC key",
        ),
        "signature": (
            {"algorithm": hashes.SHA224()},
            "certificate",
            "the signature algorithm `ECDSA_WITH_SHA224` is not one of",
        ),
    }


@pytest.mark.parametrize("what", _weak())
def test_it_has_to_be_as_good_as_for_register_certificate(
    registry: Registry, door: Door, what: str
) -> None:
    foreign = authority()
    open_to(registry, foreign)
    options, step, reason = _weak()[what]
    line = door.refused(foreign.issue(name_of("lamp"), **options))
    assert f"step={step} " in line
    assert reason in line


def test_what_is_no_certificate_is_refused(registry: Registry, door: Door) -> None:
    """OpenSSL lets more through than we read."""
    open_to(registry, authority())
    peer = Peer("192.0.2.7", GATE, b"0\x03\x02\x01\x01")
    with pytest.raises(NotRegistered):
        registry.runner.run(door.just_in_time.admit(peer))
    assert "step=certificate" in door.lines()[0]


def test_not_one_bit_of_a_certificate_may_differ(registry: Registry, door: Door) -> None:
    foreign = authority()
    open_to(registry, foreign)
    whole = der(foreign.sign("lamp"))
    door.just_in_time = JustInTime(registry.services, signatures=len(whole))

    async def connect_all() -> set[type[BaseException]]:
        heard: set[type[BaseException]] = set()
        for place in range(len(whole)):
            changed = bytearray(whole)
            changed[place] ^= 1 << place % 8
            try:
                await door.just_in_time.admit(Peer("192.0.2.7", GATE, bytes(changed)))
            except Exception as error:
                heard.add(type(error))
        return heard

    assert registry.runner.run(connect_all()) == {NotRegistered}
    assert door.listed() == []


def test_a_revoked_certificate_does_not_come_back_with_another_signature(
    registry: Registry, door: Door
) -> None:
    """Who has a certificate can write its ECDSA signature in two ways: both verify, two ids."""
    foreign = authority()
    open_to(registry, foreign)
    leaf = foreign.sign("lamp")
    again = with_other_signature(leaf)
    assert id_of(again) != id_of(leaf)
    door.connect(leaf)
    registry.call("UpdateCertificate", certificate_id=id_of(leaf), new_status="REVOKED")
    assert isinstance(door.connect(again), NotRegistered)
    assert f"certificate {id_of(leaf)} is the same with another signature" in door.lines()[-1]
    assert door.listed() == [id_of(leaf)]
    with pytest.raises(ResourceAlreadyExistsException) as caught:
        registry.call("RegisterCertificate", certificate_pem=again)
    assert caught.value.members["resourceId"] == id_of(leaf)
    registry.call("DeleteCertificate", certificate_id=id_of(leaf))
    assert isinstance(door.connect(again), NotActivated)


def test_a_ca_that_is_switched_off_stops_new_ones_alone(registry: Registry, door: Door) -> None:
    """Developer guide, "Deactivate a CA certificate"."""
    foreign = authority()
    ca_id = open_to(registry, foreign)
    known, pending = foreign.sign("known"), foreign.sign("pending")
    for leaf in (known, pending):
        door.connect(leaf)
    registry.call("UpdateCertificate", certificate_id=id_of(known), new_status="ACTIVE")
    for change in (
        {"new_status": "INACTIVE"},
        {"new_status": "ACTIVE", "new_auto_registration_status": "DISABLE"},
        {"new_auto_registration_status": "ENABLE"},
        {"remove_auto_registration": True},
    ):
        registry.call("UpdateCACertificate", certificate_id=ca_id, **change)
        door.events.clear()
        assert door.connect(known) is None
        assert isinstance(door.connect(pending), NotActivated)
        assert len(door.events) == 1
        fresh = door.connect(foreign.sign("fresh"))
        enabled = change == {"new_auto_registration_status": "ENABLE"}
        assert isinstance(fresh, NotActivated if enabled else NotRegistered)
    registry.call("UpdateCACertificate", certificate_id=ca_id, new_status="INACTIVE")
    registry.call("DeleteCACertificate", certificate_id=ca_id)
    assert door.connect(known) is None
    assert isinstance(door.connect(foreign.sign("late")), NotRegistered)
    assert "no registered CA certificate" in door.lines()[-1]


@pytest.mark.parametrize(
    ("operation", "params", "reason"),
    [
        ("UpdateCACertificate", {"new_status": "INACTIVE"}, "it is INACTIVE, not ACTIVE"),
        (
            "UpdateCACertificate",
            {"new_auto_registration_status": "DISABLE"},
            "its auto registration is DISABLE, not ENABLE",
        ),
        ("DeleteCACertificate", {}, "it has been deleted"),
    ],
)
def test_the_ca_may_change_while_a_device_connects(
    registry: Registry, door: Door, operation: str, params: dict[str, Any], reason: str
) -> None:
    """What was looked up is asked again in the transaction that registers."""
    foreign = authority()
    ca_id = open_to(registry, foreign)

    async def change() -> None:
        if operation == "DeleteCACertificate":
            off = {"certificate_id": ca_id, "new_status": "INACTIVE"}
            await registry.start("iot", "UpdateCACertificate", off)
        await registry.start("iot", operation, {"certificate_id": ca_id, **params})

    services = elsewhere(registry.services, store=Interrupted(registry.services.store, change))
    door.just_in_time = JustInTime(services)
    line = door.refused(foreign.sign("lamp"))
    assert "step=issuer" in line
    assert f"CA certificate {ca_id}: {reason}" in line


# --- several CAs with one subject ----------------------------------------------------------------


def test_the_ca_whose_key_verifies_the_signature_counts(registry: Registry, door: Door) -> None:
    twins = [authority("Twin") for _ in range(3)]
    ids = [open_to(registry, each, certificate_mode="SNI_ONLY") for each in twins]
    for twin, ca_id in zip(twins, ids, strict=True):
        leaf = twin.sign("lamp")
        door.connect(leaf)
        assert door.describe(leaf)["caCertificateId"] == ca_id
        assert door.describe(leaf)["certificateMode"] == "SNI_ONLY"


def test_every_one_of_them_has_its_reason(registry: Registry, door: Door) -> None:
    mine, other, off = (authority("Twin") for _ in range(3))
    other_id = open_to(registry, other, certificate_mode="SNI_ONLY")
    off_id = register(registry, off, certificate_mode="SNI_ONLY")
    line = door.refused(mine.sign("lamp"))
    assert f"CA certificate {other_id}: The certificate is not signed by the CA" in line
    assert f"CA certificate {off_id}: its auto registration is DISABLE" in line


def test_a_renewed_ca_takes_over(registry: Registry, door: Door) -> None:
    """The same name and key: the one that may be used, else the one the client has sent."""
    old = authority("Twin", days=10)
    new = authority("Twin", days=2000, key=old.key)
    old_id = open_to(registry, old)
    registry.clock.now += 1
    new_id = open_to(registry, new)
    leaves = [old.sign(str(number)) for number in range(3)]
    door.connect(leaves[0])
    door.connect(leaves[1], new)
    registry.clock.now = START + 20 * DAY
    door.connect(leaves[2], old)
    found = [door.describe(leaf)["caCertificateId"] for leaf in leaves]
    assert found == [old_id, new_id, new_id]


# --- server names and chains ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "server_name", "chain", "refused"),
    [
        ("DEFAULT", GATE, "", ""),
        ("DEFAULT", GATE, "ca", ""),
        ("DEFAULT", GATE, "other", ""),
        ("DEFAULT", "", "ca", ""),
        ("DEFAULT", "", "other ca", ""),
        ("DEFAULT", "", "", "neither a server name (TLS SNI) nor this CA certificate"),
        ("DEFAULT", "", "other", "neither a server name (TLS SNI) nor this CA certificate"),
        ("DEFAULT", "", "twin", "neither a server name (TLS SNI) nor this CA certificate"),
        ("SNI_ONLY", GATE, "", ""),
        ("SNI_ONLY", GATE, "ca", ""),
        ("SNI_ONLY", "", "", "it is SNI_ONLY, and the client has sent no server name"),
        ("SNI_ONLY", "", "ca", "it is SNI_ONLY, and the client has sent no server name"),
    ],
)
def test_who_has_to_say_which_server_it_wants(
    registry: Registry, door: Door, mode: str, server_name: str, chain: str, refused: str
) -> None:
    """Developer guide: "Presenting the CA certificate is optional but the device is required to
    send the Server Name Indication"; API reference: SNI_ONLY certificates need it always."""
    foreign = authority()
    known = {"ca": foreign, "other": authority("Other"), "twin": authority()}
    open_to(registry, foreign, certificate_mode=mode)
    leaf = foreign.sign("lamp")
    sent = [known[each] for each in chain.split()]
    if refused:
        line = door.refused(leaf, *sent, server_name=server_name)
        assert "step=server-name" in line
        assert refused in line
    else:
        assert isinstance(door.connect(leaf, *sent, server_name=server_name), NotActivated)
        assert door.listed() == [id_of(leaf)]


def test_a_chain_proves_nothing(registry: Registry, door: Door) -> None:
    """The CA's certificate is no secret: sending it does not help who has not its key."""
    foreign = authority()
    open_to(registry, foreign)
    assert "step=signature" in door.refused(authority().sign("lamp"), foreign)


def test_an_issuer_below_the_registered_ca_is_not_registered(
    registry: Registry, door: Door
) -> None:
    root = authority("Root")
    below = authority("Below")
    open_to(registry, root)
    assert "the subject `CN=Below`" in door.refused(below.sign("lamp"), below, root)


@pytest.mark.parametrize("server_name", ["", GATE])
def test_certificates_in_sni_only_mode_need_a_server_name_for_ever(
    registry: Registry, door: Door, server_name: str
) -> None:
    foreign = authority()
    open_to(registry, foreign, certificate_mode="SNI_ONLY")
    leaf = foreign.sign("lamp")
    door.connect(leaf)
    registry.call("UpdateCertificate", certificate_id=id_of(leaf), new_status="ACTIVE")
    heard = door.connect(leaf, foreign, server_name=server_name)
    if server_name:
        assert heard is None
    else:
        assert heard is not None
        assert "is SNI_ONLY, and the client has sent no server name" in heard.message


def test_the_chain_is_read_for_unknown_certificates_of_known_issuers_alone(
    registry: Registry, door: Door
) -> None:
    foreign = authority()
    open_to(registry, foreign)
    leaf = foreign.sign("lamp")
    read: list[None] = []

    def chain() -> tuple[bytes, ...]:
        read.append(None)
        return ()

    def connect(text: str) -> None:
        peer = Peer("192.0.2.7", GATE, der(text), chain)
        try:
            registry.runner.run(door.just_in_time.admit(peer))
        except NotAdmitted:
            return

    connect(authority("Nobody").sign("lamp"))
    assert read == []
    connect(leaf)
    assert read == [None]
    registry.call("UpdateCertificate", certificate_id=id_of(leaf), new_status="ACTIVE")
    connect(leaf)
    assert read == [None]


# --- what strangers can make the server do -------------------------------------------------------


def test_an_allowance_is_used_up_and_comes_back() -> None:
    allowance = Allowance(10)
    assert [allowance.take(100.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert [allowance.take(100.25) for _ in range(4)] == [True, True, False, False]
    assert [allowance.take(99.0) for _ in range(2)] == [False, False]  # the clock was set back
    assert [allowance.take(500.0) for _ in range(12)] == [True] * 10 + [False] * 2


def test_signatures_of_a_second_are_counted(registry: Registry, door: Door) -> None:
    foreign = authority()
    open_to(registry, foreign)
    forged = der(authority().sign("forged"))
    peer = Peer("192.0.2.7", GATE, forged)
    door.just_in_time = JustInTime(registry.services, signatures=5)
    for _ in range(5):
        with pytest.raises(NotRegistered):
            registry.runner.run(door.just_in_time.admit(peer))
    leaf = foreign.sign("lamp")
    line = door.refused(leaf)
    assert "step=load" in line
    assert "5 signatures of unknown certificates" in line
    registry.clock.now += 0.2
    assert isinstance(door.connect(leaf), NotActivated)


def test_without_an_enabled_ca_no_signature_is_verified(registry: Registry, door: Door) -> None:
    foreign = authority()
    ca_id = register(registry, foreign)
    leaf = foreign.sign("lamp")
    door.just_in_time = JustInTime(registry.services, signatures=1)
    for _ in range(3):
        door.connect(leaf)
    registry.call(
        "UpdateCACertificate", certificate_id=ca_id, new_auto_registration_status="ENABLE"
    )
    assert isinstance(door.connect(leaf), NotActivated)


def test_registrations_at_a_time_are_counted(registry: Registry, door: Door) -> None:
    foreign = authority()
    open_to(registry, foreign)
    leaves = [foreign.sign(str(number)) for number in range(9)]

    async def all_at_once() -> list[Any]:
        go_on = asyncio.Event()
        services = elsewhere(
            registry.services, store=Interrupted(registry.services.store, go_on.wait)
        )
        door.just_in_time = JustInTime(services, at_once=4)
        peers = [Peer("192.0.2.7", GATE, der(leaf)) for leaf in leaves]
        tasks = [asyncio.create_task(door.just_in_time.admit(peer)) for peer in peers]
        while sum(task.done() for task in tasks) < 5:
            await asyncio.wait(
                [task for task in tasks if not task.done()], return_when=asyncio.FIRST_COMPLETED
            )
        go_on.set()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    heard = [type(each) for each in registry.runner.run(all_at_once())]
    assert heard.count(NotActivated) == 4
    assert heard.count(NotRegistered) == 5
    assert sum("step=load" in line for line in door.lines()) == 5
    again = [leaf for leaf, each in zip(leaves, heard, strict=True) if each is NotRegistered]
    door.just_in_time = JustInTime(registry.services, at_once=4)
    assert all(isinstance(door.connect(leaf), NotActivated) for leaf in again)
    assert len(door.listed()) == 9


def test_names_of_strangers_are_cut_in_the_log(registry: Registry, door: Door) -> None:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "x" * 60)] * 30
    issuer = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, "\n" * 5)])
    foreign = replace(authority(), subject=issuer)
    line = door.refused(foreign.issue(name_of("y")))
    assert len(line) < 600
    assert "\n" not in line

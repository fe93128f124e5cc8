"""RegisterThing again over real MQTT: lost answers, killed servers, operators in between.

The rules are those of docs/provisioning.md, "When a device asks again"; the table of all that may
happen between two requests is in tests/operations/test_register_again.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.fleet import (
    CSR,
    ROLE,
    Fleet,
    create_fleet,
    create_identity,
    register_topic,
    template_body,
)
from tests.integration.paho_device import PahoDevice, encode
from tests.integration.races import REQUEST, is_accepted, look, started
from tests.integration.server import Server

Act = Callable[[Any, Fleet, str], object]


def asked(token: str, serial: str) -> dict[str, Any]:
    return {
        "certificateOwnershipToken": token,
        "parameters": {"SerialNumber": serial},
    }


def test_a_lost_answer_is_told_again_word_for_word(
    server: Server, fleet: Fleet, name: str, tmp_path: Path
) -> None:
    register = register_topic(fleet.template)
    thing = fleet.thing(name)
    with PahoDevice(server, fleet.claim, name) as device:
        device.listen(CSR)
        made, _ = device.create()
        body = asked(made["certificateOwnershipToken"], name)
        # nobody listens: it is carried out all the same
        assert device.publish(f"{register}/json", encode(body, "json")) == 0
    told = set()
    other = create_identity(server, tmp_path, "other-claim", fleet.claim_policy)
    for identity, version in ((fleet.claim, 4), (fleet.claim, 5), (other, 4)):
        with PahoDevice(server, identity, f"{name}-again", version=version) as device:
            device.listen(register)
            reply = device.request(register, body)
            assert reply.accepted
            told.add(reply.message.payload)
            device.listen(register, form="cbor")
            assert device.accepted(register, body, form="cbor") == reply.body
    assert told == {
        json.dumps(
            {
                "deviceConfiguration": {"greeting": "hello", "serial": name},
                "thingName": thing,
            },
            separators=(",", ":"),
        ).encode()
    }
    assert server.iot.describe_thing(thingName=thing)["version"] == 1
    assert len(server.iot.list_thing_principals(thingName=thing)["principals"]) == 1


def new_version(iot: Any, fleet: Fleet, _arn: str) -> None:
    body = template_body(f"{fleet.name}-new", fleet.device_policy)
    iot.create_provisioning_template_version(
        templateName=fleet.template, templateBody=body, setAsDefault=True
    )


def disable(iot: Any, fleet: Fleet, _arn: str) -> None:
    iot.update_provisioning_template(templateName=fleet.template, enabled=False)


def delete(iot: Any, fleet: Fleet, _arn: str) -> None:
    iot.delete_provisioning_template(templateName=fleet.template)


def make_anew(iot: Any, fleet: Fleet, arn: str) -> None:
    delete(iot, fleet, arn)
    iot.create_provisioning_template(
        templateName=fleet.template,
        templateBody=template_body(fleet.name, fleet.device_policy),
        provisioningRoleArn=ROLE,
        enabled=True,
    )


def change_the_thing(iot: Any, fleet: Fleet, _arn: str) -> None:
    iot.update_thing(thingName=fleet.thing("1"), attributePayload={"attributes": {"by": "hand"}})


def detach(iot: Any, fleet: Fleet, arn: str) -> None:
    iot.detach_thing_principal(thingName=fleet.thing("1"), principal=arn)


def delete_the_thing(iot: Any, fleet: Fleet, arn: str) -> None:
    detach(iot, fleet, arn)
    iot.delete_thing(thingName=fleet.thing("1"))


def deactivate(iot: Any, _fleet: Fleet, arn: str) -> None:
    iot.update_certificate(certificateId=arn.rpartition("/")[2], newStatus="INACTIVE")


def delete_the_certificate(iot: Any, fleet: Fleet, arn: str) -> None:
    delete_the_thing(iot, fleet, arn)
    deactivate(iot, fleet, arn)
    iot.delete_certificate(certificateId=arn.rpartition("/")[2], forceDelete=True)


USED = (400, "InvalidCertificateOwnershipToken")
DENIED = (403, "AccessDenied")

BETWEEN: dict[str, tuple[Act, tuple[int, str] | None]] = {
    "new-version": (new_version, None),
    "thing-changed": (change_the_thing, None),
    "template-disabled": (disable, DENIED),
    "template-deleted": (delete, (404, "ResourceNotFound")),
    "template-made-anew": (make_anew, USED),
    "detached": (detach, DENIED),
    "thing-deleted": (delete_the_thing, DENIED),
    "certificate-deactivated": (deactivate, DENIED),
    "certificate-deleted": (delete_the_certificate, USED),
}


@pytest.mark.parametrize(("act", "refusal"), BETWEEN.values(), ids=BETWEEN)
def test_what_an_operator_did_in_between(
    server: Server, iot: Any, fleet: Fleet, name: str, act: Act, refusal: tuple[int, str] | None
) -> None:
    register = register_topic(fleet.template)
    with PahoDevice(server, fleet.claim, name) as device:
        device.listen(CSR, register)
        made, _ = device.create()
        body = asked(made["certificateOwnershipToken"], "1")
        first = device.request(register, body)
        assert first.accepted
        arn = iot.describe_certificate(certificateId=made["certificateId"])
        act(iot, fleet, arn["certificateDescription"]["certificateArn"])
        again = device.request(register, body)
        if refusal is None:
            assert again.message == first.message
        else:
            assert (again.body["statusCode"], again.body["errorCode"]) == refusal
    things = {each["thingName"] for each in iot.list_things(maxResults=250)["things"]}
    own = {each for each in things if each.startswith(f"{fleet.name}-")}
    assert own <= {fleet.thing("1")}  # never a second device


DEVICES = 8
EACH = 6
ROUNDS = 3


def test_a_server_killed_before_it_answered_answers_afterwards(
    tmp_path: Path, database: str, request: pytest.FixtureRequest
) -> None:
    """`kill -9` between COMMIT and reply, or before both: the same token registers, once."""
    server = started(tmp_path, database, request).start()
    try:
        fleet = create_fleet(server, tmp_path, "again")
        register = register_topic(fleet.template)
        expected: set[str] = set()
        counts = []
        for round_ in range(ROUNDS):
            requests: dict[str, dict[str, Any]] = {}
            devices = [PahoDevice(server, fleet.claim, f"d{n}") for n in range(DEVICES)]
            for number, device in enumerate(devices):
                with_csr = {"certificateSigningRequest": REQUEST.csr}
                device.__enter__()
                device.listen(CSR)  # but not to the answers of RegisterThing
                for one in range(EACH):
                    serial = f"{round_}-{number}-{one}"
                    token = device.accepted(CSR, with_csr)["certificateOwnershipToken"]
                    requests[serial] = asked(token, serial)
            for number, device in enumerate(devices):
                for one in range(EACH):
                    serial = f"{round_}-{number}-{one}"
                    device.send(f"{register}/json", encode(requests[serial], "json"))
            time.sleep(0.01 * round_)
            server.kill()
            for device in devices:
                device.close()
            server = server.start()

            expected |= {fleet.thing(serial) for serial in requests}
            before = look(server.iot, beside={fleet.claim.id})
            counts.append(len(before.things.keys() & {fleet.thing(each) for each in requests}))
            with PahoDevice(server, fleet.claim, "after") as device:
                device.listen(register)
                for serial, body in requests.items():
                    first = device.request(register, body)
                    assert is_accepted(first.message), first.body
                    assert first.body["thingName"] == fleet.thing(serial)
                    assert device.request(register, body).message == first.message
            after = look(server.iot, beside={fleet.claim.id})
            assert set(after.things) == expected
            assert {len(each) for each in after.things.values()} == {1}
            assert not after.pending
        print(f"registered before the server was killed: {counts} of {DEVICES * EACH}")  # noqa: T201
    finally:
        server.terminate()

"""Hooks over real MQTT: every way to fail, and that it hurts nobody else.

Source: AWS IoT developer guide, "Pre-provisioning hooks".
"""

from __future__ import annotations

import io
import re
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awsiot
import pytest

from tests.integration.crt_device import crt_5
from tests.integration.fleet import (
    CSR,
    Fleet,
    arn,
    create_fleet,
    create_role,
    register_topic,
    signing_request,
)
from tests.integration.paho_device import PahoDevice, encode
from tests.integration.races import ask, connected, is_accepted, kinds, look, new_tokens
from tests.integration.refusal import everything
from tests.integration.server import ACCOUNT, REGION, Server
from tests.integration.test_awsiotsdk import SecondGeneration

FUNCTIONS = ("today", "earlier", "decide", "closed", "narrow", "foreign")
RUNTIME = f"python{sys.version_info.major}.{sys.version_info.minor}"
SOURCE = Path(__file__).with_name("hook_functions.py")
REFUSED = "the pre-provisioning hook of template `lamps-template` did not allow the provisioning"
FAILED = "the pre-provisioning hook of template `lamps-template` failed"


def function_arn(name: str) -> str:
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


@dataclass(frozen=True, slots=True)
class Hooked:
    """A server with functions, a fleet whose template asks one, and another fleet without."""

    server: Server
    lamps: Fleet
    others: Fleet

    def ask(self, function: str) -> None:
        """From now on the lamps' template asks this function."""
        self.server.iot.update_provisioning_template(
            templateName=self.lamps.template,
            preProvisioningHook={"targetArn": function_arn(function)},
        )

    def picture(self) -> Any:
        """The whole registry; what is half done fails here."""
        return look(self.server.iot, beside=(self.lamps.claim.id, self.others.claim.id))

    def logged(self, certificate_id: str) -> list[str]:
        """The lines about hooks that were asked for a certificate."""
        return [
            line[line.index("event=hook-") :]
            for line in self.server.output().splitlines()
            if "event=hook-" in line and certificate_id in line
        ]


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    directory = tmp_path_factory.mktemp("hooks")
    with Server(directory / "data") as server:
        lamps, others = (create_fleet(server, directory, name) for name in ("lamps", "others"))
        upload(server)
        yield Hooked(server, lamps, others)


def upload(server: Server) -> None:
    """All functions from one zip, and the permissions that those have which have any."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.write(SOURCE, "hooks.py")
    role = create_role(server, "functions", trust="lambda.amazonaws.com")
    functions = server.client("lambda")
    given: dict[str, dict[str, str]] = {
        "narrow": {"SourceArn": arn("provisioningtemplate/others-template")},
        "foreign": {"SourceAccount": "210987654321"},
    }
    for name in FUNCTIONS:
        functions.create_function(
            FunctionName=name,
            Runtime=RUNTIME,
            Handler=f"hooks.{name if name in FUNCTIONS[:3] else 'today'}",
            Role=role,
            Code={"ZipFile": code.getvalue()},
            Timeout=30,
        )
        if name != "closed":
            functions.add_permission(
                FunctionName=name,
                StatementId="iot",
                Action="lambda:InvokeFunction",
                Principal="iot.amazonaws.com",
                **given.get(name, {"SourceAccount": ACCOUNT}),
            )
    functions.close()


@dataclass(frozen=True, slots=True)
class Asking:
    """A device that is connected with the claim and has a certificate to be registered."""

    device: PahoDevice
    made: dict[str, Any]

    def body(self, **parameters: str) -> dict[str, Any]:
        token = self.made["certificateOwnershipToken"]
        return {"certificateOwnershipToken": token, "parameters": parameters}


@pytest.fixture(scope="module")
def asking(hooked: Hooked) -> Iterator[Asking]:
    with PahoDevice(hooked.server, hooked.lamps.claim, "asking") as device:
        device.listen(CSR, register_topic(hooked.lamps.template))
        yield Asking(device, device.create()[0])


TOPIC = register_topic("lamps-template")

NO = {
    # what the function does, kind, reason
    "false": ("denied", "`allowProvisioning` is `false`"),
    "without": ("malformed", "`allowProvisioning` is missing; it has `parameterOverrides`, `sta"),
    "True-text": ("malformed", '`allowProvisioning` must be true or "true", not `"True"`'),
    "one": ("malformed", '`allowProvisioning` must be true or "true", not `1`'),
    "nothing": ("malformed", "it must be a JSON object, not `null`"),
    "text": ("malformed", 'it must be a JSON object, not `"true"`'),
    "list": ("malformed", "it must be a JSON object, not `[{"),
    "deep": ("malformed", "it is nested more than 16 deep"),
    "number": ("malformed", "`parameterOverrides`.`n` must be a string, not `1`"),
    "overrides": ("malformed", '`parameterOverrides` must be an object, not `["a"]`'),
    "large": ("too-large", "the limit is 131072"),
    "raise": ("failed", "KeyError"),
    "exit": ("failed", "Runtime.ExitError"),
}


@pytest.mark.parametrize(("what", "kind", "reason"), [(k, *v) for k, v in NO.items()], ids=NO)
def test_whatever_goes_wrong_in_a_function_builds_nothing(
    hooked: Hooked, asking: Asking, what: str, kind: str, reason: str
) -> None:
    hooked.ask("decide")
    check_refusal(hooked, asking, what, kind, reason)
    assert "uploaded" in hooked.logged(asking.made["certificateId"])[-1]


NOT_ASKED = {
    "absent": ("no-function", "there is no function `absent`"),
    "closed": ("no-permission", "has no resource policy"),
    "narrow": ("no-permission", "no statement of the resource policy"),
    "foreign": ("no-permission", "no statement of the resource policy"),
}


@pytest.mark.parametrize(
    ("function", "kind", "reason"), [(k, *v) for k, v in NOT_ASKED.items()], ids=NOT_ASKED
)
def test_a_function_that_may_not_be_asked_builds_nothing(
    hooked: Hooked, asking: Asking, function: str, kind: str, reason: str
) -> None:
    hooked.ask(function)
    check_refusal(hooked, asking, "allow", kind, reason)


def check_refusal(hooked: Hooked, asking: Asking, what: str, kind: str, reason: str) -> None:
    before = hooked.picture()
    body = asking.body(SerialNumber="1", do=what)
    assert asking.device.rejected(TOPIC, body) == {
        "statusCode": 403,
        "errorCode": "AccessDenied",
        "errorMessage": REFUSED if kind == "denied" else FAILED,
    }
    assert hooked.picture() == before
    said = hooked.logged(asking.made["certificateId"])[-1]
    outcome = "refused" if kind == "denied" else "failed"
    assert said.startswith(f"event=hook-{outcome} template=lamps-template ")
    assert f" kind={kind} " in said
    assert reason in said


@pytest.mark.parametrize("what", ["true-text", "allow"])
def test_true_and_its_text_allow(hooked: Hooked, what: str) -> None:
    hooked.ask("decide")
    with PahoDevice(hooked.server, hooked.lamps.claim, f"allowed-{what}") as device:
        device.listen(CSR, TOPIC, form="cbor")
        token = device.create(form="cbor")[0]["certificateOwnershipToken"]
        parameters = {"SerialNumber": what, "do": what}
        body = {"certificateOwnershipToken": token, "parameters": parameters}
        assert device.accepted(TOPIC, body, form="cbor")["thingName"] == f"lamps-{what}"


@pytest.mark.parametrize("function", ["today", "earlier"])
def test_functions_by_the_letter_of_either_guide_work_with_the_device_sdk(
    hooked: Hooked, function: str
) -> None:
    hooked.ask(function)
    with crt_5(hooked.server, hooked.lamps.claim, function) as connection:
        client = SecondGeneration(connection.transport)
        token = client.create_from_csr(signing_request().csr).certificate_ownership_token
        with pytest.raises(awsiot.V2ServiceException) as caught:
            client.register(hooked.lamps.template, token, {"SerialNumber": f"no-{function}"})
        assert caught.value.modeled_error.status_code == 403
        assert caught.value.modeled_error.error_code == "AccessDenied"
        assert caught.value.modeled_error.error_message == REFUSED
        done = client.register(hooked.lamps.template, token, {"SerialNumber": f"ok-{function}"})
    assert done.thing_name == f"lamps-ok-{function}"
    assert done.device_configuration == {
        "greeting": "hello",
        "serial": f"ok-{function}",
        "DeviceLocation": "Seattle",
        "asked": f"{function} {arn('provisioningtemplate/lamps-template')}",
    }


def test_a_hundred_devices_do_not_notice_the_slow_hook_of_others(hooked: Hooked) -> None:
    """More devices wait for the hook than it runs at a time."""
    hooked.ask("decide")
    waiting, hundred, topic = 16, 100, register_topic(hooked.others.template)
    with (
        connected(hooked.server, hooked.lamps, waiting, "slow") as slow,
        connected(hooked.server, hooked.others, hundred) as devices,
    ):
        tokens = new_tokens(slow)
        for device in (*slow, *devices):
            device.listen(TOPIC if device in slow else topic)
        begun = time.monotonic()
        for number, (device, token) in enumerate(zip(slow, tokens, strict=True)):
            parameters = {"SerialNumber": f"slow-{number}", "do": "sleep:6"}
            body = {"certificateOwnershipToken": token, "parameters": parameters}
            device.send(f"{TOPIC}/json", encode(body, "json"))
        bodies = [
            {"certificateOwnershipToken": token, "parameters": {"SerialNumber": str(number)}}
            for number, token in enumerate(new_tokens(devices))
        ]
        answers = ask(devices, topic, bodies)
        assert all(map(is_accepted, answers)), kinds(answers)
        # the connections of those who wait go on
        slow[0].subscribe("$aws/certificates/create/json/accepted")
        assert slow[0].messages.empty()
        assert time.monotonic() - begun < 4.9, "they were not served while the others waited"
        refusals = [device.message(15) for device in slow]
        assert time.monotonic() - begun > 4.9
    assert kinds(refusals) == {(403, "AccessDenied"): waiting}
    lines = [line for line in hooked.server.output().splitlines() if "event=hook-failed" in line]
    lines = [line for line in lines if " kind=timed-out " in line or " kind=throttled " in line]
    assert len(lines) == waiting
    # which of the two it is for the last six, is a race: both end at the same instant
    assert sum("no process was free in time; there may be 10" in line for line in lines) <= 6
    seconds = [float(found) for found in re.findall(r" seconds=([0-9.]+) ", "\n".join(lines))]
    assert all(4.9 < each < 7 for each in seconds)
    seen = hooked.picture()
    assert sum(name.startswith("others-") for name in seen.things) == hundred
    assert not [name for name in seen.things if "slow" in name]


def test_a_device_that_leaves_while_its_hook_is_asked_is_registered(hooked: Hooked) -> None:
    """It asks again when it is back, and hears what the hook added."""
    hooked.ask("decide")
    name = "lamps-left"
    with PahoDevice(hooked.server, hooked.lamps.claim, "leaves") as device:
        device.listen(CSR, TOPIC)
        made = device.create()[0]
        body = {
            "certificateOwnershipToken": made["certificateOwnershipToken"],
            "parameters": {"SerialNumber": "left", "do": "sleep:0.5"},
        }
        assert device.publish(f"{TOPIC}/json", encode(body, "json")) == 0
        device.drop()
    deadline = time.monotonic() + 20
    # not the whole picture, which takes several questions and would be of before and after
    iot = hooked.server.iot
    while name not in [each["thingName"] for each in everything(iot, "list_things", "things")]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with PahoDevice(hooked.server, hooked.lamps.claim, "is-back") as device:
        device.listen(TOPIC)
        assert device.accepted(TOPIC, body)["thingName"] == name
    assert len(hooked.logged(made["certificateId"])) == 1


def test_a_process_that_crashed_is_replaced(hooked: Hooked, asking: Asking) -> None:
    hooked.ask("decide")
    body = asking.body(SerialNumber="crashed", do="exit")
    assert asking.device.rejected(TOPIC, body)["statusCode"] == 403
    body = asking.body(SerialNumber="after", do="override:me")
    answer = asking.device.accepted(TOPIC, body)
    assert answer["deviceConfiguration"]["by"] == "me"
    [*_, said] = hooked.logged(asking.made["certificateId"])
    assert said.startswith("event=hook-allowed ")
    assert said.endswith(" overrides='by'")

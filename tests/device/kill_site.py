"""A real server, a fleet whose devices may renew themselves, and what must hold in the end.

The policies are as narrow as those of a real fleet: the claim may do what provisioning needs, as
the client ids that the library makes up; a device connects as its thing, which its certificate has
to be attached to, talks on its own topics, and may ask for a new certificate.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fleetgate.device import keys
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import NoIdentity
from fleetgate.device.identity import Identity, load
from fleetgate.device.paho_client import connect
from tests.device.killed_child import Children, Request
from tests.functions import softhsm
from tests.integration.fleet import (
    CSR,
    KEYS,
    ROLE,
    arn,
    create_identity,
    create_role,
    policy_document,
    register_topic,
    template_body,
)
from tests.integration.fleet import Identity as ClaimFiles
from tests.integration.server import Server

TOKEN_SECONDS = 5
"""How long tokens live, and so the certificates that nobody registers."""

NAME = "kill"
CLAIM = "kill-claim"

THING = "${iot:Connection.Thing.ThingName}"
OWN = f"devices/{THING}"
OF_PROVISIONING = [f"{topic}/*" for topic in (KEYS, CSR, register_topic(NAME))]


@dataclass
class Site:
    """Devices and their server. ``directories`` are those of the devices, by serial number.

    ``token`` are the arguments of a KeyOnToken, the same key for every device that uses it: to
    make one on SoftHSM takes longer than a journey. None where SoftHSM is not installed.
    """

    server: Server
    directory: Path
    claim: ClaimFiles
    children: Children
    token: tuple[str, str, str, str] | None
    directories: dict[str, Path] = field(default_factory=dict)
    renewed: dict[str, set[str]] = field(default_factory=dict)

    def request(self, serial: str, *, key: str = "P-256", **options: Any) -> Request:
        """A journey with the claim. `named`: the client id is told beforehand."""
        out = self.directories.setdefault(serial, self.directory / serial)
        return Request(
            str(out),
            "localhost",
            self.server.mqtt_port,
            str(self.server.ca_file),
            NAME,
            serial,
            key,
            f"{NAME}-{serial}" if options.pop("named", False) else None,
            **{"claim": (str(self.claim.certificate), str(self.claim.key)), **options},
        )

    def renewal(self, serial: str, **options: Any) -> Request:
        """A journey with the device's own certificate."""
        return self.request(serial, **{"claim": None, **options})

    def until_done(self, request: Request) -> Identity:
        """Do it, not killed; what the device has then."""
        code, _ = self.children.do(request)
        assert code == 0, request
        return load(request.out)

    def decide(self, request: Request) -> Identity:
        """What the documentation says is to be done when the journey ended in doubt."""
        journal = json.loads((Path(request.out) / "journal.json").read_bytes())
        if self.states().get(journal["certificateId"]) == "ACTIVE":
            named = replace(request, own_client_id=f"{NAME}-{request.serial}")
            done = self.until_done(named)
            assert done.certificate_id == journal["certificateId"]
            assert done.answer_lost
            return done
        return self.until_done(replace(request, begin_anew=True))

    def present(self, serial: str) -> Identity | None:
        """The active identity, which is whole whenever there is one."""
        try:
            return load(self.directories[serial])
        except NoIdentity:
            return None

    def works(self, identity: Identity) -> None:
        """It connects as its thing, by the paths that stay the same, and may publish."""
        if identity.token is not None:  # which SoftHSM knows there alone
            serial = identity.client_id.removeprefix(f"{NAME}-")
            code, _ = self.children.do(self.request(serial, client="awscrt", hello=True))
            assert code == 0, identity
            return
        files = Credentials(
            identity.directory / "certificate.pem", identity.directory / "private.key"
        )
        endpoint = Endpoint("localhost", self.server.mqtt_port, identity.directory / "ca.pem")
        client = connect(endpoint, files, identity.client_id)
        client.publish(f"devices/{identity.client_id}/hello", b"", 1).result(5)
        client.disconnect().result(5)

    def check(self) -> None:
        """Every device has one identity, and the server knows of no others but what is pending.

        With renewals, those that were renewed are there too, since nobody has deactivated them.
        """
        iot = self.server.iot
        on_disk: set[str] = set()
        for serial in self.directories:
            identity = self.present(serial)
            assert identity is not None, serial
            own = {identity.certificate_id, *self.renewed.get(serial, set())}
            principals = iot.list_thing_principals(thingName=f"{NAME}-{serial}")["principals"]
            assert {each.rpartition("/")[2] for each in principals} == own, serial
            on_disk |= own
        states = self.states()
        active = {each for each, state in states.items() if state == "ACTIVE"}
        assert active == {*on_disk, self.claim.id}
        assert set(states.values()) <= {"ACTIVE", "PENDING_ACTIVATION"}

    def wait_for_the_pending(self) -> int:
        """Until the server has deleted what nobody registered; how many certificates that were."""
        pending = list(self.states().values()).count("PENDING_ACTIVATION")
        deadline = time.monotonic() + 4 * TOKEN_SECONDS
        while set(self.states().values()) != {"ACTIVE"}:
            assert time.monotonic() < deadline
            time.sleep(0.25)
        return pending

    def states(self) -> dict[str, str]:
        """Of all certificates on the server, by id."""
        pages = self.server.iot.get_paginator("list_certificates").paginate(pageSize=250)
        return {
            each["certificateId"]: each["status"] for page in pages for each in page["certificates"]
        }

    def fingerprints(self) -> list[str]:
        """Of the claim's files."""
        files = (self.claim.certificate, self.claim.key)
        return [hashlib.sha256(each.read_bytes()).hexdigest() for each in files]


def claim_document() -> str:
    """The policy of the claim."""
    return policy_document(_connect("fleetgate-*"), *_talk(OF_PROVISIONING))


def device_document() -> str:
    """The policy of the devices."""
    attached = {"Bool": {"iot:Connection.Thing.IsAttached": "true"}}
    return policy_document(
        {**_connect(THING), "Condition": attached}, *_talk([f"{OWN}/*", *OF_PROVISIONING])
    )


def _connect(client_id: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "iot:Connect", "Resource": arn(f"client/{client_id}")}


def _talk(topics: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "Effect": "Allow",
            "Action": actions,
            "Resource": [arn(f"{kind}/{each}") for each in topics],
        }
        for kind, actions in (
            ("topic", ["iot:Publish", "iot:Receive"]),
            ("topicfilter", ["iot:Subscribe"]),
        )
    ]


def _token(
    directory: Path,
) -> tuple[softhsm.SoftHsm | None, tuple[str, str, str, str] | None]:
    """A token and its key; nothing without SoftHSM."""
    if shutil.which("softhsm2-util") is None:
        return None, None
    hsm = softhsm.make(directory)
    hsm.add_token("fleet")
    file, pin = directory / "device.pem", directory / "pin"
    file.write_text(keys.pem(keys.make("P-256")))
    hsm.add_key("fleet", file, "device")
    pin.touch(0o600)
    pin.write_text(f"{softhsm.PIN}\n")
    return hsm, (softhsm.MODULE, "fleet", "device", str(pin))


@contextmanager
def site(directory: Path) -> Iterator[Site]:
    """Below `directory`; the claim is checked in the end."""
    tokens = {"FLEETGATE_OWNERSHIP_TOKEN_SECONDS": str(TOKEN_SECONDS)}
    hsm, token = _token(directory)
    variables = {"SOFTHSM2_CONF": str(hsm.configuration)} if hsm else {}
    with (
        Server(directory / "data", env=tokens) as server,
        Children(variables, hsm.tokens if hsm else None) as children,
    ):
        create_role(server)
        server.iot.create_policy(policyName=NAME, policyDocument=device_document())
        server.iot.create_policy(policyName=CLAIM, policyDocument=claim_document())
        server.iot.create_provisioning_template(
            templateName=NAME,
            templateBody=template_body(NAME, NAME),
            provisioningRoleArn=ROLE,
            enabled=True,
        )
        claim = create_identity(server, directory, "claim", CLAIM)
        devices = directory / "devices"
        devices.mkdir()
        made = Site(server, devices, claim, children, token)
        before = made.fingerprints()
        yield made
        assert made.fingerprints() == before

"""What is to be simulated, and the devices for it, whose keys are made before the clock starts."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from fleetgate.device import keys, protocol
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import BadRequest
from fleetgate.device.exchange import Terms
from fleetgate.errors import ProtocolError
from fleetgate.mqtt import topics

Profile: TypeAlias = Literal["burst", "steady", "storm"]
"""What the devices do when; see :mod:`fleetgate.device.simulate`."""

NAMES: Final = ("n", "serial", "seed", "thing", "client_id")

_NAME = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be simulated.

    `rate` is in devices per second; `concurrency` how many may be under way at a time, by default
    all; `spread` the seconds within which those of a burst or a storm begin, at random by `seed`.
    With `keys` the server makes the keys. `connections` of a storm are kept until all are there.

    In texts ``{n}`` is the device's number from 1 on, ``{serial}`` its serial number, ``{seed}``
    the seed; in `client_id` (of the device's own connection) also ``{thing}``, and in `publish`,
    a topic or None, ``{client_id}`` besides.
    """

    endpoint: Endpoint
    claim: Credentials
    template: str
    parameters: Mapping[str, str]
    devices: int
    profile: Profile = "burst"
    rate: float | None = None
    concurrency: int | None = None
    storms: int = 1
    spread: float = 0.0
    keys: bool = False
    terms: Terms = field(default_factory=Terms)
    seed: int = 0
    serial: str = "sim-{seed}-{n}"
    claim_client_id: str = "claim-{serial}"
    client_id: str = "{thing}"
    publish: str | None = "devices/{client_id}/simulated"

    def __post_init__(self) -> None:
        """Raises BadRequest."""
        if self.devices < 1 or self.at_once < 1 or self.storms < 1:
            raise BadRequest("--devices, --concurrency and --storms are at least 1")
        if self.profile == "burst" and self.rate is not None:
            raise BadRequest(
                "in a burst all begin together: it has no rate, so --rate is for others"
            )
        if self.rate is not None and not 0 < self.rate < 1e6:
            raise BadRequest(f"--rate: a rate is more than 0 devices per second, not {self.rate!r}")
        if self.profile == "steady" and self.rate is None:
            raise BadRequest("--profile steady needs a rate: --rate")
        if self.profile == "steady" and self.spread:
            raise BadRequest(
                "at a steady rate devices begin one after the other: --spread is for others"
            )
        if not 0 <= self.spread < 1e6:
            raise BadRequest(f"--spread: a spread is 0 seconds or more, not {self.spread!r}")
        _check_names("serial", self.serial, "n", "seed")
        _check_names("claim-client-id", self.claim_client_id, "n", "seed", "serial")
        _check_names("client-id", self.client_id, "n", "seed", "serial", "thing")
        _check_names("publish", self.publish or "", *NAMES)
        self._check_requests()
        if self.devices > 1 and "{n}" not in self.serial:
            raise BadRequest(
                f"--serial `{self.serial}`: the serial numbers are all the same without `{{n}}`"
            )

    def _check_requests(self) -> None:
        """Raises BadRequest when the last device, whose number is the longest, could not be."""
        n, seed = str(self.devices), str(self.seed)
        serial = fill(self.serial, {"n": n, "seed": seed})
        values = {"n": n, "seed": seed, "serial": serial}
        parameters = {name: fill(text, values) for name, text in self.parameters.items()}
        protocol.encode(self.terms.payload_format, protocol.register_request("", parameters))
        # what the server will call its thing is not known yet: mostly as its serial number
        values["thing"] = serial
        values["client_id"] = fill(self.client_id, values)
        topic = None if self.publish is None else fill(self.publish, values)
        for option, text in (
            ("serial", serial),
            ("claim-client-id", fill(self.claim_client_id, values)),
            ("client-id", values["client_id"]),
            ("publish", topic),
        ):
            if text is not None and not (text and text.isprintable()):
                raise BadRequest(f"--{option} is {text!r:.80}, no text that can be printed")
        if topic is not None:
            try:
                topics.check_topic(topic)
            except ProtocolError as error:
                raise BadRequest(f"--publish: the {error.message}") from error

    @property
    def connections(self) -> int:
        """How many connections there may be at a time."""
        return self.devices if self.profile == "storm" else min(self.at_once, self.devices)

    @property
    def at_once(self) -> int:
        """How many devices may be under way at a time."""
        return self.devices if self.concurrency is None else self.concurrency


@dataclass(slots=True)
class Device:
    """A device: what it has from the beginning, and the certificate that it was given.

    ``values`` are what texts may name; ``pem`` is the certificate and its key.
    """

    serial: str
    values: dict[str, str]
    parameters: dict[str, str]
    key: str | None = None
    csr: str | None = None
    pem: str | None = None


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with ``{name}`` replaced for the names in `values`; other braces stay."""
    return _NAME.sub(lambda found: values.get(found[1], found[0]), text)


def prepare(plan: Plan, made: Callable[[int], None]) -> list[Device]:
    """The devices with their keys (P-256) and signing requests; `made` is told how many there are.

    It takes about 0.1 ms a device.
    """
    found = []
    for number in range(1, plan.devices + 1):
        values = {"n": str(number), "seed": str(plan.seed)}
        serial = values["serial"] = fill(plan.serial, values)
        parameters = {name: fill(text, values) for name, text in plan.parameters.items()}
        device = Device(serial, values, parameters)
        if not plan.keys:
            key = keys.make("P-256")
            device.key, device.csr = keys.pem(key), keys.csr(key, keys.common_name(serial))
        found.append(device)
        made(number)
    return found


def _check_names(option: str, text: str, *known: str) -> None:
    for name in _NAME.findall(text):
        if name not in known:
            listed = ", ".join(f"{{{each}}}" for each in known)
            raise BadRequest(
                f"--{option} `{text}`: `{{{name}}}` is unknown here; {listed} are known"
            )

"""A claim in one file: what an installer hands to a device, which the device provisions itself by.

AWS's "provisioning by trusted user": the installer calls CreateProvisioningClaim, and the device
has five minutes to use the temporary certificate. The file is JSON; members that are not known
are ignored::

    {
      "version": 1,
      "template": "lamps",
      "endpoint": "iot.example.com",
      "port": 8883,
      "expiration": "2026-11-21T20:25:00Z",
      "certificatePem": "-----BEGIN CERTIFICATE-----\\n...",
      "privateKey": "-----BEGIN RSA PRIVATE KEY-----\\n...",
      "caPem": "-----BEGIN CERTIFICATE-----\\n..."
    }

``caPem`` are the authorities that the server is trusted by; null for those of the system, among
which Debian has Amazon's. The text of a claim's QR codes (:mod:`fleetgate.device.claim_code`), one
to a line in any order, will do as well. Whoever can read the file can register devices while it
lives, so it has to be private.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from fleetgate.device import disk, protocol
from fleetgate.device.endpoint import Credentials, Endpoint
from fleetgate.device.errors import BadRequest, StorageRefused

VERSION = 1

_MAX_SIZE = 64 * 1024
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion)


class ClaimExpired(StorageRefused):
    """The claim's certificate is not valid any more: the installer has to make another one."""


class ClaimDamaged(StorageRefused):
    """What should be a claim cannot be read, or its parts do not belong together."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A temporary certificate with its key, until when, and where to go with it.

    ``expiration`` is a moment with a time zone.
    """

    certificate_pem: str
    private_key_pem: str = field(repr=False)
    expiration: datetime
    endpoint: str
    port: int
    template: str
    ca_pem: str | None = None

    @contextmanager
    def files(self) -> Iterator[tuple[Credentials, Path | None]]:
        """Certificate and key, and the authorities if any, as files for whoever wants paths.

        They are in this process's memory alone and are gone with it, or when this is left.
        """
        with ExitStack() as kept:
            certificate = kept.enter_context(_in_memory(self.certificate_pem))
            key = kept.enter_context(_in_memory(self.private_key_pem))
            ca = None if self.ca_pem is None else kept.enter_context(_in_memory(self.ca_pem))
            yield Credentials(certificate, key), ca


@contextmanager
def _in_memory(content: str) -> Iterator[Path]:
    descriptor = os.memfd_create("claim")
    try:
        os.fchmod(descriptor, 0o600)
        disk.Disk().write(descriptor, content.encode("utf-8"))
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def load(path: Path | str, now: float | None = None) -> Claim:
    """The claim in the file `path`: JSON, or what the QR codes said.

    It may be a pipe, such as /dev/stdin. `now` is the time (seconds since the epoch), by default
    that of this device's clock. Raises StorageRefused when others may read it, or it cannot be
    read; ClaimDamaged; ClaimExpired.
    """
    path = Path(path)
    disk.check_secret(path, "the claim")
    with disk.told(f"cannot read the claim `{path}`"), path.open("rb") as stream:
        content = stream.read(_MAX_SIZE + 1)
    if len(content) > _MAX_SIZE:
        raise ClaimDamaged(f"`{path}` is no claim: it has more than {_MAX_SIZE} bytes")
    claim = parse(content, f"`{path}`")
    check_time(claim, time.time() if now is None else now, f"the claim `{path}`")
    return claim


def check_time(claim: Claim, now: float, what: str) -> None:
    """Raises ClaimExpired when `claim` is not valid any more at `now` (seconds)."""
    late = now - claim.expiration.timestamp()
    if late >= 0:
        raise ClaimExpired(
            f"{what} has expired at {shown(claim.expiration)}, {_ago(late)} before this device's "
            f"clock ({shown(datetime.fromtimestamp(now, UTC))}): claims live for five minutes; if "
            "the clock is right, ask for a new one with `fleetgate claim`"
        )


def dump(claim: Claim) -> str:
    """`claim` as the text of a file."""
    values = {
        "version": VERSION,
        "template": claim.template,
        "endpoint": claim.endpoint,
        "port": claim.port,
        "expiration": shown(claim.expiration),
        "certificatePem": claim.certificate_pem,
        "privateKey": claim.private_key_pem,
        "caPem": claim.ca_pem,
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def parse(content: bytes, what: str) -> Claim:
    """The claim in `content`, called `what` in messages. Raises ClaimDamaged.

    Whether it has expired is not looked at.
    """
    from fleetgate.device import claim_code

    try:
        text = content.decode("utf-8")
        if claim_code.is_code(text):
            return check(claim_code.decode(text), what)
        values = json.loads(text)
    except ClaimDamaged as error:
        raise ClaimDamaged(f"{what}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ClaimDamaged(
            f"{what} is no claim: neither JSON nor the text of QR codes ({error})"
        ) from error
    if not isinstance(values, dict):
        raise ClaimDamaged(f"{what} is no claim: its JSON is no object")
    if values.get("version") != VERSION:
        raise ClaimDamaged(
            f"{what}: `version` is {values.get('version')!r:.80}, and this program reads {VERSION}"
        )
    return check(_of(values, what), what)


def check(claim: Claim, what: str) -> Claim:
    """`claim`, when its parts can be used and belong together. Raises ClaimDamaged."""
    try:
        Endpoint(claim.endpoint, claim.port)
        protocol.register_thing(claim.template, "json")
    except BadRequest as error:
        raise ClaimDamaged(f"{what}: {error}") from error
    try:
        certificate = x509.load_pem_x509_certificate(claim.certificate_pem.encode())
        of_certificate = certificate.public_key()
    except _UNREADABLE as error:
        raise ClaimDamaged(f"{what}: the certificate cannot be read ({error})") from error
    try:
        of_key = serialization.load_pem_private_key(
            claim.private_key_pem.encode(), None
        ).public_key()
    except _UNREADABLE as error:
        raise ClaimDamaged(f"{what}: the private key cannot be read ({error})") from error
    if of_certificate != of_key:
        raise ClaimDamaged(f"{what}: the certificate is for another key")
    if claim.ca_pem is not None:
        try:
            # as TLS will; cryptography has doubts about old authorities that systems trust
            text = claim.ca_pem.encode("ascii", "replace").decode()  # remarks may be in any script
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
        except (OSError, ValueError) as error:
            raise ClaimDamaged(f"{what}: the authorities cannot be read ({error})") from error
    return claim


def shown(moment: datetime) -> str:
    """`moment` in UTC to the second: ``2026-11-21T20:25:00Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _of(values: dict[str, Any], what: str) -> Claim:
    texts = {}
    for name in ("certificatePem", "privateKey", "endpoint", "template", "expiration"):
        value = values.get(name)
        if not isinstance(value, str) or not value:
            raise ClaimDamaged(f"{what}: `{name}` is no text with characters in it")
        texts[name] = value
    ca, port = values.get("caPem"), values.get("port")
    if ca is not None and not isinstance(ca, str):
        raise ClaimDamaged(f"{what}: `caPem` is neither text nor null")
    if type(port) is not int:  # a bool is an int, too
        raise ClaimDamaged(f"{what}: `port` is {port!r:.80}, no number")
    try:
        expiration = datetime.fromisoformat(texts["expiration"])
    except ValueError as error:
        raise ClaimDamaged(f"{what}: `expiration` is no date and time ({error})") from error
    if expiration.tzinfo is None:
        raise ClaimDamaged(f"{what}: `expiration` does not say its time zone")
    return Claim(
        texts["certificatePem"],
        texts["privateKey"],
        expiration,
        texts["endpoint"],
        port,
        texts["template"],
        ca,
    )


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"

"""``fleetgate claim``: a temporary claim for one device, made by whoever installs it.

The call is signed by boto3. How an installer's credentials are found is the larger part of it:
variables, profiles, single sign-on, roles that are assumed, instance metadata, with their renewal.
All of that is AWS's own code there, and an imitation of the few lines of the signature would work
for some installers only. It is not among what a device needs, so it is an extra.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fleetgate.device import claim as claims
from fleetgate.device import claim_screen, credentials, disk, extras, options
from fleetgate.device.claim import Claim
from fleetgate.device.endpoint import Endpoint
from fleetgate.device.errors import StorageRefused
from fleetgate.device.terminal import say
from fleetgate.errors import Error

CERTIFICATE, KEY, CA, CLAIM = "claim.pem", "claim.key", "ca.pem", "claim.json"

_AWS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
_DISK = disk.Disk()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``fleetgate claim``."""
    parser.description = (
        "Get a temporary claim for a device, with your own credentials as an installer. It is good "
        "for one template and for five minutes. Whoever has it can register devices meanwhile."
    )
    parser.add_argument(
        "--template", required=True, metavar="NAME", help="the provisioning template"
    )
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument(
        "--out",
        type=options.directory_of,
        metavar="DIR",
        help=f"write {CLAIM} for `fleetgate provision --claim`, and {CERTIFICATE}, {KEY} and "
        f"{CA} for other programs; nothing is overwritten",
    )
    form.add_argument(
        "--qr", action="store_true", help="show the claim as QR codes on this terminal"
    )
    parser.add_argument(
        "--endpoint",
        metavar="HOST[:PORT]",
        help="where the device will connect by MQTT; default: FLEETGATE_MQTT_HOST and _PORT, or "
        "what DescribeEndpoint says",
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="F",
        help="a PEM file with the authorities that the device shall trust the server by; default: "
        "FLEETGATE_MQTT_CA, or those of the device's system",
    )
    parser.add_argument(
        "--endpoint-url",
        metavar="URL",
        help="the HTTP API; default: that of the environment (`fleetgate env` prints it), or AWS",
    )
    parser.add_argument(
        "--region", metavar="NAME", help="the region of the API; default: that of the environment"
    )
    parser.add_argument(
        "--profile",
        metavar="NAME",
        help="sign with the credentials of this profile in AWS's configuration files; default: as "
        "the AWS CLI finds them",
    )


def run(args: argparse.Namespace, *, environ: Mapping[str, str] = os.environ) -> int:
    """Carry it out; the exit code. Raises Error with one line for the user."""
    options.check_readable({"--ca": args.ca})
    with ExitStack() as cleanup:
        if args.qr:
            extras.load("segno", "qr")  # before a claim is made that nobody sees
            claim_screen.check(sys.stdin, sys.stdout, environ)
        else:
            place = cleanup.enter_context(_directory(args.out))
        iot = cleanup.enter_context(
            _iot(args.endpoint_url, args.region, args.profile, args.template)
        )
        where = _where(args.endpoint, args.ca, iot, environ)
        claim = iot.claim(args.template, where)
        try:
            claims.check(claim, "the claim that the server made")
        except StorageRefused as error:
            raise Error(error.message) from error
        if args.qr:
            claim_screen.show(claim, sys.stdin, sys.stdout)
        else:
            place.write(claim)
            for line in _written(claim, args.out):
                say(line)
    return 0


# --- the call ---


@dataclass(frozen=True, slots=True)
class Where:
    """Where the device will connect."""

    host: str
    port: int
    ca_pem: str | None


class Iot:
    """The HTTP API, as far as it is needed here; made by :func:`_iot`. All methods raise Error."""

    def __init__(self, client: Any, failures: tuple[type[Exception], ...]) -> None:
        self._client = client
        self._failures = failures

    def __enter__(self) -> Iot:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @property
    def of_aws(self) -> bool:
        """Whether this is AWS, which is trusted by public authorities."""
        host = urlsplit(str(self._client.meta.endpoint_url)).hostname or ""
        return host.endswith(_AWS)

    def device_endpoint(self) -> str:
        """The host name for devices."""
        answer = self._ask(
            "DescribeEndpoint",
            lambda: self._client.describe_endpoint(endpointType="iot:Data-ATS"),
            "; or say where devices connect with --endpoint",
        )
        return str(answer["endpointAddress"])

    def claim(self, template: str, where: Where) -> Claim:
        """A new claim."""
        answer = self._ask(
            f"CreateProvisioningClaim for the template `{template}`",
            lambda: self._client.create_provisioning_claim(templateName=template),
        )
        return Claim(
            answer["certificatePem"],
            answer["keyPair"]["PrivateKey"],
            answer["expiration"],
            where.host,
            where.port,
            template,
            where.ca_pem,
        )

    def _ask(self, what: str, call: Callable[[], Any], hint: str = "") -> Any:
        try:
            return call()
        except self._failures as error:
            response = getattr(error, "response", None)
            said = str(error)
            if response is not None:
                # a wrong signature is told of in many lines
                message = str(response["Error"].get("Message", "")).partition("\n")[0]
                said = f"{response['Error'].get('Code')}: {message}"
            raise Error(f"{what} at `{self._client.meta.endpoint_url}`: {said}{hint}") from None


def _iot(url: str | None, region: str | None, profile: str | None, template: str) -> Iot:
    options.check_template(template)
    boto3 = extras.load("boto3", "claim")
    exceptions = extras.load("botocore.exceptions", "claim")
    failures = (exceptions.BotoCoreError, exceptions.ClientError, ValueError)
    try:
        session = boto3.Session(profile_name=profile, region_name=region)
        if session.get_credentials() is None:
            raise Error(
                "there are no credentials to sign with: neither variables such as "
                "AWS_ACCESS_KEY_ID (`fleetgate env` prints them) nor a profile"
            )
        return Iot(session.client("iot", endpoint_url=url), failures)
    except failures as error:
        raise Error(f"the call cannot be made: {error}") from None


def _where(endpoint: str | None, ca: Path | None, iot: Iot, environ: Mapping[str, str]) -> Where:
    """From the options, else the variables of ``fleetgate env``, which are not for AWS."""
    ours = {} if iot.of_aws else environ
    if endpoint is not None:
        host, port = options.endpoint_of(endpoint)
    elif (found := options.server_of_variables(ours)) is not None:
        host, port, _ca = found
    else:
        host, port = iot.device_endpoint(), options.PORT
    Endpoint(host, port)  # which says what is wrong with them
    if ca is None and ours.get("FLEETGATE_MQTT_CA"):
        ca = Path(ours["FLEETGATE_MQTT_CA"])
    if ca is None:
        return Where(host, port, None)
    credentials.explain_authorities(ca)
    content = credentials.read(ca, "the authorities in")
    return Where(host, port, content.decode("utf-8", "replace"))


# --- files ---


@contextmanager
def _directory(path: Path) -> Iterator[_Place]:
    """The directory `path`, made (mode 0700) when it is missing. Raises StorageRefused.

    What was made goes again, if it is still empty, when the block fails; what another program made
    meanwhile stays.
    """
    made: list[Path] = []
    try:
        with _opened(path, made) as place:
            yield place
    except BaseException:
        with suppress(OSError):  # not empty
            for each in reversed(made):
                each.rmdir()
        raise


@contextmanager
def _opened(path: Path, made: list[Path]) -> Iterator[_Place]:
    with disk.told(f"cannot use the directory `{path}`"):
        for each in (*reversed(path.parents), path):
            if os.path.lexists(each):
                continue
            with suppress(FileExistsError):
                each.mkdir(0o700 if each == path else 0o777)
                made.append(each)
        if path.is_symlink():
            raise StorageRefused(f"`{path}` is a symbolic link: name the directory itself")
        descriptor = disk.open_directory(path)
    try:
        place = _Place(path, descriptor)
        place.check()
        yield place
    finally:
        os.close(descriptor)


class _Place:
    """The directory that a claim is written to, open; made by :func:`_directory`."""

    def __init__(self, path: Path, descriptor: int, calls: disk.Disk = _DISK) -> None:
        self._path = path
        self._at = descriptor
        self._disk = calls

    def check(self) -> None:
        """Raises StorageRefused unless a claim may be written here."""
        disk.check_directory(self._path, os.fstat(self._at))
        for name in (CERTIFICATE, KEY, CA, CLAIM):
            if os.path.lexists(self._path / name):
                raise StorageRefused(
                    f"`{self._path / name}` is there already, and is not overwritten: choose "
                    "another directory, or remove it"
                )

    def write(self, claim: Claim) -> None:
        """All files or none. Raises StorageRefused.

        They get their names at once: no other program's file can have them, since what is there is
        never opened, and what goes again after a failure is known by its number, not by its name.
        """
        files = {
            CERTIFICATE: claim.certificate_pem,
            KEY: claim.private_key_pem,
            CLAIM: claims.dump(claim),
        }
        if claim.ca_pem is not None:
            files[CA] = claim.ca_pem
        made: dict[str, int] = {}
        try:
            for name, content in files.items():
                with disk.told(f"cannot write `{self._path / name}`"):
                    made[name] = self._disk.create(self._at, name, 0o600)
                    self._disk.write(made[name], content.encode("utf-8"))
                    self._disk.flush(made[name])
            with disk.told(f"cannot flush `{self._path}`"):
                self._disk.flush_directory(self._at, ".")
        except BaseException:
            for name, descriptor in made.items():
                with suppress(OSError):
                    there = os.stat(name, dir_fd=self._at, follow_symlinks=False)
                    if os.path.samestat(there, os.fstat(descriptor)):
                        self._disk.remove(self._at, name)
            raise
        finally:
            for descriptor in made.values():  # open until now, or another file had its number
                os.close(descriptor)


def _written(claim: Claim, out: Path) -> Iterator[str]:
    yield f"template  {claim.template}"
    yield f"endpoint  {claim.endpoint}:{claim.port}"
    yield f"files     {out / CLAIM}, {CERTIFICATE}, {KEY}{f', {CA}' if claim.ca_pem else ''}"
    yield f"expires   {claim_screen.expiry(claim)}"
    yield f"next      fleetgate provision --claim {shlex.quote(str(out / CLAIM))} on the device"

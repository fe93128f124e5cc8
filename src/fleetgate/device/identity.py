"""A device's identity on disk: where its files are, and how an application reads them.

The directory of an identity (mode 0700) has::

    private.key      -> current/private.key         for mosquitto, openssl, awsiotsdk and the
    certificate.pem  -> current/certificate.pem     like, which want paths that stay the same
    ca.pem           -> current/ca.pem
    config.json      -> current/config.json
    current          -> identity-2                  the active identity
    identity-1/                                     the one before, kept until the next renewal
    identity-2/      private.key      0600          PKCS#8 or PKCS#1, PEM; absent if on a token
                     certificate.pem  0644          with its chain, PEM
                     ca.pem           0644          the authorities trusted for the server, PEM;
                                                    absent if those of the system are
                     config.json      0600          everything else
    journal.json                      0600          while a journey is not finished

``current`` is the one name that says which identity is active. It is made when the first identity
has proved itself, and replaced in one step when a new one has; before, there is none, and the
links beside it lead nowhere. An identity that ``current`` does not point at is not in use.

Each of the links is followed when a file is opened, so a program that opens certificate and key
in the very moment of a renewal may get those of two identities, and is refused by OpenSSL. An
application that uses :func:`load` does not: it gets the files of one identity by paths of their
own, which stay there until the renewal after the next one. It should load before each connect.

``config.json`` has ``thingName`` (null when the template makes no thing), ``certificateId``,
``clientId`` to connect with, ``endpoint``, ``port``, ``alpn`` (null for the usual one),
``mqttVersion`` (4 or 5), ``template``, ``deviceConfiguration`` (text to text), ``answerLost``
(true when the server's answer to the registration never arrived), ``key`` (its kind), ``token``
(null, or ``module``, ``label``, ``key`` and ``pinFile`` of a key on a PKCS#11 token) and ``goal``
(a digest of what was asked for).

Nothing is read that is not the user's own, that others may write to, or a key that others may
read; nor through a symbolic link other than ``current``; nor where others may write to a directory
above.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fleetgate.device import disk
from fleetgate.device.endpoint import AnyCredentials, Credentials, Endpoint, Proxy, TokenKey
from fleetgate.device.errors import NoIdentity, StorageRefused
from fleetgate.mqtt.packets import Version

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

PRIVATE_KEY = "private.key"
CERTIFICATE = "certificate.pem"
CA = "ca.pem"
CONFIGURATION = "config.json"
CURRENT = "current"
JOURNAL = "journal.json"

FILES = (PRIVATE_KEY, CERTIFICATE, CA, CONFIGURATION)
"""The files of an identity."""

_NUMBERED = re.compile(r"identity-([1-9][0-9]{0,8})", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyOnToken:
    """A private key that stays on a PKCS#11 token.

    `module` is the shared library of the token's maker, `token` and `key` are labels on it, and
    `pin_file` is a file that holds the user's PIN. Needs the extras ``fleetgate[pkcs11]``, to
    sign requests, and ``fleetgate[awscrt]``, to connect.
    """

    module: Path
    token: str
    key: str
    pin_file: Path

    def with_certificate(self, certificate: Path) -> TokenKey:
        """What connects with it."""
        return TokenKey(self.module, self.token, self.key, self.pin_file, certificate)


@dataclass(frozen=True, slots=True)
class Identity:
    """A complete identity, as its files say; made by :func:`load`.

    The paths are of this one identity and absolute if the directory was. ``key`` is None when the
    key is on a token, which ``token`` then tells; ``ca`` when the server is trusted by the
    system's authorities. ``thing_name`` is None when there is no thing, or it is not known.
    ``device_configuration`` is what the template had for the device.
    """

    directory: Path
    number: int
    certificate: Path
    key: Path | None
    token: KeyOnToken | None
    ca: Path | None
    host: str
    port: int
    alpn: str | None
    mqtt_version: Version
    thing_name: str | None
    client_id: str
    certificate_id: str
    template: str
    device_configuration: dict[str, str]
    answer_lost: bool
    key_kind: str
    goal: str

    @property
    def credentials(self) -> AnyCredentials:
        """What the adapters of :mod:`fleetgate.device` connect with."""
        if self.token is not None:
            return self.token.with_certificate(self.certificate)
        return Credentials(self.certificate, cast("Path", self.key))

    @property
    def thing_for_people(self) -> str:
        """The thing's name, or in words why there is none."""
        if self.thing_name is not None:
            return self.thing_name
        return "(not known)" if self.answer_lost else "(the template names none)"

    def endpoint(self, proxy: Proxy | None = None) -> Endpoint:
        """Where they connect to."""
        return Endpoint(self.host, self.port, self.ca, self.alpn, self.mqtt_version, proxy)

    def begins_at(self) -> datetime:
        """When the certificate begins. Raises StorageRefused when it cannot be read."""
        return self._read_certificate().not_valid_before_utc

    def ends_at(self) -> datetime:
        """When the certificate ends. Raises StorageRefused when it cannot be read."""
        return self._read_certificate().not_valid_after_utc

    def _read_certificate(self) -> Certificate:
        from cryptography import x509

        try:
            return x509.load_pem_x509_certificate(self.certificate.read_bytes())
        except (OSError, ValueError) as error:
            raise StorageRefused(f"`{self.certificate}` is no certificate: {error}") from error


def load(directory: Path | str) -> Identity:
    """The active identity in `directory`. Makes no network connection.

    Raises NoIdentity when there is none (yet), and StorageRefused when it may not be trusted, it
    is damaged, or the operating system refuses; the message names the file.
    """
    path = Path(directory)
    with disk.told(f"cannot use the directory `{path}`"):
        try:
            disk.check_above(path)
            if path.is_symlink():
                raise StorageRefused(f"`{path}` is a symbolic link: name the directory itself")
            descriptor = disk.open_directory(path)
        except FileNotFoundError as error:
            raise NoIdentity(f"`{path}` is not there: the device has no identity yet") from error
        try:
            disk.check_directory(path, os.fstat(descriptor))
            number = current(descriptor, path)
            if number is None:
                under_way = " (a provisioning is not finished)" * _exists(descriptor, JOURNAL)
                raise NoIdentity(f"`{path}` holds no identity yet{under_way}")
            return _load(descriptor, path, number)
        finally:
            os.close(descriptor)


def name_of(number: int) -> str:
    """The directory of the identity `number`."""
    return f"identity-{number}"


def number_of(name: str) -> int | None:
    """The number of the identity whose directory is `name`; None when it is none of ours."""
    match = _NUMBERED.fullmatch(name)
    return int(match[1]) if match else None


def current(at: int, path: Path) -> int | None:
    """The number of the active identity in the directory open as `at`; None when there is none.

    Raises StorageRefused when ``current`` is something else than our link, and OSError.
    """
    try:
        target = os.readlink(CURRENT, dir_fd=at)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageRefused(f"`{path / CURRENT}` is not a link to an identity") from error
    number = number_of(target)
    if number is None:
        raise StorageRefused(f"`{path / CURRENT}` leads to `{target}`, which is no identity here")
    return number


def _exists(at: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _load(at: int, path: Path, number: int) -> Identity:
    home = path / name_of(number)
    try:
        descriptor = disk.open_directory(name_of(number), at)
    except OSError as error:
        raise StorageRefused(
            f"`{path / CURRENT}` leads to `{home}`, which cannot be used: {error.strerror}"
        ) from error
    try:
        disk.check_directory(home, os.fstat(descriptor))
        return _read(descriptor, path, home, number)
    finally:
        os.close(descriptor)


def _read(at: int, path: Path, home: Path, number: int) -> Identity:
    try:
        content = disk.read(at, CONFIGURATION, home / CONFIGURATION, private=True)
    except FileNotFoundError as error:
        raise StorageRefused(f"`{home / CONFIGURATION}` is missing") from error
    members = Members(home / CONFIGURATION, content)
    token = _token(members)
    for name in (CERTIFICATE, *([] if token else [PRIVATE_KEY])):
        _check(at, name, home)
    ca = home / CA if _exists(at, CA) else None
    if ca is not None:
        _check(at, CA, home)
    return Identity(
        path,
        number,
        home / CERTIFICATE,
        None if token else home / PRIVATE_KEY,
        token,
        ca,
        members.text("endpoint"),
        members.number("port"),
        members.optional_text("alpn"),
        5 if members.number("mqttVersion") == 5 else 4,
        members.optional_text("thingName"),
        members.text("clientId"),
        members.text("certificateId"),
        members.text("template"),
        members.texts("deviceConfiguration"),
        members.values.get("answerLost") is True,
        members.text("key"),
        members.text("goal"),
    )


def _check(at: int, name: str, home: Path) -> None:
    try:
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError as error:
        raise StorageRefused(f"`{home / name}` is missing") from error
    disk.check_file(home / name, status, private=name == PRIVATE_KEY)


def _token(members: Members) -> KeyOnToken | None:
    if members.values.get("token") is None:
        return None
    token = members.texts("token")
    try:
        return KeyOnToken(
            Path(token["module"]), token["label"], token["key"], Path(token["pinFile"])
        )
    except KeyError as error:
        raise members.damaged("token") from error


class Members:
    """The members of a JSON file, by their types. Raises StorageRefused naming what is wrong."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise StorageRefused(f"`{path}` is damaged: it is not JSON") from error
        if not isinstance(values, dict):
            raise StorageRefused(f"`{path}` is damaged: it is not an object")
        self.values: Mapping[str, Any] = values

    def text(self, name: str) -> str:
        """A text with characters in it."""
        value = self.values.get(name)
        if not isinstance(value, str) or not value:
            raise self.damaged(name)
        return value

    def optional_text(self, name: str) -> str | None:
        """None when it is null or missing."""
        return None if self.values.get(name) is None else self.text(name)

    def number(self, name: str) -> int:
        """A number from 1 on."""
        value = self.values.get(name)
        if type(value) is not int or value < 1:
            raise self.damaged(name)
        return value

    def texts(self, name: str) -> dict[str, str]:
        """A map of text to text."""
        value = self.values.get(name)
        if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
            raise self.damaged(name)
        return value

    def damaged(self, name: str) -> StorageRefused:
        """The error for a member that is not what it should be."""
        return StorageRefused(f"`{name}` in `{self._path}` is damaged")

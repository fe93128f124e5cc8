"""What a server keeps in its data directory beside the registry.

    ca.key               the authority that signs device certificates: its key and certificate
    ca.pem               its certificate alone, for those who trust it; written again if missing
    server.pem, .key     the TLS certificate of the gateway, issued anew at every start
    token.key            32 bytes: seals ownership, page and session tokens, and secret access keys
    credentials          the root user's access key, in AWS's INI format
    endpoints.json       where a running server is; absent while none runs
    registry.db          the registry (SQLite)
    reports/             the reports of bulk registrations
    functions/           the code of uploaded functions, unpacked; emptied at every start

The directory is made with mode 0700, files with keys have 0600. Every file is written durably:
whole or not at all.
"""

from __future__ import annotations

import base64
import configparser
import http.client
import secrets
import stat
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from fleetgate.errors import Error
from fleetgate.files import write_durably
from fleetgate.pki import issue, pem
from fleetgate.pki.trust import Authority

ENDPOINTS = "endpoints.json"


class DataDirectoryError(Error):
    """The data directory cannot be used, or does not hold what is asked for."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a running server is reached; the content of ``endpoints.json``."""

    http_url: str
    mqtt_host: str
    mqtt_port: int
    ca_file: str
    region: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """The root user's access key."""

    access_key_id: str
    secret_access_key: str

    def __repr__(self) -> str:
        return f"Credentials({self.access_key_id}, ...)"


def open_directory(path: Path) -> Path:
    """Creates the directory (0700) when it is not there; returns it as an absolute path.

    Raises DataDirectoryError when it cannot be made, or when everybody may write to it: keys in
    it could be replaced.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = path.stat().st_mode
    except OSError as error:
        raise DataDirectoryError(
            f"the data directory `{path}` cannot be used: {error.strerror}"
        ) from None
    if mode & stat.S_IWOTH:
        raise DataDirectoryError(
            f"the data directory `{path}` is writable by everybody (mode {stat.S_IMODE(mode):o}); "
            "chmod it to 700, or choose another one"
        )
    return path.absolute()


def load_authority(
    path: Path, *, issuer: str, now: datetime, serial: Callable[[], int]
) -> Authority:
    """The authority of the directory; made on first use, its name being `issuer`.

    Key and certificate are in one file, so that there is never one without the other. A
    ``ca.key`` with the key alone, brought by an operator, goes with the ``ca.pem`` beside it.
    Raises DataDirectoryError when one half is missing or they cannot be read.
    """
    certificate_file, key_file = path / "ca.pem", path / "ca.key"
    if not key_file.exists() and not certificate_file.exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        authority = Authority.create(key, now=now, serial=serial(), issuer=issuer)
        both = authority.private_key_pem() + authority.certificate_pem()
        write_durably(key_file, both.encode(), 0o600)
    try:
        private = key_file.read_text()
        certificate = private if "BEGIN CERTIFICATE" in private else certificate_file.read_text()
        authority = Authority.load(certificate, private)
    except (OSError, ValueError, Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataDirectoryError(
            f"the authority in `{key_file}` and `{certificate_file}` cannot be used: {reason}"
        ) from None
    if not certificate_file.exists():
        write_durably(certificate_file, authority.certificate_pem().encode(), 0o644)
    return authority


def write_server_certificate(
    path: Path, authority: Authority, host_names: tuple[str, ...], *, now: datetime, serial: int
) -> tuple[Path, Path]:
    """Issues the gateway's TLS certificate for these names; returns certificate and key file."""
    key = ec.generate_private_key(ec.SECP256R1())
    der = issue.issue(
        issue.SERVER, authority, key.public_key(), now=now, serial=serial, host_names=host_names
    )
    certificate_file, key_file = path / "server.pem", path / "server.key"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_durably(key_file, private, 0o600)
    write_durably(certificate_file, pem.encode("CERTIFICATE", der).encode(), 0o644)
    return certificate_file, key_file


def load_token_key(path: Path, size: int) -> bytes:
    """The key that seals tokens; made on first use."""
    file = path / "token.key"
    if not file.exists():
        write_durably(file, secrets.token_bytes(size), 0o600)
    key = file.read_bytes()
    if len(key) != size:
        raise DataDirectoryError(f"`{file}` has {len(key)} bytes, expected are {size}")
    return key


def load_credentials(path: Path, given: Credentials | None) -> Credentials:
    """The root credentials: those `given`, else those of the directory, else new ones."""
    file = path / "credentials"
    credentials = given
    if credentials is None and file.exists():
        return read_credentials(path)
    if credentials is None:
        unique = base64.b32encode(secrets.token_bytes(10)).decode()
        credentials = Credentials(f"AKIA{unique}", secrets.token_urlsafe(30))
    text = (
        "[default]\n"
        f"aws_access_key_id = {credentials.access_key_id}\n"
        f"aws_secret_access_key = {credentials.secret_access_key}\n"
    )
    write_durably(file, text.encode(), 0o600)
    return credentials


def read_credentials(path: Path) -> Credentials:
    """The root credentials of a directory. Raises DataDirectoryError."""
    file = path / "credentials"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(file.read_text())
        section = parser["default"]
        return Credentials(section["aws_access_key_id"], section["aws_secret_access_key"])
    except OSError as error:
        raise DataDirectoryError(f"no credentials in `{file}`: {error.strerror}") from None
    except (KeyError, ValueError, configparser.Error):
        raise DataDirectoryError(
            f"`{file}` has no section [default] with aws_access_key_id and aws_secret_access_key"
        ) from None


def write_endpoints(path: Path, endpoints: Endpoints) -> None:
    """Says where the server is reached; its presence means: ready."""
    text = msgspec.json.format(msgspec.json.encode(asdict(endpoints)), indent=2)
    write_durably(path / ENDPOINTS, text + b"\n", 0o644)


def remove_endpoints(path: Path) -> None:
    """Says that no server runs here any more."""
    (path / ENDPOINTS).unlink(missing_ok=True)


def read_endpoints(path: Path) -> Endpoints:
    """Where the server of a directory is reached.

    Raises DataDirectoryError when none runs there: a server that was killed leaves the file
    behind, so it is asked.
    """
    file = path / ENDPOINTS
    absent = DataDirectoryError(
        f"no server is running on the data directory `{path}`; start one with `fleetgate serve`"
    )
    try:
        endpoints = msgspec.json.decode(file.read_bytes(), type=Endpoints)
    except FileNotFoundError:
        raise absent from None
    except (OSError, msgspec.MsgspecError) as error:
        raise DataDirectoryError(f"`{file}` cannot be read: {error}") from None
    if not _answers(endpoints.http_url):
        raise absent
    return endpoints


def _answers(http_url: str) -> bool:
    """Whether a server answers there; whatever proxy the environment names is not asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{http_url}/_fleetgate/health", timeout=5):
            return True
    except (OSError, http.client.HTTPException):
        return False

"""A certificate authority, certificates in files, and a mosquitto broker that asks for them."""

from __future__ import annotations

import os
import secrets
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleetgate.pki import issue, pem
from fleetgate.pki.trust import Authority


@dataclass(frozen=True)
class Files:
    """The files one side needs for mutual TLS."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Issuer:
    """Writes certificates of one authority into a directory."""

    authority: Authority
    directory: Path

    def write(
        self, name: str, profile: issue.Profile, *host_names: str, now: datetime | None = None
    ) -> Files:
        key = ec.generate_private_key(ec.SECP256R1())
        der = issue.issue(
            profile,
            self.authority,
            key.public_key(),
            issue.common_name(name),
            now=now or datetime.now(UTC),
            serial=secrets.randbits(158) + 1,
            host_names=host_names,
        )
        files = Files(
            self.directory / "ca.pem",
            self.directory / f"{name}.pem",
            self.directory / f"{name}.key",
        )
        files.ca.write_text(self.authority.certificate_pem())
        files.certificate.write_text(pem.encode("CERTIFICATE", der))
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        files.key.chmod(0o600)
        return files


def make_issuer(directory: Path) -> Issuer:
    key = rsa.generate_private_key(65537, 2048)
    return Issuer(Authority.create(key, now=datetime.now(UTC), serial=1), directory)


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return make_issuer(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="session")
def server_files(issuer: Issuer) -> Files:
    return issuer.write("server", issue.SERVER, "localhost")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A certificate of an authority that nobody else trusts."""
    return make_issuer(tmp_path_factory.mktemp("stranger")).write("stranger", issue.DEVICE)


@pytest.fixture(scope="session")
def claim(issuer: Issuer) -> Files:
    return issuer.write("claim", issue.DEVICE)


# --- a broker ---

# The claim may do what provisioning needs; the tests' own service may do everything.
ACL = """
user service
topic readwrite #
topic readwrite $aws/#

user claim
topic write $aws/certificates/create/+
topic write $aws/certificates/create-from-csr/+
topic write $aws/provisioning-templates/+/provision/+
topic read $aws/certificates/create/+/+
topic read $aws/certificates/create-from-csr/+/+
topic read $aws/provisioning-templates/+/provision/+/+
topic readwrite free/#
"""


@dataclass(frozen=True)
class Broker:
    host: str
    port: int


@pytest.fixture(scope="session")
def broker(server_files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Tests that use it are marked ``needs("mosquitto")``."""
    directory = tmp_path_factory.mktemp("broker")
    (directory / "acl").write_text(ACL)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (directory / "mosquitto.conf").write_text(
        f"""
        listener {port} 127.0.0.1
        cafile {server_files.ca}
        certfile {server_files.certificate}
        keyfile {server_files.key}
        require_certificate true
        use_identity_as_username true
        acl_file {directory / "acl"}
        persistence false
        log_dest stderr
        {"user root" if os.geteuid() == 0 else ""}
        """
    )
    with subprocess.Popen(
        ["mosquitto", "-c", directory / "mosquitto.conf"], stderr=subprocess.PIPE
    ) as process:
        try:
            _wait_for(port, process)
            yield Broker("localhost", port)
        finally:
            process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("mosquitto does not listen")


# --- a server that does what a test tells it to ---

Script: TypeAlias = Callable[[ssl.SSLSocket], None]
Scripted: TypeAlias = Callable[[Script], AbstractContextManager[int]]


@pytest.fixture
def scripted(server_files: Files) -> Scripted:
    """``with scripted(script) as port``: TLS connections are handed to `script`, one by one."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=server_files.ca)
    context.load_cert_chain(server_files.certificate, server_files.key)
    context.verify_mode = ssl.CERT_REQUIRED

    @contextmanager
    def serve(script: Script) -> Iterator[int]:
        listener = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return  # closed: the test is over
                plain.settimeout(5)
                try:
                    with context.wrap_socket(plain, server_side=True) as stream:
                        script(stream)
                except OSError:
                    plain.close()  # the client under test hung up, as it may

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            listener.close()

    return serve

"""The data directory: made once, kept, readable by its owner alone, clear about what is wrong."""

import http.server
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleetgate import data_directory
from fleetgate.data_directory import Credentials, DataDirectoryError, Endpoints
from fleetgate.files import write_durably
from fleetgate.pki.trust import Authority

NOW = datetime(2026, 11, 20, tzinfo=UTC)


class Healthy(http.server.BaseHTTPRequestHandler):
    """Answers as a running server does when it is asked for its health."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


def authority(path: Path) -> Authority:
    return data_directory.load_authority(path, issuer="test", now=NOW, serial=lambda: 7)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_secret_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = data_directory.open_directory(tmp_path / "new" / "data")
    made = authority(path)
    data_directory.load_token_key(path, 32)
    data_directory.load_credentials(path, None)
    _, key_file = data_directory.write_server_certificate(
        path, made, ("localhost", "127.0.0.1"), now=NOW, serial=8
    )
    assert mode(path) == 0o700
    for file in (path / "ca.key", path / "token.key", path / "credentials", key_file):
        assert mode(file) == 0o600, file
    assert mode(path / "ca.pem") == 0o644


def test_everything_is_made_once_and_kept(tmp_path: Path) -> None:
    first = authority(tmp_path), data_directory.load_token_key(tmp_path, 32)
    credentials = data_directory.load_credentials(tmp_path, None)
    again = authority(tmp_path), data_directory.load_token_key(tmp_path, 32)
    assert again[0].certificate == first[0].certificate
    assert again[1] == first[1]
    assert data_directory.load_credentials(tmp_path, None) == credentials
    assert credentials.access_key_id.startswith("AKIA")
    assert len(credentials.access_key_id) == 20


def test_given_credentials_replace_those_of_the_directory(tmp_path: Path) -> None:
    data_directory.load_credentials(tmp_path, None)
    given = Credentials("AKIAGIVENGIVENGIVEN1", "secret%with%percents")
    assert data_directory.load_credentials(tmp_path, given) == given
    assert data_directory.read_credentials(tmp_path) == given


def test_a_lost_certificate_file_is_written_again(tmp_path: Path) -> None:
    made = authority(tmp_path)
    (tmp_path / "ca.pem").unlink()
    assert authority(tmp_path).certificate == made.certificate
    assert (tmp_path / "ca.pem").read_text() == made.certificate_pem()


def test_an_authority_of_the_operators_own_is_used(tmp_path: Path) -> None:
    made = authority(tmp_path)
    (tmp_path / "ca.key").write_text(made.private_key_pem())
    assert authority(tmp_path).certificate == made.certificate


@pytest.mark.parametrize("content", [None, "garbage", ""])
def test_an_authority_without_its_key_is_refused_and_left_alone(
    tmp_path: Path, content: str | None
) -> None:
    authority(tmp_path)
    before = (tmp_path / "ca.pem").read_text()
    (tmp_path / "ca.key").unlink()
    if content is not None:
        (tmp_path / "ca.key").write_text(content)
    with pytest.raises(DataDirectoryError, match="cannot be used"):
        authority(tmp_path)
    assert (tmp_path / "ca.pem").read_text() == before


def test_broken_credentials_are_named_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("garbage\n[default]\n")
    with pytest.raises(DataDirectoryError, match="has no section") as caught:
        data_directory.load_credentials(tmp_path, None)
    assert "\n" not in caught.value.message


def test_endpoints_count_while_a_server_answers(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError, match="no server is running"):
        data_directory.read_endpoints(tmp_path)
    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        endpoints = Endpoints(url, "localhost", 2, "ca.pem", "eu-west-1")
        data_directory.write_endpoints(tmp_path, endpoints)
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert data_directory.read_endpoints(tmp_path) == endpoints
        thread.join()
    # killed: the file is still there, but nobody answers
    with pytest.raises(DataDirectoryError, match="no server is running"):
        data_directory.read_endpoints(tmp_path)
    data_directory.remove_endpoints(tmp_path)
    assert not (tmp_path / "endpoints.json").exists()


def test_a_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match="cannot be used"):
        data_directory.open_directory(tmp_path / "file" / "data")


def test_a_directory_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(0o777)
    with pytest.raises(DataDirectoryError, match="writable by everybody"):
        data_directory.open_directory(path)


def test_a_durable_write_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(victim)
    write_durably(link, b"new", 0o600)
    assert victim.read_text() == "mine"
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"
    assert mode(link) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "victim"]

"""The data directory: made once, kept, readable by its owner alone, clear about what is wrong."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleetgate import data_directory
from fleetgate.data_directory import Credentials, DataDirectoryError, Endpoints
from fleetgate.files import write_durably
from fleetgate.pki.trust import Authority

NOW = datetime(2026, 11, 20, tzinfo=UTC)


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


def test_a_start_cut_off_before_the_certificate_was_written_is_made_good(tmp_path: Path) -> None:
    authority(tmp_path)
    (tmp_path / "ca.pem").unlink()
    assert authority(tmp_path).certificate_pem() == (tmp_path / "ca.pem").read_text()


def test_an_authority_without_its_key_is_refused(tmp_path: Path) -> None:
    authority(tmp_path)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(DataDirectoryError, match="cannot be used"):
        authority(tmp_path)


def test_endpoints_are_there_while_a_server_runs(tmp_path: Path) -> None:
    with pytest.raises(DataDirectoryError, match="no server is running"):
        data_directory.read_endpoints(tmp_path)
    endpoints = Endpoints("http://127.0.0.1:1", "localhost", 2, "ca.pem", "eu-west-1")
    data_directory.write_endpoints(tmp_path, endpoints)
    assert data_directory.read_endpoints(tmp_path) == endpoints
    data_directory.remove_endpoints(tmp_path)
    with pytest.raises(DataDirectoryError, match="no server is running"):
        data_directory.read_endpoints(tmp_path)


def test_a_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match="cannot be used"):
        data_directory.open_directory(tmp_path / "file" / "data")


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

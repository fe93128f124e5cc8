"""What options for devices mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleetgate.device.errors import BadRequest
from fleetgate.device.options import (
    authorities_for,
    check_readable,
    endpoint_of,
    parameters_of,
)
from fleetgate.errors import Error


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", 8883),
        ("localhost:1", "localhost", 1),
        ("iot.example.com:65535", "iot.example.com", 65535),
        ("192.0.2.1:443", "192.0.2.1", 443),
        ("::1", "::1", 8883),
        ("[::1]", "::1", 8883),
        ("[fe80::1%eth0]:443", "fe80::1%eth0", 443),
    ],
)
def test_an_endpoint_is_a_host_and_maybe_a_port(text: str, host: str, port: int) -> None:
    assert endpoint_of(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":8883", "localhost:", "localhost:mqtt", "localhost:-1", "localhost:²"),
        *("https://localhost:8883", "mqtts://localhost", "localhost:8883/", "a b:1", "user@a:1"),
        *("a:b:1", "x::1", "[localhost]:1", "[::1:8883", "::1]:1", "[]:1"),
    ],
)
def test_an_endpoint_that_is_none_is_refused_with_the_rule(text: str) -> None:
    with pytest.raises(Error) as caught:
        endpoint_of(text)
    assert caught.value.message == (
        f"--endpoint `{text}`: HOST or HOST:PORT is expected, without a scheme such as `https://`"
    )


@pytest.mark.parametrize("port", ["0", "65536", "88831", "9" * 5000])
def test_a_port_out_of_range_is_refused_with_the_range(port: str) -> None:
    with pytest.raises(Error) as caught:
        endpoint_of(f"localhost:{port}")
    assert "the port has to be from 1 to 65535" in caught.value.message
    assert len(caught.value.message) < 200


def test_parameters_are_text_to_text() -> None:
    assert parameters_of('{"SerialNumber": "0042"}') == {"SerialNumber": "0042"}
    for text in ("[]", "7", '{"a": 1}', '{"a": {}}'):
        with pytest.raises(Error, match="has to be a JSON object of text to text"):
            parameters_of(text)
    for text in ("", "{", "a=1", "[" * 100_000):
        with pytest.raises(Error, match="--parameters is not JSON"):
            parameters_of(text)


def test_parameters_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "parameters.json"
    file.write_text('{"SerialNumber": "0042"}')
    assert parameters_of(f"@{file}") == {"SerialNumber": "0042"}
    file.write_bytes(b"\xff")
    with pytest.raises(Error, match="is not text in UTF-8"):
        parameters_of(f"@{file}")
    with pytest.raises(Error, match="cannot read `/nowhere/p`: No such file"):
        parameters_of("@/nowhere/p")


def test_authorities_are_for_their_server_alone() -> None:
    theirs = ("IOT.example", 8883, Path("ca"))
    assert authorities_for("iot.Example", 8883, theirs) == Path("ca")
    assert authorities_for("iot.example", 443, theirs) is None
    assert authorities_for("other.example", 8883, theirs) is None
    assert authorities_for("iot.example", 8883, None) is None


def test_a_file_that_an_option_names_can_be_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # nobody waits for a writer
    check_readable({"--ca": Path(__file__), "--cert": None, "--key": pipe, "--claim": "/dev/null"})
    for file, why in (
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "Is a directory"),
        ("a\0b", "embedded null byte"),
    ):
        with pytest.raises(BadRequest) as caught:
            check_readable({"--ca": file})
        assert caught.value.message == f"--ca: cannot read `{file}`: {why}"

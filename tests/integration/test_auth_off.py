"""`--auth off`: everybody is the root user, on loopback addresses, and no web page is anybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from tests.integration.server import ACCOUNT, Server, http, run


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("open") / "data", "--auth", "off") as server:
        yield server


@pytest.fixture(params=["unsigned", "bogus", "elsewhere"])
def client(open_server: Server, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes clients that do not sign, or sign with keys and for regions nobody knows."""
    made = []

    def make(service: str) -> Any:
        config = Config(retries={"total_max_attempts": 1})
        if request.param == "unsigned":
            config = config.merge(Config(signature_version=UNSIGNED))
        made.append(
            boto3.client(
                service,
                endpoint_url=open_server.http_url,
                region_name="eu-north-1" if request.param == "elsewhere" else "us-east-1",
                aws_access_key_id="test",
                aws_secret_access_key="test",
                aws_session_token="nothing" if request.param == "elsewhere" else None,
                config=config,
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_everybody_is_the_root_user(client: Any, name: str) -> None:
    iot, iam, sts = client("iot"), client("iam"), client("sts")
    iot.create_thing(thingName=name)
    assert iot.describe_thing(thingName=name)["thingName"] == name
    assert iot.list_things(maxResults=5)["things"]
    iam.create_user(UserName=name)
    assert iam.get_user(UserName=name)["User"]["UserName"] == name
    assert sts.get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    with pytest.raises(sts.exceptions.ClientError, match=r"\(AccessDenied\)"):
        sts.assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/absent", RoleSessionName="ab")
    with pytest.raises(iot.exceptions.ResourceNotFoundException):
        iot.describe_thing(thingName="absent")
    functions = client("lambda")
    assert functions.list_functions()["Functions"] == []
    with pytest.raises(functions.exceptions.ResourceNotFoundException, match="Function not found"):
        functions.get_function(FunctionName="absent")


def test_the_command_line_without_credentials(open_server: Server, tmp_path: Path) -> None:
    done = run(
        "aws",
        *("--no-sign-request", "--region", "us-east-1", "--endpoint-url", open_server.http_url),
        *("iot", "list-things"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "evil.example:4566"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/things", None),
        ("POST", "/things/page", b"{}"),
        ("POST", "/", b"Action=ListUsers&Version=2010-05-08"),
    ],
)
def test_web_pages_get_nothing(
    open_server: Server, headers: dict[str, str], method: str, path: str, body: bytes | None
) -> None:
    """A page on any site can make a browser send these."""
    sent = dict(headers)
    if path == "/":
        sent["Content-Type"] = "application/x-www-form-urlencoded"
    answer = http(f"{open_server.http_url}{path}", method=method, headers=sent, body=body)
    assert answer.status == 403
    assert b"AccessDenied" in answer.body + answer.headers.get("x-amzn-errortype", "").encode()
    assert http(f"{open_server.http_url}/things/page").status == 404


def test_no_link_calls_an_operation(open_server: Server, name: str) -> None:
    """Older browsers do not say that a GET comes from a page."""
    form = f"Action=CreateUser&Version=2010-05-08&UserName={name}"
    presigned = "&X-Amz-Credential=a/20260101/us-east-1/iam/aws4_request"
    for query in (form, form + presigned, form + presigned.replace("/", "%2F")):
        answer = http(f"{open_server.http_url}/?{query}")
        assert answer.status == 404
        assert b"GET /" in answer.body
    sent = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = http(f"{open_server.http_url}/", method="POST", headers=sent, body=form.encode())
    assert answer.status == 200


def test_a_body_is_bounded_all_the_same(open_server: Server) -> None:
    answer = http(f"{open_server.http_url}/things/x", method="POST", body=b" " * 1_100_000)
    assert answer.status == 413


def test_it_is_said_loudly(open_server: Server) -> None:
    said = open_server.output()
    assert "AUTH  OFF" in said
    assert "WARNING: --auth off" in said
    assert "event=authentication-off" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--http", "0.0.0.0:0"), "loopback"),
        (("--http", "[::]:0"), "loopback"),
        (("--mqtt", "0.0.0.0:0"), "loopback"),
    ],
)
def test_it_stays_on_this_machine(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    done = run(
        "fleetgate",
        "serve",
        *("--data", str(tmp_path / "data"), "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"),
        *("--auth", "off", *options),
        cwd=tmp_path,
        seconds=30,
    )
    assert done.returncode == 1
    assert "--auth off" in done.stderr
    assert words in done.stderr
    assert not (tmp_path / "data" / "endpoints.json").exists()


def test_no_proxy_may_stand_before_it(tmp_path: Path) -> None:
    done = run(
        "fleetgate",
        "serve",
        *("--data", str(tmp_path / "data"), "--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"),
        cwd=tmp_path,
        env={"FLEETGATE_AUTH": "off", "FLEETGATE_TRUSTED_PROXIES": "127.0.0.1"},
    )
    assert done.returncode == 1
    assert "trusted_proxies has to be empty" in done.stderr


def test_an_address_of_this_machine_will_do(tmp_path: Path) -> None:
    with Server(tmp_path / "data", "--auth", "off", "--http", "localhost:0") as server:
        assert http(f"{server.http_url}/things").status == 200


def test_a_mode_nobody_knows_is_refused(tmp_path: Path) -> None:
    done = run("fleetgate", "serve", "--auth", "none", cwd=tmp_path)
    assert done.returncode == 1
    assert "sigv4 or off is expected" in done.stderr


def test_without_the_option_nothing_is_open(server: Server) -> None:
    assert http(f"{server.http_url}/things").status == 403

"""Settings: option before variable before file before default, and nothing silently ignored."""

import re
from pathlib import Path
from typing import Any

import pytest

from fleetgate.domain.limits import Limits
from fleetgate.functions.configured import BuiltIn, LambdaEndpoint, PythonFunction, Webhook
from fleetgate.settings import SettingError, Settings, read_settings, unknown_variables


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    assert read_settings({"data": None, "host_names": []}, {}, tmp_path) == Settings()


def test_option_wins_over_variable_over_file(tmp_path: Path) -> None:
    (tmp_path / "fleetgate.toml").write_text(
        'region = "eu-west-1"\naccount = "111111111111"\nhttp = "10.0.0.1:1"\n'
        'host_names = ["a.example", "10.0.0.2"]\nallow_reset = true\n'
    )
    environment = {"FLEETGATE_REGION": "eu-west-2", "FLEETGATE_ACCOUNT": "222222222222"}
    settings = read_settings({"region": "eu-west-3"}, environment, tmp_path)
    assert settings.region == "eu-west-3"
    assert settings.account == "222222222222"
    assert settings.http == ("10.0.0.1", 1)
    assert settings.host_names == ("a.example", "10.0.0.2")
    assert settings.allow_reset


def test_the_file_may_be_named(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("ownership_token_seconds = 60\n")
    settings = read_settings({}, {"FLEETGATE_CONFIG": str(file)}, tmp_path)
    assert settings.ownership_token_seconds == 60


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:8883", ("::1", 8883)),
        ("gate.example:443", ("gate.example", 443)),
    ],
)
def test_addresses_are_host_and_port(text: str, value: tuple[str, int], tmp_path: Path) -> None:
    assert read_settings({"mqtt": text}, {}, tmp_path).mqtt == value


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"FLEETGATE_HTTP": "4566"}, "FLEETGATE_HTTP: http `4566`: HOST:PORT"),
        ({"FLEETGATE_HTTP": "a:65536"}, "0 to 65535"),
        ({"FLEETGATE_HTTP": "a:٣"}, "0 to 65535"),
        ({"FLEETGATE_ACCOUNT": "12"}, "12 digits"),
        ({"FLEETGATE_REGION": "no blanks"}, "us-east-1"),
        ({"FLEETGATE_ALLOW_RESET": "maybe"}, "true or false"),
        ({"FLEETGATE_HOST_NAMES": "a,,b"}, "neither a DNS name nor an IP address"),
        ({"FLEETGATE_HOST_NAMES": "*.example"}, "`*.example` is neither"),
        ({"FLEETGATE_DATA": ""}, "a directory is expected"),
        ({"FLEETGATE_LOG_LEVEL": "loud"}, "one of debug, info, warning, error"),
        ({"FLEETGATE_OWNERSHIP_TOKEN_SECONDS": "nan"}, "seconds from 1"),
        ({"FLEETGATE_OWNERSHIP_TOKEN_SECONDS": "soon"}, "a number of seconds"),
        ({"FLEETGATE_ACCESS_KEY_ID": "A" * 20}, "have to be set together"),
        ({"FLEETGATE_TRUSTED_PROXIES": "10.0.0.1/8"}, "has host bits set"),
        ({"FLEETGATE_TRUSTED_PROXIES": "proxy"}, "does not appear to be an IPv4 or IPv6 network"),
        ({"FLEETGATE_LIMITS": "policy_versions=0"}, "`policy_versions`: a number from 1"),
        ({"FLEETGATE_LIMITS": "policy_versions=99999999"}, "from 1 to 1000000"),
        ({"FLEETGATE_LIMITS": "policy_versions=many"}, "not `many`"),
        (
            {"FLEETGATE_LIMITS": "policy_versions"},
            "limits: NAME=N is expected, not `policy_versions`",
        ),
        ({"FLEETGATE_LIMITS": "wishes=3"}, "`wishes` is no limit; known are"),
        ({"FLEETGATE_BUCKETS": "factory"}, "NAME=DIR is expected, not `factory`"),
        ({"FLEETGATE_BUCKETS": "a b=/x"}, "`a b` is no name of a bucket"),
        ({"FLEETGATE_BUCKETS": "factory="}, "a directory is expected"),
        ({"FLEETGATE_FUNCTIONS": "allow"}, "functions: NAME=TARGET is expected, not `allow`"),
        ({"FLEETGATE_FUNCTIONS": "a.b=builtin:vault"}, "`a.b` is no name of a function: 1 to 64"),
        (
            {"FLEETGATE_FUNCTIONS": "arn:aws:lambda:us-east-1:0:function:f=builtin:vault"},
            "letters, digits, `-_` (of an ARN the part behind `function:`)",
        ),
        ({"FLEETGATE_S3_ENDPOINT_URL": "s3.example"}, "http://HOST:PORT or https://HOST"),
        ({"FLEETGATE_S3_ENDPOINT_URL": "http://u:p@s3.example"}, "without credentials"),
        ({"FLEETGATE_DATABASE": "fleet.db"}, "database: postgresql://USER:PASSWORD@HOST"),
        ({"FLEETGATE_DATABASE_CONNECTIONS": "1"}, "a whole number from 2 to 100"),
        ({"FLEETGATE_DATABASE_CONNECTIONS": "8.5"}, "a whole number from 2 to 100"),
        ({"FLEETGATE_DATABASE_TIMEOUT_SECONDS": "0"}, "a number of seconds from 1"),
        ({"FLEETGATE_CONFIG": "/nowhere/fleetgate.toml"}, "cannot be read"),
    ],
)
def test_a_value_that_cannot_be_is_named(
    variables: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError) as caught:
        read_settings({}, variables, tmp_path)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("acount = 1", "unknown setting `acount`"),
        ("= 1", "cannot be read"),
        ("host_names = 5", "a list of host names"),
        ("host_names = [5]", "neither a DNS name"),
        ('data = ["x"]', "a directory is expected"),
        ("limits = 3", "a table of names and numbers"),
        ("buckets = 3", "a table of names and directories"),
        ("[buckets]\nfactory = 3", "a directory is expected"),
        ("[limits]\ntemplates = true", "not `True`"),
        ("[limits]\ntemplates = 2.5", "not `2.5`"),
    ],
)
def test_a_misspelt_file_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "fleetgate.toml").write_text(text)
    with pytest.raises(SettingError, match=words):
        read_settings({}, {}, tmp_path)


@pytest.mark.parametrize("value", ["mysql://u:secret@h/d", "secret", 5])
def test_a_database_url_is_never_shown(value: object, tmp_path: Path) -> None:
    with pytest.raises(SettingError) as caught:
        read_settings({"database": value}, {}, tmp_path)
    assert "secret" not in caught.value.message
    settings = read_settings({"database": "postgresql://u:secret@h/d"}, {}, tmp_path)
    assert settings.database == "postgresql://u:secret@h/d"
    assert "secret" not in repr(settings)


def test_variables_nobody_knows_are_told(tmp_path: Path) -> None:
    environment = {"FLEETGATE_ACOUNT": "1", "FLEETGATE_DATA": "x", "FLEETGATE_MQTT_CA": "y"}
    assert unknown_variables(environment) == ["FLEETGATE_ACOUNT"]
    assert read_settings({}, environment, tmp_path).account == "000000000000"


def test_the_secret_is_not_shown(tmp_path: Path) -> None:
    given: dict[str, Any] = {"access_key_id": "A" * 20, "secret_access_key": "hush"}
    assert "hush" not in repr(read_settings(given, {}, tmp_path))


def test_limits_are_told_one_by_one(tmp_path: Path) -> None:
    """A limit set in one place does not bring back the defaults of the others."""
    (tmp_path / "fleetgate.toml").write_text(
        "[limits]\npolicy_versions = 7\ntemplates = 300\nrole_aliases = 5\n"
    )
    environment = {"FLEETGATE_LIMITS": "templates=400, role_aliases=6"}
    read = read_settings({"limits": ["role_aliases=8"]}, environment, tmp_path).limits
    assert read == Limits(policy_versions=7, templates=400, role_aliases=8)


def test_buckets_are_told_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "fleetgate.toml").write_text(
        's3_endpoint_url = "http://s3.example:9000"\n'
        '[buckets]\none = "/file/1"\ntwo = "/file/2"\nthree = "/file/3"\n'
    )
    environment = {"FLEETGATE_BUCKETS": "two=/variable/2, three=/variable/3"}
    read = read_settings({"buckets": ["three=/option/3"]}, environment, tmp_path)
    assert read.buckets == {
        "one": Path("/file/1"),
        "two": Path("/variable/2"),
        "three": Path("/option/3"),
    }
    assert read.s3_endpoint_url == "http://s3.example:9000"
    assert read_settings({}, {"FLEETGATE_BUCKETS": ""}, tmp_path / "absent").buckets == {}


# --- functions -----------------------------------------------------------------------------------


def test_functions_are_told_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "fleetgate.toml").write_text(
        '[functions]\none = "python:file.hooks:f"\ntwo = "python:file.hooks:f"\n'
        'three = "python:file.hooks:f"\n'
    )
    environment = {"FLEETGATE_FUNCTIONS": "two=python:variable.hooks:f, three=python:b:f"}
    options = {"functions": ["three=builtin:key-reuse-audit"]}
    read = read_settings(options, environment, tmp_path).functions
    here = (tmp_path,)
    assert read == {
        "one": PythonFunction("file.hooks", "f", search_path=here),
        "two": PythonFunction("variable.hooks", "f", search_path=here),
        "three": BuiltIn("key-reuse-audit", {}, tmp_path),
    }


def test_functions_are_tables_with_paths_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "etc/other.toml"
    file.parent.mkdir()
    file.write_text(
        """
        [functions.mine]
        python = "python:company.hooks:allow_all"
        path = ["hooks", "/opt/hooks"]
        environment = { A_B = "b" }
        timeout = 3
        memory = 256
        concurrency = 4
        [functions.erp]
        webhook = "https://erp.example/hook?key=hush"
        secret_file = "erp.key"
        allow_networks = ["10.0.0.0/8", "fd00::1"]
        ca_file = "/etc/ca.pem"
        client_cert = "own.pem"
        client_key = "own.key"
        timeout = 0.5
        [functions]
        plain = { webhook = "https://erp.example/hook", secret_file = "erp.key" }
        cloud = { lambda = "https://lambda.eu-west-1.amazonaws.com", function = "decide:live" }
        local = { lambda = "http://127.0.0.1:3001/x", function = "decide", concurrency = 2 }
        asia = { lambda = "http://h", function = "decide", region = "ap-east-1" }
        serials = { builtin = "allow-list", file = "serials.csv", uses = 1 }
        """
    )
    read = read_settings({}, {"FLEETGATE_CONFIG": str(file)}, tmp_path).functions
    etc = file.parent
    assert read == {
        "mine": PythonFunction(
            "company.hooks",
            "allow_all",
            environment={"A_B": "b"},
            timeout_seconds=3.0,
            memory_megabytes=256,
            concurrency=4,
            search_path=(etc / "hooks", Path("/opt/hooks")),
        ),
        "erp": Webhook(
            "https://erp.example/hook?key=hush",
            etc / "erp.key",
            allow_networks=("10.0.0.0/8", "fd00::1/128"),
            ca_file=Path("/etc/ca.pem"),
            timeout_seconds=0.5,
            client_certificate=etc / "own.pem",
            client_key=etc / "own.key",
        ),
        "plain": Webhook("https://erp.example/hook", etc / "erp.key"),
        "cloud": LambdaEndpoint(
            "https://lambda.eu-west-1.amazonaws.com", "decide:live", "eu-west-1"
        ),
        "local": LambdaEndpoint("http://127.0.0.1:3001/x", "decide", "us-east-1", concurrency=2),
        "asia": LambdaEndpoint("http://h", "decide", "ap-east-1"),
        "serials": BuiltIn("allow-list", {"file": "serials.csv", "uses": 1}, etc),
    }


WEBHOOK = 'webhook = "https://erp.example/"'


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("f = 3", "`f`: a text or a table is expected, not `3`"),
        ('f = "https://erp.example/?hush"', "`f`: a webhook needs a secret to sign with"),
        ('f = "hush"', "`f`: python:PACKAGE.MODULE:FUNCTION, builtin:KIND or"),
        ('f = "python:hooks"', "`f`: `python`: PACKAGE.MODULE:FUNCTION is expected, not `hooks`"),
        ('f = "python:a-b:c"', "not `a-b:c`"),
        ('f = "builtin:deny-list"', "`f`: `builtin`: one of allow-list, "),
        ('"f g" = "builtin:vault"', "`f g` is no name of a function"),
        (f'{"f" * 65} = "builtin:vault"', "is no name of a function: 1 to 64"),
        ("f = {}", "`f`: one of `python`, `webhook`, `lambda`, `builtin` is expected among"),
        (f'f = {{ {WEBHOOK}, builtin = "vault" }}', "there is `webhook` and `builtin`"),
        ("f = { builtin = 3 }", "not `3`"),
        (f"f = {{ {WEBHOOK} }}", "`f`: `secret_file` is required"),
        (f"f = {{ {WEBHOOK}, secret_file = 3 }}", "`secret_file` has to be a text, not 3"),
        (f'f = {{ {WEBHOOK}, secret_file = "x", secret = "y" }}', "`secret` is not an option"),
        (
            f'f = {{ {WEBHOOK}, secret_file = "x", allow_networks = ["10.0.0.1/8"] }}',
            "`allow_networks`: 10.0.0.1/8 has host bits set",
        ),
        (
            f'f = {{ {WEBHOOK}, secret_file = "x", allow_networks = "10.0.0.0/8" }}',
            "`allow_networks` has to be a list of texts, not `10.0.0.0/8`",
        ),
        (
            f'f = {{ {WEBHOOK}, secret_file = "x", client_key = "y" }}',
            "`client_key` is given without `client_cert`",
        ),
        ('f = { webhook = "http://erp.example/hush" }', "`webhook`: https://HOST"),
        ('f = { webhook = "https://u:hush@erp.example/" }', "`webhook`: a user name or password"),
        ('f = { python = "a:b", timeout = "soon" }', "`timeout` has to be a number from 0.1 to"),
        ('f = { python = "a:b", timeout = 0 }', "`timeout` has to be a number from 0.1 to 900"),
        ('f = { python = "a:b", timeout = nan }', "`timeout` has to be a number"),
        ('f = { python = "a:b", memory = 64 }', "`memory` has to be a whole number from 128"),
        ('f = { python = "a:b", concurrency = true }', "`concurrency` has to be a whole number"),
        ('f = { python = "a:b", path = [3] }', "`path` has to be a list of texts"),
        ('f = { python = "a:b", environment = "hush" }', "`environment` has to be a table"),
        (
            'f = { python = "a:b", environment = { "A=" = "hush" } }',
            "`A=` is no name of a variable",
        ),
        (
            'f = { python = "a:b", environment = { A = "hush" } }',
            "`A` is no name of a variable: a letter, then one or more letters, digits or `_`",
        ),
        ('f = { python = "a:b", environment = { A_B = 3 } }', "value of `A_B` has to be a text"),
        (
            'f = { python = "a:b", environment = { AWS_REGION = "hush" } }',
            "`environment`: `AWS_REGION` is reserved",
        ),
        ('f = { lambda = "http://h" }', "`function` is required"),
        ('f = { lambda = "http://u:hush@h", function = "g" }', "`lambda`: http://HOST:PORT or"),
        ('f = { lambda = "h", function = "g" }', "`lambda`: http://HOST:PORT or"),
        ('f = { lambda = "http://h", function = "g h" }', "`function`: the name or ARN"),
        ('f = { lambda = "http://h", function = "g", region = "x y" }', "`region`: a name such as"),
    ],
)
def test_a_function_that_cannot_be_is_named(table: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "fleetgate.toml").write_text(f"[functions]\n{table}\n")
    with pytest.raises(SettingError) as caught:
        read_settings({}, {}, tmp_path)
    assert "fleetgate.toml`: functions: " in caught.value.message
    assert words in caught.value.message
    if "python:PACKAGE" not in words:
        assert "hush" not in caught.value.message


def test_the_examples_of_the_documentation_are_settings(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "functions.md").read_text()
    found = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    kinds = set()
    for number, example in enumerate(found):
        (tmp_path / f"{number}.toml").write_text(example)
        variables = {"FLEETGATE_CONFIG": str(tmp_path / f"{number}.toml")}
        kinds |= {type(each) for each in read_settings({}, variables, tmp_path).functions.values()}
    assert kinds == {PythonFunction, Webhook, LambdaEndpoint, BuiltIn}

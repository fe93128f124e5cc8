"""``allow-list`` and ``key-reuse-audit`` over real MQTT; docs/built-in-functions.md is typed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.asymmetric import ec

from tests.integration.fleet import (
    CSR,
    Fleet,
    create_fleet,
    policy_document,
    register_topic,
    signing_request,
)
from tests.integration.paho_device import PahoDevice, decode
from tests.integration.races import ask, connected, is_accepted, new_tokens
from tests.integration.server import ACCOUNT, REGION, Server, http, run
from tests.integration.typed import Block, blocks_of

REFUSED = "the pre-provisioning hook of template `lamps-template` did not allow the provisioning"


@dataclass(frozen=True, slots=True)
class Gated:
    """A server with the functions of the page, and the fleet that asks them."""

    server: Server
    fleet: Fleet
    directory: Path
    environment: dict[str, str]
    printed: str

    def ask(self, function: str) -> None:
        """From now on the template asks this function."""
        self.server.iot.update_provisioning_template(
            templateName=self.fleet.template,
            preProvisioningHook={
                "targetArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}"
            },
        )

    def typed(self, *arguments: str) -> tuple[int, str, str]:
        """What `fleetgate allow-list` does: exit code, output, errors."""
        done = run("fleetgate", "allow-list", *arguments, cwd=self.directory, env=self.environment)
        return done.returncode, done.stdout, done.stderr

    def come(self, serial: str, key: Any = None) -> dict[str, Any]:
        """What a device hears."""
        register = register_topic(self.fleet.template)
        with PahoDevice(self.server, self.fleet.claim, f"claim-{serial}") as device:
            device.listen(CSR, register)
            made, _ = device.create(request=signing_request(key=key) if key else None)
            token = made["certificateOwnershipToken"]
            parameters = {"SerialNumber": serial}
            body = {"certificateOwnershipToken": token, "parameters": parameters}
            return {**device.request(register, body).body, "id": made["certificateId"]}

    def logged(self, event: str) -> list[str]:
        return [line for line in self.server.output().splitlines() if f"event={event} " in line]


def page() -> list[Block]:
    """The blocks that are about these two functions."""
    found = blocks_of("built-in-functions.md")
    end = next(at for at, block in enumerate(found) if "## The three that sign" in block.before)
    return found[:end]


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    directory = tmp_path_factory.mktemp("gated")
    blocks = {block.language: block.code for block in page()}
    (directory / "fleetgate.toml").write_text(blocks["toml"])
    (directory / "serials.csv").write_text(blocks["csv"])
    with Server(directory / "data") as server:
        fleet = create_fleet(server, directory, "lamps")
        commands = [block.code for block in page() if block.language == "sh"]
        done = run(
            *("bash", "-c", "\n".join(["set -e -o pipefail", *commands])),
            cwd=directory,
            env={"FLEETGATE_DATA": str(server.data)},
        )
        assert done.returncode == 0, done.stderr
        functions = server.client("lambda")
        for name in ("factory", "keys"):
            functions.add_permission(
                FunctionName=name,
                StatementId="iot",
                Action="lambda:InvokeFunction",
                Principal="iot.amazonaws.com",
            )
        functions.close()
        environment = {
            "AWS_ENDPOINT_URL": server.http_url,
            "AWS_SHARED_CREDENTIALS_FILE": str(server.data / "credentials"),
            "AWS_DEFAULT_REGION": REGION,
        }
        yield Gated(server, fleet, directory, environment, done.stdout)


def test_the_commands_of_the_page(gated: Gated) -> None:
    *_, first, second, third, one, three, imported, shown, last = gated.printed.splitlines()
    assert [first, second, third, one, three, imported, last] == [
        "on the list lamps: 2 serial numbers",
        "on the list lamps: 1 serial number",
        "taken from the list lamps: 1 serial number",
        "L-1\tused 0 of 1",
        'L-3\tused 0 of 5\t{"site": "Seattle"}',
        "on the list lamps: 2 serial numbers",
        "L-1 was not used yet",
    ]
    found = json.loads(shown)
    assert found.pop("addedAt") > 1.7e9
    assert found == {
        "serialNumber": "L-3",
        "listed": True,
        "uses": 5,
        "used": 0,
        "overrides": {"site": "Seattle"},
        "usedBy": [],
    }


def test_a_list_in_the_database(gated: Gated) -> None:
    gated.ask("lamps")
    assert gated.come("L-1")["thingName"] == "lamps-L-1"
    for serial in ("L-1", "L-2", "l-1"):
        refused = gated.come(serial)
        assert (refused["statusCode"], refused["errorMessage"]) == (403, REFUSED)
    reasons = [line.partition(" reason=")[2] for line in gated.logged("hook-refused")]
    assert "`L-1` of the allow-list `lamps` may be used once and was used so often" in reasons[-3]
    assert "`L-2` is not on the allow-list `lamps`" in reasons[-2]
    assert "`L-1` is: white space and case count" in reasons[-1]
    status, printed, _ = gated.typed("list", "lamps", "L-1")
    assert status == 0
    assert printed.startswith("L-1\tused 1 of 1\n  20")
    assert printed.endswith(" thing lamps-L-1\n")
    status, printed, _ = gated.typed("release", "lamps", "L-1")
    assert (status, printed) == (0, "given back to L-1: 1 use\n")
    assert gated.come("L-1")["thingName"] == "lamps-L-1"


def test_of_many_devices_with_one_serial_number_one_gets_through(gated: Gated) -> None:
    gated.ask("lamps")
    new = {"serialNumbers": [{"serialNumber": "one"}]}
    assert signed(gated, "POST", "lamps/add", new) == (200, {"serialNumbers": 1})
    topic = register_topic(gated.fleet.template)
    with connected(gated.server, gated.fleet, 20) as devices:
        bodies = [
            {"certificateOwnershipToken": token, "parameters": {"SerialNumber": "one"}}
            for token in new_tokens(devices)
        ]
        for device in devices:
            device.listen(topic)
        answers = ask(devices, topic, bodies)
    accepted = [decode(each.payload, "json") for each in answers if is_accepted(each)]
    assert [each["thingName"] for each in accepted] == ["lamps-one"]


def test_a_list_in_a_file(gated: Gated) -> None:
    gated.ask("factory")
    answer = gated.come("F-1")
    assert answer["deviceConfiguration"] == {"greeting": "hello", "serial": "F-1", "batch": "7"}
    assert gated.come("F-1")["statusCode"] == 403
    status, _, said = gated.typed("add", "factory", "F-9")
    assert status == 1
    assert said.startswith("fleetgate: InvalidRequestException: the serial numbers of the allow-li")
    # exchanged while the server runs
    (gated.directory / "new.csv").write_text("SerialNumber,batch\nF-9,9\n,9\n")
    (gated.directory / "new.csv").rename(gated.directory / "serials.csv")
    assert gated.come("F-9")["statusCode"] == 403
    assert "serials.csv`: line 3: `SerialNumber` is empty" in gated.logged("hook-refused")[-1]
    (gated.directory / "serials.csv").write_text("SerialNumber,batch\nF-9,9\n")
    assert gated.come("F-9")["deviceConfiguration"]["batch"] == "9"


def test_a_key_of_another_thing(gated: Gated) -> None:
    gated.ask("keys")
    key = ec.generate_private_key(ec.SECP256R1())
    first = gated.come("K-1", key)
    refused = gated.come("K-2", key)
    assert (refused["statusCode"], refused["errorMessage"]) == (403, REFUSED)
    told = f"the key is that of certificate {first['id']} (ACTIVE, thing `lamps-K-1`)"
    assert told in gated.logged("hook-refused")[-1]
    assert gated.come("K-1", key)["thingName"] == "lamps-K-1"
    assert "verdict=same-thing" in gated.logged("key-reused")[-1]
    assert gated.come("K-2")["thingName"] == "lamps-K-2"


def test_large_lists_are_imported_and_listed_in_batches(gated: Gated) -> None:
    lines = "".join(f"B-{number:05d}\n" for number in range(2500))
    (gated.directory / "bulk.csv").write_text(f"serial\n{lines}")
    imported = "on the list lamps: 2500 serial numbers\n"
    assert gated.typed("import", "lamps", "bulk.csv") == (0, imported, "")
    listed = gated.typed("list", "lamps")[1]
    assert [line for line in listed.splitlines() if line.startswith("B-")] == [
        f"{line}\tused 0 of 1" for line in lines.split()
    ]
    (gated.directory / "bulk.csv").write_text("serial,uses\n1,1\n1,0\n")
    status, printed, said = gated.typed("import", "lamps", "bulk.csv")
    assert (status, printed) == (1, "")
    assert said.startswith("fleetgate: `bulk.csv`: line 3: `uses`: a whole number from 1")


def signed(
    gated: Gated, method: str, path: str, body: Any = None, keys: tuple[str, str] | None = None
) -> tuple[int, Any]:
    """A request that is signed as the commands do it: status and answer."""
    if keys is None:
        found = gated.server.iot._request_signer._credentials.get_frozen_credentials()
        keys = found.access_key, found.secret_key
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    url = f"{gated.server.http_url}/_fleetgate/allow-lists/{path}"
    request = AWSRequest(method, url, data=data)
    SigV4Auth(Credentials(*keys), "iot", REGION).add_auth(request)
    answer = http(url, method=method, headers=dict(request.headers), body=data or None)
    return answer.status, answer.json()


def test_rights_are_those_on_the_function(gated: Gated) -> None:
    with contextlib.closing(gated.server.client("iam")) as iam:
        iam.create_user(UserName="looker")
        key = iam.create_access_key(UserName="looker")["AccessKey"]
        allowed = {
            "Effect": "Allow",
            "Action": "lambda:GetFunction",
            "Resource": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:lamps",
        }
        document = policy_document(allowed)
        iam.put_user_policy(UserName="looker", PolicyName="look", PolicyDocument=document)
    keys = key["AccessKeyId"], key["SecretAccessKey"]
    assert signed(gated, "GET", "lamps?serialNumber=L-3", keys=keys)[0] == 200
    change, see = "lambda:UpdateFunctionConfiguration", "lambda:GetFunction"
    for method, path, body, action in (
        ("POST", "lamps/add", {"serialNumbers": [{"serialNumber": "x"}]}, change),
        ("POST", "lamps/remove", {"serialNumbers": ["x"]}, change),
        ("POST", "lamps/release", {"serialNumber": "x"}, change),
        ("GET", "factory", None, see),
        ("GET", "nothing", None, see),
    ):
        status, said = signed(gated, method, path, body, keys)
        assert status == 403
        assert f"is not authorized to perform: {action} on resource" in said["message"]
    url = f"{gated.server.http_url}/_fleetgate/allow-lists/lamps"
    assert http(url).status == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("GET", "nothing", None, 404, "function `nothing` that is an allow-list; those are: `lamp"),
        ("GET", "keys", None, 404, "no function `keys` that is an allow-list"),
        ("GET", "lamps/add", None, 404, "nothing is at GET"),
        ("POST", "lamps", {}, 404, "nothing is at POST"),
        ("DELETE", "lamps", None, 404, "nothing is at DELETE"),
        ("GET", "lamps?limit=0", None, 400, "`limit`: a whole number from 1 to 1000 is expected"),
        ("GET", "lamps?nextToken=x", None, 400, "`x` is not a page token"),
        ("GET", "lamps?page=1", None, 400, "the query has `page`, which is unknown"),
        ("GET", "lamps?serialNumber=none", None, 404, "`none` is not on the allow-list `lamps`"),
        ("POST", "lamps/add", b"{", 400, "the request is no JSON"),
        ("POST", "lamps/add", {"serialNumbers": []}, 400, "has 1 to 1000 serial numbers, not 0"),
        ("POST", "lamps/add", {"serialNumber": "x"}, 400, "the request is wrong"),
        ("POST", "factory/remove", {"serialNumbers": ["x"]}, 400, "change the file"),
        ("POST", "lamps/release", {"serialNumber": "no"}, 404, "there is no use of serial number"),
    ],
)
def test_what_is_wrong_is_told(
    gated: Gated, method: str, path: str, body: Any, status: int, words: str
) -> None:
    answered, said = signed(gated, method, path, body)
    assert (answered, words in said["message"]) == (status, True), said

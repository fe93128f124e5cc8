"""docs/provisioning.md is typed as it stands, section by section."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.server import Server, run
from tests.integration.typed import blocks_of, write_files


def printed(output: str) -> list[Any]:
    """The JSON values in what commands have printed."""
    decoder, values, at = json.JSONDecoder(), [], 0
    while output[at:].strip():
        at += len(output[at:]) - len(output[at:].lstrip())
        value, at = decoder.raw_decode(output, at)
        values.append(value)
    return values


@pytest.mark.needs("mosquitto_pub")
def test_everything_the_page_shows_runs(tmp_path: Path) -> None:
    page = blocks_of("provisioning.md")
    write_files(page, tmp_path)
    serve, env, once, device, use, one_thing, installer, claim = (
        block.code for block in page if block.language == "sh"
    )
    assert serve.splitlines()[-1] == "fleetgate serve"
    *pointed, asked = env.splitlines()

    def typed(*codes: str, cwd: Path = tmp_path, **variables: str) -> str:
        """Blocks in one shell that is pointed at the server, or knows other credentials too."""
        known = [f"export {name}={value}" for name, value in variables.items()]
        script = "\n".join(["set -e -o pipefail", *pointed, *known, *codes])
        done = run("bash", "-c", script, cwd=cwd, env={"FLEETGATE_DATA": str(server.data)})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def section_2_and_3() -> None:
        output = typed(device, use)
        assert '"thingName": "lamp-0042"' in output
        certificate = json.loads((tmp_path / "identity/config.json").read_text())["certificateId"]
        assert f"cert/{certificate}" in output

    def without_a_claim() -> None:
        answer = printed(typed(one_thing))[-1]
        assert answer["certificatePem"] == (tmp_path / "0043.pem").read_text()
        assert answer["resourceArns"]["thing"].endswith(":thing/lamp-0043")
        id_ = answer["resourceArns"]["certificate"].rpartition("/")[2]
        found = server.iot.describe_certificate(certificateId=id_)
        assert found["certificateDescription"]["status"] == "ACTIVE"

    def by_trusted_user() -> None:
        key = printed(typed(installer))[-1]["AccessKey"]
        theirs = {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
        made = printed(typed(claim, **theirs))[-1]
        van = tmp_path / "van"
        van.mkdir()
        (van / "claim.pem").write_text(made["certificatePem"])
        (van / "claim.key").touch(0o600)
        (van / "claim.key").write_text(made["keyPair"]["PrivateKey"])
        typed(device.replace("0042", "0044"), cwd=van)
        config = json.loads((van / "identity/config.json").read_text())
        assert config["thingName"] == "lamp-0044"

    with Server(tmp_path / "fleetgate-data") as server:
        assert server.iot is not None  # made here: the sections share it
        typed(asked, once)
        sections: list[Callable[[], None]] = [section_2_and_3, without_a_claim, by_trusted_user]
        with ThreadPoolExecutor() as shells:
            for done in [shells.submit(section) for section in sections]:
                done.result()

"""docs/hooks.md is typed as it stands: AWS's procedure, with the AWS CLI."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.integration.server import Server, run
from tests.integration.typed import blocks_of, write_files


def test_the_procedure_of_the_page_works(tmp_path: Path) -> None:
    page = blocks_of("hooks.md")
    steps = page[: next(at for at, block in enumerate(page) if '"64 hex digits"' in block.code)]
    write_files(steps, tmp_path)
    [function] = [block for block in steps if block.language == "python"]
    (tmp_path / "hook.py").write_text(function.code)
    serve, env, made, permission, template, refused, allowed, yes_to, no_to = (
        block.code for block in steps if block.language == "sh"
    )
    assert serve.splitlines()[-1] == "fleetgate serve"
    with Server(tmp_path / "fleetgate-data") as server:
        done = run(
            *("bash", "-c", f"set -e -o pipefail\n{env}\n{made}\n{permission}\n{template}"),
            cwd=tmp_path,
            env={"FLEETGATE_DATA": str(server.data)},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert '"templateName": "myTemplate"' in done.stdout
        devices = {
            what: run(
                *("bash", "-c", f"set -e -o pipefail\n{env}\n{code}"),
                cwd=tmp_path,
                env={"FLEETGATE_DATA": str(server.data)},
            )
            for what, code in (("refused", refused), ("allowed", allowed))
        }
        tried = [
            run(
                *("bash", "-c", f"set -e -o pipefail\n{env}\n{code}"),
                cwd=tmp_path,
                env={"FLEETGATE_DATA": str(server.data)},
            )
            for code in (yes_to, no_to)
        ]
        log = server.output()
        things = [each["thingName"] for each in server.iot.list_things()["things"]]
    no, yes = devices["refused"], devices["allowed"]
    assert no.returncode != 0
    assert (
        "403 AccessDenied: the pre-provisioning hook of template `myTemplate` did not allow the "
        "provisioning"
    ) in " ".join((no.stdout + no.stderr).split())
    assert yes.returncode == 0, yes.stdout + yes.stderr
    assert things == ["lamp_LMP-7"]
    assert '"location": "Seattle"' in yes.stdout
    config = json.loads((tmp_path / "identity/config.json").read_text())
    assert config["deviceConfiguration"] == {
        "LocationUrl": "https://example.aws",
        "DeviceLocation": "Seattle",
    }
    [denied] = [line for line in log.splitlines() if "event=hook-refused" in line]
    shown = next(block.code for block in page if block.code.startswith("event=hook-refused"))
    names = [word.partition("=")[0] for word in shown.split() if "=" in word]
    assert [word.partition("=")[0] for word in denied.split() if "=" in word][
        -len(names) :
    ] == names
    assert denied.endswith("kind=denied " + denied[denied.index("seconds=") :])
    assert "reason='`allowProvisioning` is `false`'" in denied
    [granted] = [line for line in log.splitlines() if "event=hook-allowed" in line]
    assert granted.endswith(" overrides='DeviceLocation'")
    assert "Seattle" not in log
    # tried without a device
    in_full, the_end = (
        blank_out(block.code) for block in steps if block.code.startswith(("template ", "log\n"))
    )
    assert [each.returncode for each in tried] == [0, 1]
    assert blank_out(tried[0].stdout) == in_full
    assert blank_out(tried[1].stdout).endswith(the_end)
    assert log.count("event=hook-tried") == 2


def blank_out(text: str) -> str:
    """Without what is different each time: ids, times, the length of a certificate."""
    return re.sub(r"[0-9a-f]{64}|python3\.\d+|[0-9.]+ s of|\(\d+ characters\)", "?", text).strip()

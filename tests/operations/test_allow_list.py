"""``allow-list``: who is let in, how often, and who counts. Rules: docs/built-in-functions.md."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from fleetgate.errors import AccessDeniedException, Error, ResourceRegistrationFailureException
from fleetgate.functions.configured import BuiltIn
from fleetgate.operations.allow_list import AllowList
from fleetgate.operations.allow_list_file import MAX_SERIAL_BYTES
from fleetgate.operations.built_in_functions import built_in_functions
from fleetgate.store import allow_lists
from tests.operations.built_ins import hooked, register_at_once
from tests.operations.conftest import START, Registry
from tests.operations.test_provisioning import create, register, things

DENIED = "the pre-provisioning hook of template `T` did not allow the provisioning"


def listed(
    registry: Registry, serial: str, uses: int | None = None, more: str | None = None
) -> None:
    store = registry.services.store
    registry.runner.run(
        store.write(allow_lists.add_serial, "gate", serial, uses, more, registry.clock())
    )


def used(registry: Registry, serial: str) -> int:
    found = registry.runner.run(
        registry.services.store.read(allow_lists.find_serial, "gate", serial)
    )
    return 0 if found is None else found.used


def come(registry: Registry, serial: str | None) -> dict[str, Any]:
    parameters = {} if serial is None else {"SerialNumber": serial}
    return register(registry, create(registry), parameters=parameters)


def refusal(registry: Registry, serial: str | None, caplog: pytest.LogCaptureFixture) -> str:
    """What the log says of a device that was refused, and heard no more than that."""
    caplog.clear()
    with pytest.raises(AccessDeniedException) as caught:
        come(registry, serial)
    assert caught.value.message == DENIED
    (line,) = [each for each in caplog.messages if each.startswith("event=hook-refused")]
    return line.partition(" reason=")[2]


def test_a_list_in_the_database(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fleetgate")
    gate = hooked(registry, "allow-list")
    assert gate.description == "builtin:allow-list"
    listed(registry, "1")
    listed(registry, "Ab")
    assert "serial number `2` is not on the allow-list `gate`" in refusal(registry, "2", caplog)
    assert come(registry, "1")["thingName"] == "dev-1"
    assert used(registry, "1") == 1
    (line,) = [each for each in caplog.messages if each.startswith("event=serial-used")]
    assert "list=gate serial='1' uses=1 thing=dev-1 certificate=" in line
    found = registry.runner.run(registry.services.store.read(allow_lists.list_uses, "gate", "1", 9))
    assert [(each.thing_name, each.used_at) for each in found] == [("dev-1", START)]
    reason = refusal(registry, "1", caplog)
    assert "`1` of the allow-list `gate` may be used once and was used so often" in reason
    assert f"last by certificate {found[0].certificate_id} for thing `dev-1`" in reason
    # to the letter
    for close in ("ab", "AB", " Ab", "Ab\n"):
        reason = refusal(registry, close, caplog)
        assert "is not on the allow-list" in reason
    assert "`Ab` is: white space and case count" in refusal(registry, " Ab", caplog)
    for strange in ("1\0", "\ud800", "x" * 4000, "é" * (MAX_SERIAL_BYTES // 2 + 1)):
        assert "is not on the allow-list" in refusal(registry, strange, caplog)
    assert "the parameter `SerialNumber` is missing" in refusal(registry, None, caplog)
    assert "the parameter `SerialNumber` is missing" in refusal(registry, "", caplog)
    assert things(registry) == ["dev-1"]


def test_uses_of_the_list_and_of_a_serial_number(registry: Registry) -> None:
    hooked(registry, "allow-list", uses=2)
    listed(registry, "two")
    listed(registry, "three", 3)
    listed(registry, "any", allow_lists.UNLIMITED)
    for serial, uses in (("two", 2), ("three", 3)):
        for _ in range(uses):
            come(registry, serial)
        with pytest.raises(AccessDeniedException):
            come(registry, serial)
        assert used(registry, serial) == uses
    for _ in range(4):
        come(registry, "any")
    hooked(registry, "allow-list", uses="unlimited")
    come(registry, "two")
    with pytest.raises(AccessDeniedException):
        come(registry, "three")


def test_asking_again_uses_nothing(registry: Registry) -> None:
    hooked(registry, "allow-list")
    listed(registry, "1")
    created = create(registry)
    first = register(registry, created)
    assert register(registry, created) == first
    assert used(registry, "1") == 1


def test_a_registration_that_fails_uses_nothing(registry: Registry) -> None:
    hooked(registry, "allow-list")
    listed(registry, "1")
    registry.call("DeleteThingGroup", thing_group_name="fleet")
    with pytest.raises(ResourceRegistrationFailureException):
        come(registry, "1")
    assert used(registry, "1") == 0
    registry.call("CreateThingGroup", thing_group_name="fleet")
    come(registry, "1")


def test_a_list_is_known_by_its_name_alone(registry: Registry) -> None:
    gate = hooked(registry, "allow-list")
    listed(registry, "1")
    registry.services.built_in["gate"] = AllowList("other", gate.parameter)
    with pytest.raises(AccessDeniedException):
        come(registry, "1")


@pytest.mark.parametrize("where", ["database", "file"])
def test_of_fifty_devices_with_one_serial_number_one_gets_through(
    registry: Registry, where: str, tmp_path: Path
) -> None:
    if where == "file":
        (tmp_path / "s.csv").write_text("SerialNumber\none\n")
        hooked(registry, "allow-list", tmp_path, file="s.csv")
    else:
        hooked(registry, "allow-list")
        listed(registry, "one")
    created = [create(registry) for _ in range(50)]
    found = register_at_once(registry, created, ["one"] * 50)
    answers = [each for each in found if isinstance(each, dict)]
    assert [each["thingName"] for each in answers] == ["dev-one"]
    refused = [each for each in found if isinstance(each, AccessDeniedException)]
    assert {each.message for each in refused} == {DENIED}
    assert len(refused) == 49
    assert used(registry, "one") == 1
    store = registry.services.store
    assert len(registry.runner.run(store.read(allow_lists.list_uses, "gate", "one", 99))) == 1


def test_a_serial_number_that_is_taken_away_meanwhile(registry: Registry) -> None:
    """Between the answer and the registration."""
    gate = hooked(registry, "allow-list")
    listed(registry, "1")

    class Late:
        description = "builtin:late"

        async def answer(self, call: Any, event: Any) -> Any:
            given = await gate.answer(call, event)
            await call.write(allow_lists.remove_serial, "gate", "1")
            return given

    registry.services.built_in["gate"] = Late()
    with pytest.raises(AccessDeniedException):
        come(registry, "1")
    assert things(registry) == []
    assert used(registry, "1") == 0


def test_a_file_and_what_its_other_columns_say(
    registry: Registry, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "fleetgate")
    file = tmp_path / "s.csv"
    file.write_bytes(
        b'\xef\xbb\xbfbatch,SerialNumber,uses,Site\r\n7, 1 ,2,B\r\n"8\r\n9","2",,\r\n,,,\r\n'
    )
    hooked(registry, "allow-list", tmp_path, file="s.csv", overrides=True)
    answer = come(registry, "1")
    assert answer["deviceConfiguration"] == {"batch": "7", "site": "B", "Site": "B"}
    come(registry, "1")
    reason = refusal(registry, "1", caplog)
    assert f"(`{file}`)" not in reason  # a path is shown as it is
    assert f"the allow-list `gate` ({file}) may be used 2 times and was used so often" in reason
    assert come(registry, "2")["deviceConfiguration"]["batch"] == "8\r\n9"
    assert "is not on the allow-list" in refusal(registry, "3", caplog)
    hooked(registry, "allow-list", tmp_path, file="s.csv", uses=2)
    assert come(registry, "2")["deviceConfiguration"] == {"site": "A"}
    # what was used is remembered when the file changes, and nobody is let in by half a file
    file.write_text("SerialNumber\n1\n4\n2\n4\n")
    assert "line 5: `4` is there for the second time" in refusal(registry, "4", caplog)
    file.unlink()
    assert f"`{file}`: No such file or directory" in refusal(registry, "4", caplog)
    file.write_text("SerialNumber\n1\n4\n")
    come(registry, "4")
    assert "was used so often" in refusal(registry, "1", caplog)


def test_a_file_is_read_when_it_changes_and_not_before(
    registry: Registry, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "fleetgate")
    file, new = tmp_path / "s.csv", tmp_path / "new.csv"
    file.write_text("SerialNumber,uses\n1,unlimited\n")
    hooked(registry, "allow-list", tmp_path, file="s.csv")

    def read() -> int:
        return sum(each.startswith("event=allow-list-read") for each in caplog.messages)

    come(registry, "1")
    os.utime(file, ns=(0, 0))
    come(registry, "1")  # its times are old enough at some time in here
    before = read()
    come(registry, "1")
    assert read() - before <= 1
    new.write_text("SerialNumber,uses\n2,unlimited\n")
    os.utime(new, ns=(0, 0))
    new.rename(file)
    come(registry, "2")
    assert "is not on the allow-list" in refusal(registry, "1", caplog)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"uses": 0}, "`uses`: a whole number from 1 to 1000000000 or `unlimited`"),
        ({"uses": -1}, "expected, not -1"),
        ({"uses": "many"}, "expected, not `many`"),
        ({"uses": True}, "expected, not True"),
        ({"uses": 1.5}, "expected, not `1.5`"),
        ({"usage": 1}, "`usage` is not an option; there are `column`, `file`, `overrides`"),
        ({"file": ""}, "`file` has to be a text"),
        ({"file": 7}, "`file` has to be a text, not 7"),
        ({"column": "x"}, "`column` is given without `file`"),
        ({"overrides": "yes"}, "`overrides` has to be true or false, not `yes`"),
        ({"parameter": ["a"]}, "`parameter` has to be a text"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Error) as caught:
        built_in_functions({"gate": BuiltIn("allow-list", options)})
    assert caught.value.message.startswith("functions `gate`: ")
    assert words in caught.value.message


def test_a_list_is_told_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fleetgate.functions")
    built_in_functions({"gate": BuiltIn("allow-list", {"file": "it's.csv"}, Path("/etc"))})
    assert caplog.messages == [
        'event=function-configured function=gate target="builtin:allow-list /etc/it\'s.csv"'
    ]

"""Links to the code of functions: what they lead to, until when, and that nobody makes one up.

What they are modelled on: Amazon S3 User Guide, "Sharing objects with presigned URLs"; Lambda API
reference, GetFunction (ten minutes).
"""

from __future__ import annotations

import pytest

from fleetgate.errors import AccessDeniedException, ResourceNotFoundException
from fleetgate.operations.code_links import CodeOfFunction, check_link, link

NOW = 1_790_000_000.5
KEY = bytes(range(32))
CODE = CodeOfFunction("hook", "71941d2a-0d88-4b36-b7bb-3811cd06b8f9")


def parts(text: str) -> tuple[str, dict[str, str]]:
    path, _, query = text.partition("?")
    return path, dict(each.split("=") for each in query.split("&"))


@pytest.mark.parametrize("later", [0, 598])
def test_a_link_leads_to_its_code_for_ten_minutes(later: float) -> None:
    path, fields = parts(link(KEY, CODE, NOW))
    assert path == "/_fleetgate/functions/hook/71941d2a-0d88-4b36-b7bb-3811cd06b8f9.zip"
    assert check_link(KEY, path, fields, NOW + later) == CODE


def test_a_link_ends() -> None:
    path, fields = parts(link(KEY, CODE, NOW))
    with pytest.raises(AccessDeniedException, match="ended 9 seconds ago"):
        check_link(KEY, path, fields, NOW + 609)


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        ({"hook": "other"}, {}, "was changed"),
        ({"71941d2a": "71941d2b"}, {}, "was changed"),
        ({}, {"Expires": "1790009999"}, "was changed"),
        ({}, {"Signature": "0" * 64}, "was changed"),
        ({}, {"Signature": "ä"}, "was changed"),
        ({}, {"Expires": "x"}, "has the parameters"),
        ({}, {"Expires": ""}, "has the parameters"),
    ],
)
def test_a_link_that_was_changed_is_refused(
    path: dict[str, str], fields: dict[str, str], message: str
) -> None:
    changed, given = parts(link(KEY, CODE, NOW))
    for old, new in path.items():
        changed = changed.replace(old, new)
    with pytest.raises(AccessDeniedException, match=message):
        check_link(KEY, changed, {**given, **fields}, NOW)


def test_a_link_of_another_server_is_refused() -> None:
    path, fields = parts(link(bytes(32), CODE, NOW))
    with pytest.raises(AccessDeniedException, match="was changed"):
        check_link(KEY, path, fields, NOW)


@pytest.mark.parametrize("path", ["", "hook", "hook/x.zip", "../hook/a.zip", "a b/x"])
def test_other_paths_lead_nowhere(path: str) -> None:
    with pytest.raises(ResourceNotFoundException, match="no code of a function is at"):
        check_link(KEY, f"/_fleetgate/functions/{path}", {}, NOW)

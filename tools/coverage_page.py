"""Writes docs/coverage.md: every operation of the service models, served or not, with its notes.

Run it (``.venv/bin/python tools/coverage_page.py``) when an operation was added; a test compares.
What is served is said by ``SERVED`` and the first paragraph of each function's docstring, what is
not by the table in ``operations/scope.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import botocore.loaders

from fleetgate.operations.dispatch import SERVED, UNOFFERED_MEMBERS
from fleetgate.operations.scope import LEFT_OUT
from fleetgate.server import load_provisioning_model

PAGE = Path(__file__).parents[1] / "docs/coverage.md"

_HEAD = """# The operations of the API

<!-- made by tools/coverage_page.py: change the docstrings or operations/scope.py, then run it -->

Every operation of AWS's service models for `iot`, `iam`, `lambda` and `sts`, and of the API of
provisioning over MQTT. One that is not served answers 501 `NotImplementedException` with the
reason below.
`fleetgate operations` prints what is served. Parameters, answers and errors are those of the AWS
API references; [divergences](divergences.md) has what differs.
"""

_TITLES = {
    "iot": "HTTP: the `iot` API",
    "iam": "HTTP: the `iam` API",
    "lambda": "HTTP: the `lambda` API",
    "sts": "HTTP: the `sts` API",
    "provisioning": "MQTT: the `provisioning` API",
}


def models() -> dict[str, tuple[str, ...]]:
    """Service -> the names of its operations: what botocore ships, and our own over MQTT."""
    loader = botocore.loaders.Loader()
    names = {
        service: tuple(loader.load_service_model(service, "service-2")["operations"])
        for service in LEFT_OUT
    }
    return {**names, "provisioning": load_provisioning_model().names}


def unaccounted(service: str, names: Sequence[str]) -> list[str]:
    """Operations that are neither served nor left out for a reason, or both, or unknown."""
    served = set(SERVED.get(service, {}))
    left_out = [name for group in LEFT_OUT.get(service, ()) for name in group.operations]
    odd = (served & set(left_out)) | ((served | set(left_out)) ^ set(names))
    return sorted(odd | {name for name in left_out if left_out.count(name) > 1})


def note(service: str, name: str) -> str:
    """The first paragraph of the docstring without the operation's name."""
    text = (inspect.getdoc(SERVED[service][name]) or "").partition("\n\n")[0]
    sentence = " ".join(text.split()).removeprefix(name).lstrip(":. ").rstrip(".")
    refused = UNOFFERED_MEMBERS.get(name, ())
    if refused:
        sentence += f"; refused: {', '.join(f'`{_model_name(each)}`' for each in refused)}"
    return sentence.strip()


def _model_name(member: str) -> str:
    """``serial_number`` -> ``SerialNumber``, as the models of IAM, Lambda and STS have it."""
    words = [_WORDS.get(part, part.capitalize()) for part in member.split("_")]
    return "".join(words)


_WORDS = {"id": "Id", "kms": "KMS", "org": "Org"}


def section(service: str, names: Sequence[str]) -> str:
    """The text about one service: what is served, then what is not."""
    here = sorted(name for name in names if name in SERVED.get(service, {}))
    parts = [f"## {_TITLES[service]}\n\n{len(here)} of {len(names)} are served.\n\n"]
    parts += ["| Operation | |\n|---|---|\n"]
    parts += [f"| `{name}` | {note(service, name)} |\n" for name in here]
    groups = LEFT_OUT.get(service, ())
    if groups:
        parts += [f"\n### Not served of `{service}`\n\n| Operations | Reason |\n|---|---|\n"]
    for group in groups:
        listed = ", ".join(f"`{name}`" for name in sorted(group.operations))
        parts += [f"| {listed} | {group.reason} |\n"]
    return "".join(parts)


def page() -> str:
    """The text of the whole page."""
    return "\n".join([_HEAD, *(section(service, names) for service, names in models().items())])


if __name__ == "__main__":
    PAGE.write_text(page())

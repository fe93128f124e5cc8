"""How callers name functions: by name, by account and name, by a whole ARN; with a qualifier or
without.

Source: Lambda API reference, Invoke, "FunctionName" and "Qualifier"; AWS's words in refusals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleetgate.errors import InvalidParameterValueException, ResourceNotFoundException
from fleetgate.names import Account

LATEST = "$LATEST"
"""The one version there is: functions are not published."""

MAX_NAME = 64
"""Characters of the name of a function (Lambda developer guide, "Lambda quotas")."""

_FORM = re.compile(
    r"(?:arn:(?P<partition>[a-z-]+):lambda:)?"
    r"(?:(?P<region>[a-z]{2,}(?:-[a-z]+)+-[0-9]):)?"
    r"(?:(?P<account>[0-9]{12}):)?(?:function:)?"
    r"(?P<name>[a-zA-Z0-9_-]+)"
    r"(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9_-]+))?"
)


@dataclass(frozen=True, slots=True)
class FunctionName:
    """A function as a caller names it. `qualifier` is empty when none was given."""

    name: str
    qualifier: str = ""

    @property
    def qualified(self) -> str:
        """The name with the qualifier, if there is one: what the resource's ARN ends with."""
        return f"{self.name}:{self.qualifier}" if self.qualifier else self.name


def parse(account: Account, text: str, qualifier: str | None = None) -> FunctionName:
    """The function a caller means; `qualifier` is the one given beside the name.

    Whether there is one of this name, and the qualifier, are not looked at.

    Raises InvalidParameterValueException for what is no name of a function, and
    ResourceNotFoundException for one of another account or region.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise InvalidParameterValueException(
            f"`{text[:200]}` is not the name or ARN of a function "
            f"(NAME, {account.id}:function:NAME or {account.lambda_arn('NAME')})"
        )
    name, region, owner = found["name"], found["region"], found["account"]
    if len(name) > MAX_NAME:
        raise InvalidParameterValueException(
            f"the function name `{name[:80]}` has {len(name)} characters; the limit is {MAX_NAME}"
        )
    if region is not None and region != account.region:
        raise ResourceNotFoundException(
            f"Functions from '{region}' are not reachable in this region ('{account.region}')"
        )
    if owner not in (None, account.id) or found["partition"] not in (None, account.partition):
        raise ResourceNotFoundException(f"Function not found: {text[:200]}")
    derived = found["qualifier"] or ""
    if derived and qualifier and derived != qualifier:
        raise InvalidParameterValueException(
            "The derived qualifier from the function name does not match the specified qualifier."
        )
    return FunctionName(name, derived or qualifier or "")


def latest(account: Account, text: str, qualifier: str | None = None) -> str:
    """The name of the function a caller means, of which there is no version but ``$LATEST``.

    Raises as `parse` does, and ResourceNotFoundException for another qualifier.
    """
    found = parse(account, text, qualifier)
    if found.qualifier not in ("", LATEST):
        raise ResourceNotFoundException(
            f"Function not found: {account.lambda_arn(found.qualified)}"
        )
    return found.name

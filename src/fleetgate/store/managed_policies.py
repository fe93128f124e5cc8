"""AWS's own managed policies that matter here, from the files in ``data/managed_policies``.

A file is one policy: what IAM answers about it, and its document. The store never holds them.

Source: AWS Managed Policy Reference Guide.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import msgspec

from fleetgate.wire import timestamps

PREFIX = "arn:aws:iam::aws:policy"
"""What the ARNs of AWS's managed policies begin with; a path follows."""


@dataclass(frozen=True, slots=True)
class ManagedPolicy:
    """One of AWS's managed policies; times are in seconds since the epoch."""

    policy_id: str
    policy_name: str
    path: str
    version: int
    description: str
    created_at: float
    modified_at: float
    document: str

    @property
    def arn(self) -> str:
        """``arn:aws:iam::aws:policy/service-role/AWSIoTThingsRegistration``"""
        return f"{PREFIX}{self.path}{self.policy_name}"


def find(arn: str) -> ManagedPolicy | None:
    """The policy with this ARN, None when it is none of those known here."""
    return every().get(arn)


@cache
def every() -> Mapping[str, ManagedPolicy]:
    """All of them, by ARN."""
    return {policy.arn: policy for policy in sorted(_read(), key=lambda each: each.policy_name)}


def _read() -> list[ManagedPolicy]:
    found = []
    for file in files("fleetgate").joinpath("data/managed_policies").iterdir():
        described = msgspec.json.decode(file.read_bytes(), type=_Described)
        found.append(
            ManagedPolicy(
                policy_id=_policy_id(described.PolicyName),
                policy_name=described.PolicyName,
                path=described.Path,
                version=int(described.DefaultVersionId.removeprefix("v")),
                description=described.Description,
                created_at=timestamps.from_iso8601(described.CreateDate),
                modified_at=timestamps.from_iso8601(described.UpdateDate),
                document=msgspec.json.format(bytes(described.Document), indent=4).decode(),
            )
        )
    return found


def _policy_id(policy_name: str) -> str:
    """An id of the right form; AWS's own are nowhere published."""
    digest = hashlib.sha256(policy_name.encode()).digest()
    return f"ANPA{base64.b32encode(digest).decode()[:17]}"


class _Described(msgspec.Struct):
    PolicyName: str
    Path: str
    DefaultVersionId: str
    Description: str
    CreateDate: str
    UpdateDate: str
    Document: msgspec.Raw

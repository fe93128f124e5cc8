"""Resources in policies: which texts name any.

Sources: IAM User Guide, "IAM JSON policy elements: Resource", "Amazon Resource Names"; IAM's own
sentences, and what it takes although it names nothing, as recorded from AWS.
"""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(r"\$\{[^{}]*\}|[*?]")
_PARTITIONS: Final = re.compile(r"\*|aws(-cn|-us-gov|-iso|-iso-b|-iso-e|-iso-f|-eusc)?")
_WILD: Final = re.compile(r"[*?$]")
_IAM_PATHS: Final = (
    "user/",
    "federated-user/",
    "role/",
    "group/",
    "instance-profile/",
    "mfa/",
    "server-certificate/",
    "policy/",
    "sms-mfa/",
    "saml-provider/",
    "oidc-provider/",
    "report/",
    "access-report/",
)


def may_be_arn(text: str) -> bool:
    """Whether this is, or with its wildcards and variables may become, an ARN of six parts.

    ``arn:partition:service:region:account:resource``; a wildcard or variable may span parts.
    """
    token = _TOKEN.search(text)
    head = text[: token.start()] if token else text
    parts = text.split(":", 5)
    complete = len(parts) == 6 and parts[5] != ""
    return (head.startswith("arn:") and (complete or token is not None)) or (
        token is not None and "arn:".startswith(head)
    )


def check_iam_resource(text: str) -> None:
    """Raises ValueError, with IAM's own sentence, for a resource IAM does not take."""
    if text == "*":
        return
    first, *rest = text.split(":", 5)
    shown = text[:200]
    not_an_arn = f'Resource {shown} must be in ARN format or "*".'
    if not rest:
        raise ValueError(not_an_arn)
    partition, *rest = rest
    if not _PARTITIONS.fullmatch(partition):
        filled = [part or "*" for part in rest[:1]] if len(rest) < 2 else rest
        named = ":".join(["arn", partition, *filled, *["*"] * (4 - len(filled))])
        raise ValueError(f'Partition "{partition[:80]}" is not valid for resource "{named[:200]}".')
    if first != "arn":
        raise ValueError(not_an_arn)
    if not rest:
        raise ValueError("Resource vendor must be fully qualified and cannot contain regexes.")
    service, *rest = rest
    if service in ("iam", "s3") and len(rest) == 3:
        region, _, resource = rest
        _check_global(service, region, resource, shown)
    if not service or ("::" in text and len(rest) < 3):
        raise ValueError("The policy failed legacy parsing")


def _check_global(service: str, region: str, resource: str, shown: str) -> None:
    """Services whose resources are in no region, and what those of IAM are called."""
    fixed = region and not _WILD.search(region)
    if service == "iam" and fixed:
        raise ValueError(f"IAM resource {shown} cannot contain region information.")
    if service == "s3" and fixed and not resource.startswith("accesspoint/"):
        raise ValueError(f"Resource {shown} can not contain region information.")
    if service == "iam" and resource not in ("*", "root") and not resource.startswith(_IAM_PATHS):
        raise ValueError(
            f'IAM resource path must either be "*", root, or start with {", ".join(_IAM_PATHS)}.'
        )

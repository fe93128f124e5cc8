"""Names: accounts, ARNs and certificate ids."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from fleetgate.errors import InvalidRequestException


@dataclass(frozen=True, slots=True)
class Account:
    """The one account a server serves: ``id`` is 12 digits, ``region`` e.g. ``us-east-1``."""

    id: str
    region: str
    partition: str = "aws"

    def arn(self, resource: str) -> str:
        """The ARN of an ``iot`` resource, e.g. ``arn("thing/lamp")``.

        Source: Service Authorization Reference, "Resource types defined by AWS IoT".
        """
        return f"arn:{self.partition}:iot:{self.region}:{self.id}:{resource}"

    def known_as(self, arn: str) -> str:
        """An ARN in the form by which IAM policies and tags know its resource.

        Certificate providers alone have two forms: the API answers ``certificateprovider:NAME``
        (AWS IoT Developer Guide, "AWS CLI commands for certificate provider"), policies say
        ``certificateprovider/NAME`` (Service Authorization Reference; the guide's example of
        ``aws:SourceArn``).
        """
        kind = self.arn("certificateprovider")
        return f"{kind}/{arn[len(kind) + 1 :]}" if arn.startswith(f"{kind}:") else arn

    def lambda_arn(self, function_name: str) -> str:
        """The ARN of a Lambda function.

        Source: Service Authorization Reference, "Resource types defined by AWS Lambda".
        """
        return f"arn:{self.partition}:lambda:{self.region}:{self.id}:function:{function_name}"

    def iam_arn(self, resource: str) -> str:
        """The ARN of an ``iam`` resource, e.g. ``iam_arn("role/fleet/installer")``.

        Source: Service Authorization Reference, "Resource types defined by AWS IAM".
        """
        return f"arn:{self.partition}:iam::{self.id}:{resource}"

    def resource(self, arn: str, kind: str) -> str | None:
        """The name inside an ARN of this account and region (``thing/lamp`` -> ``lamp``).

        Returns None when the ARN is of another kind, account or region.
        """
        prefix = self.arn(kind + "/")
        return arn[len(prefix) :] if arn.startswith(prefix) else None


_LATEST: Final = ":$LATEST"
_FUNCTION: Final = re.compile(r"arn:[^:]*:lambda:[^:]*:[^:]*:function:[^:]+")


def unqualified(arn: str) -> str:
    """The ARN of a function without ``$LATEST``, its only version; any other ARN as it is."""
    bare = arn.removesuffix(_LATEST)
    return bare if bare != arn and _FUNCTION.fullmatch(bare) else arn


def other_name(arn: str) -> str | None:
    """The second ARN of what has two: a function, with ``$LATEST`` and without; else None."""
    if ":lambda:" not in arn:
        return None
    bare = unqualified(arn)
    if bare != arn:
        return bare
    return arn + _LATEST if _FUNCTION.fullmatch(arn) else None


def certificate_id(der: bytes) -> str:
    """The id of a certificate: the SHA-256 of its DER form, 64 lower-case hex digits."""
    return hashlib.sha256(der).hexdigest()


def certificate_id_of_principal(account: Account, principal: str) -> str:
    """The certificate id in a certificate ARN of this account.

    Raises InvalidRequestException when `principal` is anything else.
    """
    name = account.resource(principal, "cert")
    if not name:
        raise InvalidRequestException(
            f"`{principal}` is not the ARN of a certificate of account {account.id} "
            f"in {account.region} ({account.arn('cert/')}...)"
        )
    return name

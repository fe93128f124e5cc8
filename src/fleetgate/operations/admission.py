"""Who may connect, and under which policies.

A certificate is admitted when its id (the SHA-256 of its DER form) is known, its status is
ACTIVE and the moment lies inside its validity; a temporary provisioning claim is admitted until
it ends. TLS itself accepts any client certificate: trust is by registry, not by chain
(AWS IoT developer guide, "X.509 client certificates").
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from fleetgate.domain.policy import Document, Policies, compile_policies, parse
from fleetgate.errors import Error
from fleetgate.names import Account, certificate_id
from fleetgate.operations.call import Services
from fleetgate.operations.identity import Identity
from fleetgate.store import certificates, policies

_document = lru_cache(maxsize=1024)(parse)


class NotAdmitted(Error):
    """The certificate does not open the door; the message names its id and the reason."""


async def admit(services: Services, der: bytes) -> Identity:
    """The identity behind a client certificate (DER).

    Raises NotAdmitted when the registry does not know it or it may not be used now.
    """
    name = certificate_id(der)
    now = services.now()
    standing = await services.store.read(certificates.find_standing, name)
    if standing is None:
        raise NotAdmitted(f"certificate {name} is not registered")
    if standing.status != "ACTIVE":
        raise NotAdmitted(f"certificate {name} is {standing.status}, not ACTIVE")
    if now < standing.not_before:
        raise NotAdmitted(f"certificate {name} is not valid before {_moment(standing.not_before)}")
    if now >= standing.not_after:
        raise NotAdmitted(f"certificate {name} expired at {_moment(standing.not_after)}")
    return Identity(name, standing.template_name, standing.not_after)


async def connection_policies(services: Services, identity: Identity, client_id: str) -> Policies:
    """The policies that rule a connection, compiled for it."""
    if identity.template_name is not None:
        documents = [("temporary-claim", claim_document(services.account, identity.template_name))]
    else:
        account = services.account
        found = await services.store.read(
            policies.list_connection_documents,
            account.arn(f"cert/{identity.certificate_id}"),
            client_id,
            account.arn("thinggroup/"),
        )
        documents = [(name, _document(text)) for name, text in found]
    return compile_policies(documents, {"iot:ClientId": client_id})


@lru_cache(maxsize=256)
def claim_document(account: Account, template_name: str) -> Document:
    """What a temporary claim may do: provision by its template, under any client id.

    AWS does not publish this policy; it is the sample policy for claim certificates of the
    developer guide plus ``create-from-csr``.
    """
    reserved = (
        "$aws/certificates/create/*",
        "$aws/certificates/create-from-csr/*",
        f"$aws/provisioning-templates/{template_name}/provision/*",
    )
    topics = ", ".join(f'"{account.arn("topic/" + each)}"' for each in reserved)
    filters = ", ".join(f'"{account.arn("topicfilter/" + each)}"' for each in reserved)
    return parse(
        '{"Version": "2012-10-17", "Statement": ['
        '{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}, '
        '{"Effect": "Allow", "Action": ["iot:Publish", "iot:Receive"], '
        f'"Resource": [{topics}]}}, '
        f'{{"Effect": "Allow", "Action": "iot:Subscribe", "Resource": [{filters}]}}]}}'
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

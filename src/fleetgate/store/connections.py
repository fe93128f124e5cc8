"""What the registry says of a connection: the thing it belongs to, the policies that rule it.

Sources: AWS IoT Developer Guide, "Associating an AWS IoT thing to an MQTT client connection" and
"Thing groups" (policies of the groups of the thing, and of those above them).
"""

from __future__ import annotations

from dataclasses import dataclass

from fleetgate.store.engine import Tx

# The thing of a connection: the one the certificate is attached to exclusively, or the one that
# has the client id as its name, when the certificate is attached to that.
_GROUPS = (
    " above(name) AS ("
    " SELECT m.thing_group_name FROM bound b"
    " JOIN thing_group_member m ON m.thing_name = b.thing_name"
    " UNION"
    " SELECT g.parent_group_name FROM thing_group g"
    " JOIN above a ON g.thing_group_name = a.name WHERE g.parent_group_name IS NOT NULL) "
)
_BOUND = (
    "WITH RECURSIVE bound(thing_name) AS ("
    " SELECT MIN(thing_name) FROM thing_principal WHERE principal = :certificate"
    " AND (thing_name = :client OR exclusive = 1)),"
)
_NAMED = "WITH RECURSIVE bound(thing_name) AS (SELECT CAST(:thing AS TEXT)),"
_IN_FORCE = (
    "FROM policy_attachment a JOIN policy p ON p.policy_name = a.policy_name "
    "JOIN policy_version v ON v.policy_name = p.policy_name "
    "AND v.version_id = p.default_version_id "
)


@dataclass(frozen=True, slots=True)
class AttachedPolicy:
    """A policy that rules a connection, with its document in force.

    `thing_name` is the thing the connection belongs to, None when it belongs to none.
    """

    policy_name: str
    document: str
    thing_name: str | None


def find_connection_thing(tx: Tx, certificate_arn: str, client_id: str) -> str | None:
    """The name of the thing a connection belongs to, or None."""
    row = tx.one(
        "SELECT MIN(thing_name) FROM thing_principal WHERE principal = :certificate "
        "AND (thing_name = :client OR exclusive = 1)",
        certificate=certificate_arn,
        client=client_id,
    )
    return None if row is None else row[0]


def list_connection_policies(
    tx: Tx, certificate_arn: str, client_id: str, group_prefix: str
) -> list[AttachedPolicy]:
    """All policies of a connection: those of its certificate and of the groups of its thing.

    `group_prefix` is the ARN of a thing group less its name.
    """
    rows = tx.all(
        f"{_BOUND}{_GROUPS}"
        f"SELECT DISTINCT p.policy_name, v.document, (SELECT thing_name FROM bound) {_IN_FORCE}"
        "WHERE a.target = :certificate OR a.target IN (SELECT :prefix || name FROM above) "
        "ORDER BY p.policy_name",
        certificate=certificate_arn,
        client=client_id,
        prefix=group_prefix,
    )
    return [AttachedPolicy(*row) for row in rows]


def list_thing_policies(tx: Tx, thing_name: str, group_prefix: str) -> list[AttachedPolicy]:
    """The policies of the groups of a thing and of those above them."""
    rows = tx.all(
        f"{_NAMED}{_GROUPS}"
        f"SELECT DISTINCT p.policy_name, v.document, (SELECT thing_name FROM bound) {_IN_FORCE}"
        "WHERE a.target IN (SELECT :prefix || name FROM above) ORDER BY p.policy_name",
        thing=thing_name,
        prefix=group_prefix,
    )
    return [AttachedPolicy(*row) for row in rows]


def list_group_policies(tx: Tx, thing_group_name: str, group_prefix: str) -> list[AttachedPolicy]:
    """The policies of a thing group and of those above it."""
    rows = tx.all(
        "WITH RECURSIVE above(name) AS ("
        " SELECT CAST(:group AS TEXT)"
        " UNION"
        " SELECT g.parent_group_name FROM thing_group g"
        " JOIN above a ON g.thing_group_name = a.name WHERE g.parent_group_name IS NOT NULL) "
        f"SELECT DISTINCT p.policy_name, v.document, NULL {_IN_FORCE}"
        "WHERE a.target IN (SELECT :prefix || name FROM above) ORDER BY p.policy_name",
        group=thing_group_name,
        prefix=group_prefix,
    )
    return [AttachedPolicy(*row) for row in rows]

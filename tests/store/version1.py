"""A registry as version 1 of the schema left it: every table has rows, text that has to sort by
bytes among them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fleetgate.store.libpq import Link
from fleetgate.store.schema import MIGRATIONS

ARN = "arn:aws:iot:us-east-1:000000000000:"
CERTIFICATE = "ab" * 32
CLAIM = "cd" * 32
DOCUMENT = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
BODY = '{"Resources":{"p":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"fleet"}}}}'

ROWS: dict[str, list[tuple[object, ...]]] = {
    "setting": [("account", "000000000000"), ("region", "us-east-1")],
    "certificate": [
        (CERTIFICATE, "ACTIVE", "PEM", "DEFAULT", 1.7e9, 2.5e9, 1.7e9, 1.7e9, 2, "generation",
         None, "fleet", "pump-2"),
        ("ef" * 32, "PENDING_ACTIVATION", "PEM", "DEFAULT", 1.7e9, 2.5e9, 1.7e9 + 0.25, 1.7e9, 1,
         "generation", 1.8e9, None, None),
    ],
    "provisioning_claim": [(CLAIM, "fleet", 1.7e9, 1.7e9 + 300)],
    "policy": [("fleet", 2, 3, "generation", 1.7e9, 1.7e9)],
    "policy_version": [("fleet", 1, DOCUMENT, 1.7e9), ("fleet", 2, DOCUMENT, 1.7e9)],
    "policy_attachment": [
        (f"{ARN}cert/{CERTIFICATE}", "fleet"), (f"{ARN}thinggroup/Site", "fleet"),
    ],
    "thing_type": [
        ("pump", "type-id", "moves water", '["size"]', None, 1.7e9),
        ("Valve", "type-id", None, "[]", 1.75e9, 1.7e9),
    ],
    "thing": [
        ("pump-2", "thing-id-2", "pump", '{"size":"2"}', 3, 1.7e9),
        ("Pump_1", "thing-id-1", None, "{}", 1, 1.7e9),
        ("pump-10", "thing-id-10", None, "{}", 1, 1.7e9),
    ],
    "thing_attribute": [("size", "2", "pump-2")],
    "thing_principal": [("pump-2", f"{ARN}cert/{CERTIFICATE}")],
    "thing_group": [
        ("Site", "group-id", None, "all of it", "{}", 1, 1.7e9),
        ("hall", "group-id", "Site", None, '{"floor":"1"}', 1, 1.7e9),
    ],
    "thing_group_member": [("hall", "pump-2")],
    "template": [("fleet", "ours", 1, "arn:aws:iam::000000000000:role/fleet", 1, 1, 1.7e9, 1.7e9)],
    "template_version": [("fleet", 1, BODY, 1.7e9)],
}  # fmt: skip


def fill_sqlite(path: Path) -> None:
    """Makes a file of version 1."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    for table, rows in ROWS.items():
        for row in rows:
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def fill_postgres(link: Link) -> None:
    """Makes an empty database one of version 1."""
    link.execute("CREATE TABLE fleetgate (version BIGINT NOT NULL, owner TEXT NOT NULL)")
    link.execute("INSERT INTO fleetgate (version, owner) VALUES (1, '')")
    for statement in MIGRATIONS[0]:
        link.execute(statement)
    for table, rows in ROWS.items():
        for row in rows:
            values = {f"v{number}": value for number, value in enumerate(row)}
            link.execute(f"INSERT INTO {table} VALUES (:{', :'.join(values)})", values)

"""Tags: keys and values of resources, by ARN."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fleetgate.store.engine import Tx


def list_tags(tx: Tx, arn: str) -> dict[str, str]:
    """The tags of a resource, by key; a resource that has none, or is not there, has none."""
    rows = tx.all(
        "SELECT tag_key, tag_value FROM tag WHERE resource = :resource ORDER BY tag_key",
        resource=arn,
    )
    return {row[0]: row[1] for row in rows}


def update_tags(tx: Tx, arn: str, tags: Mapping[str, str]) -> None:
    """Gives a resource these tags; a key it has already gets the new value."""
    for key, value in tags.items():
        tx.send(
            "INSERT INTO tag (resource, tag_key, tag_value) VALUES (:resource, :key, :value) "
            "ON CONFLICT (resource, tag_key) DO UPDATE SET tag_value = excluded.tag_value",
            resource=arn,
            key=key,
            value=value,
        )


def remove_tags(tx: Tx, arn: str, keys: Iterable[str] | None = None) -> None:
    """Takes the tags of these keys from a resource, all of them with None."""
    if keys is None:
        tx.send("DELETE FROM tag WHERE resource = :resource", resource=arn)
        return
    for key in keys:
        tx.send(
            "DELETE FROM tag WHERE resource = :resource AND tag_key = :key",
            resource=arn,
            key=key,
        )

"""Which PostgreSQL database: from its URL, and from what libpq takes from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import conninfo, pq

from fleetgate.store.engine import StoreError

CONNECT_TIMEOUT = 5
"""Seconds to connect, unless the URL says otherwise (``connect_timeout``)."""

GIVE_UP = 1.5
"""By how much the database's own time-out may be late before the connection is given up: factor."""

# libpq's own message would quote what it could not read, which may be the password
_UNREADABLE = (
    "the database URL cannot be read: postgresql://USER:PASSWORD@HOST:PORT/DATABASE is expected; "
    "in user and password, `@ : / ? # % [ ]` have to be percent-encoded"
)

_SECRET = ("password", "sslpassword")


@dataclass(frozen=True, slots=True)
class Target:
    """Which database: libpq's connection string (with the password) and what to call it.

    `timeout` is the longest that a statement may take, in seconds. `schema` is the schema of the
    registry once that is settled; empty, it is looked for along the search path.
    """

    conninfo: str = field(repr=False)
    shown: str
    timeout: float
    schema: str = ""


def target(url: str, timeout: float) -> Target:
    """Reads a ``postgresql://`` URL. Raises StoreError; no message shows the URL's password.

    Source: PostgreSQL documentation, "Connection URIs".
    """
    try:
        params = conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        raise StoreError(_UNREADABLE) from None
    host, port, name = (str(params.get(key) or "") for key in ("host", "port", "dbname"))
    if "@" in host + name or "/" in name or not re.fullmatch(r"[0-9,]*", port):
        raise StoreError(_UNREADABLE)
    shown = _shown(params)
    params.setdefault("connect_timeout", CONNECT_TIMEOUT)
    params.setdefault("application_name", "fleetgate")
    params.setdefault("tcp_user_timeout", int(timeout * GIVE_UP * 1000))
    params["client_encoding"] = "UTF8"
    text = conninfo.make_conninfo("", **{k: v for k, v in params.items() if v is not None})
    return Target(text, shown, timeout)


def without_password(text: str, where: Target) -> str:
    """A message of libpq, or of the database, without the password.

    Neither has a reason to say it but as a part of the connection string, so it is looked for as
    one: a password that happens to be an `e` must not be crossed out of every word, which would
    tell it. libpq masks nothing itself.
    """
    params = conninfo.conninfo_to_dict(where.conninfo)
    for key in _SECRET:
        if secret := params.get(key):
            text = text.replace(conninfo.make_conninfo("", **{key: secret}), f"{key}=***")
            for written in (str(secret), quote(str(secret), safe="")):
                text = text.replace(f":{written}@", ":***@")
    return text


def _shown(params: Mapping[str, Any]) -> str:
    """What to call the database: its name, and each host and port that libpq will try.

    What the URL leaves open comes from the environment (``PGHOST``, ``PGSERVICE``, ...).
    Source: PostgreSQL documentation, "Environment Variables", "Specifying Multiple Hosts".
    """
    known = {
        each.keyword.decode(): each.val.decode() for each in pq.Conninfo.get_defaults() if each.val
    }
    known |= {key: str(value) for key, value in params.items() if value}
    hosts, addresses, ports = (
        known.get(key, "").split(",") for key in ("host", "hostaddr", "port")
    )
    if not any(hosts + addresses) and "service" in params:
        hosts = [f"the host of service {params['service']}"]
    places = []
    for number in range(max(len(hosts), len(addresses))):
        name, address = (_at(each, number) for each in (hosts, addresses))
        # the address is what is dialled, whatever the name
        place = f"{name} ({address})" if name and address else name or address
        port = (_at(ports, number) if len(ports) > 1 else ports[0]) or "5432"
        places.append(f"{place or 'the local socket'}:{port}")
    return f"database `{known.get('dbname') or known.get('user', '')}` on {', '.join(places)}"


def _at(values: list[str], number: int) -> str:
    return values[number] if number < len(values) else ""

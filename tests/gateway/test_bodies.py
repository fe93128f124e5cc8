"""Bodies of requests: how large one may be, and all of them together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, MutableMapping
from typing import Any

import pytest

from fleetgate.domain.limits import Limits
from fleetgate.domain.policy import IDENTITY, Policies, compile_policies, parse
from fleetgate.errors import RequestEntityTooLargeException, ServiceUnavailableException
from fleetgate.gateway import large_bodies
from fleetgate.gateway.bodies import MAX_BODY, MAX_LARGE, Bodies, Body
from fleetgate.operations.caller import Caller

PIECE = bytes(1 << 16)


def sent(pieces: Iterable[bytes]) -> Body:
    """A body that comes in these pieces."""
    left = [*pieces, b""]

    async def receive() -> MutableMapping[str, Any]:
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return Body(receive, awaited=False)


def of(size: int) -> list[bytes]:
    return [PIECE] * (size // len(PIECE)) + [bytes(size % len(PIECE))]


def read(bodies: Bodies, body: Body, limit: int = MAX_BODY) -> bytes:
    return asyncio.run(bodies.read(body, limit))


def test_a_body_may_have_so_many_bytes() -> None:
    bodies = Bodies()
    assert len(read(bodies, sent(of(MAX_BODY)))) == MAX_BODY
    with pytest.raises(RequestEntityTooLargeException, match=f"larger than {MAX_BODY} bytes"):
        read(bodies, sent(of(MAX_BODY + 1)))
    assert (bodies.unverified, bodies.large) == (0, 0)


def test_every_piece_that_is_kept_is_digested() -> None:
    pieces: list[bytes] = []
    body = asyncio.run(Bodies().read(sent([b"ab", b"c"]), MAX_BODY, pieces.append))
    assert (body, b"".join(pieces)) == (b"abc", b"abc")


def test_a_larger_one_is_counted_until_its_answer() -> None:
    bodies, limit = Bodies(), 3 * MAX_BODY
    body = sent(of(limit))
    assert len(read(bodies, body, limit)) == limit
    assert (bodies.unverified, bodies.large) == (0, limit)
    bodies.release(body)
    assert bodies.large == 0
    body = sent(of(limit + 1))
    with pytest.raises(RequestEntityTooLargeException, match=f"larger than {limit} bytes"):
        read(bodies, body, limit)
    assert bodies.large == 0


def test_all_larger_ones_together_have_a_bound() -> None:
    bodies, limit = Bodies(), MAX_LARGE // 2
    kept = [sent(of(limit)) for _ in range(2)]
    for body in kept:
        read(bodies, body, limit)
    assert read(bodies, sent(of(MAX_BODY)), limit)  # others go on
    late = sent(of(limit))
    with pytest.raises(ServiceUnavailableException, match="is working on request bodies"):
        read(bodies, late, limit)
    bodies.release(late)
    assert bodies.large == 2 * limit
    bodies.release(kept[0])
    read(bodies, sent(of(limit)), limit)


def caller(*actions: str) -> Caller:
    return Caller("1" * 12, "arn", "AIDA", "AKIA", policies(*actions))


def policies(*actions: str) -> Policies:
    listed = ",".join(f'"{action}"' for action in actions)
    text = (
        f'{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":[{listed}],'
        '"Resource":"arn:aws:lambda:*:*:function:mine"}}'
    )
    return compile_policies([("p", parse(text, IDENTITY))], {})


ROOT = Caller("1" * 12, "arn", "1" * 12, "AKIA")


@pytest.mark.parametrize(
    ("operation", "who", "room"),
    [
        ("CreateFunction", ROOT, 70_953_644),
        ("UpdateFunctionCode", ROOT, 70_953_644),
        ("Invoke", ROOT, 6_291_456),
        ("UpdateFunctionConfiguration", ROOT, MAX_BODY),
        ("CreateFunction", caller("lambda:CreateFunction"), 70_953_644),
        ("CreateFunction", caller("lambda:Create*"), 70_953_644),
        ("CreateFunction", caller("lambda:UpdateFunctionCode", "iot:*"), MAX_BODY),
        ("Invoke", caller("lambda:InvokeFunction"), 6_291_456),
        ("Invoke", caller("lambda:Invoke"), MAX_BODY),
    ],
)
def test_who_may_not_anyway_has_no_more_room_than_others(
    operation: str, who: Caller, room: int
) -> None:
    """The zip of Lambda's quota in base64, and a megabyte for the rest."""
    assert large_bodies.room(Limits(), who, operation) == room

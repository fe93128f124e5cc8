from __future__ import annotations

import pytest

from fleetgate.gateway.lifetime import Lifetime


def test_a_connection_has_to_be_admitted_in_time() -> None:
    lifetime = Lifetime(100, 10)
    assert lifetime.ends_at == 110
    assert lifetime.verdict(109) is None
    assert lifetime.verdict(110) == (0x80, "not connected in time")
    lifetime.heard = 109  # what comes before CONNECT does not move the deadline
    assert lifetime.ends_at == 110


@pytest.mark.parametrize(
    ("valid_until", "heard", "ends_at", "reason"),
    [(1000, 100, 190, 0x8D), (1000, 200, 290, 0x8D), (150, 100, 150, 0x87), (150, 140, 150, 0x87)],
)
def test_an_admitted_client_has_to_be_heard_and_valid(
    valid_until: float, heard: float, ends_at: float, reason: int
) -> None:
    """MQTT 5.0 section 3.1.2.10."""
    lifetime = Lifetime(100, 10)
    lifetime.admit(60, valid_until)
    lifetime.heard = heard
    assert lifetime.ends_at == ends_at
    assert lifetime.verdict(ends_at - 1) is None
    verdict = lifetime.verdict(ends_at)
    assert verdict is not None
    assert verdict[0] == reason
    assert lifetime.is_expired(ends_at) is (reason == 0x87)

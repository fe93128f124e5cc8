"""wire.timestamps: RFC 3339 section 5.6, RFC 9110 section 5.6.7, and SigV4's basic form."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.wire import timestamps

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02T03:04:05Z", MOMENT),
        ("2026-01-02T03:04:05.678Z", MOMENT + 0.678),
        ("2026-01-02T03:04:05.678000000Z", MOMENT + 0.678),
        ("2026-01-02T05:04:05+02:00", MOMENT),
        ("2026-01-01T21:34:05-05:30", MOMENT),
        ("1969-12-31T23:59:59Z", -1),
    ],
)
def test_iso8601_is_read(text: str, moment: float) -> None:
    assert timestamps.from_iso8601(text) == pytest.approx(moment, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "2026-02-30T00:00:00Z",
        "2026-01-02T24:00:00Z",
        "0000-01-01T00:00:00Z",
        "２026-01-02T03:04:05Z",
        "2026-01-02T03:04:05Z\n",
    ],
)
def test_what_is_not_iso8601_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        timestamps.from_iso8601(text)


@pytest.mark.parametrize(
    "text",
    ["Fri, 02 Jan 2026 03:04:05 GMT", formatdate(MOMENT)],
)
def test_an_http_date_is_read(text: str) -> None:
    assert timestamps.from_http_date(text) == MOMENT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02 Jan 2026 03:04:05 GMT",
        "Fri, 02 Jax 2026 03:04:05 GMT",
        "Fri, 31 Feb 2026 03:04:05 GMT",
        "Fri, 02 Jan 2026 03:04:05 CET",
    ],
)
def test_what_is_no_http_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        timestamps.from_http_date(text)


@pytest.mark.parametrize(
    "text", ["", "20260102T030405", "2026-01-02T03:04:05Z", "20260230T000000Z"]
)
def test_what_is_not_of_the_basic_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        timestamps.from_basic(text)


@given(seconds=st.integers(int(timestamps.EARLIEST), int(timestamps.LATEST)))
def test_what_is_written_is_read_again(seconds: int) -> None:
    assert timestamps.from_iso8601(timestamps.to_iso8601(seconds)) == seconds
    assert timestamps.from_http_date(timestamps.to_http_date(seconds)) == seconds
    assert timestamps.from_basic(timestamps.to_basic(seconds)) == seconds

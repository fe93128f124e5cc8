"""Timestamps as they travel: ISO 8601, RFC 822 and epoch seconds.

Inside, a moment is always a float: seconds since 1970-01-01T00:00:00Z.

Source: Smithy specification, "timestampFormat": ``date-time`` (RFC 3339 section 5.6),
``http-date`` (RFC 9110 section 5.6.7, IMF-fixdate), ``epoch-seconds`` with an optional fraction.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

EARLIEST = datetime(1, 1, 1, tzinfo=UTC).timestamp()
LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()

_ISO8601 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d{1,9})?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII
)
_BASIC = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z", re.ASCII)
_HTTP_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) "
    r"(?:GMT|-0000)",  # `-0000` is how Python's and botocore's `formatdate` write it
    re.ASCII,
)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def from_iso8601(text: str) -> float:
    """``2026-01-02T03:04:05.678Z`` or with an offset. Raises ValueError."""
    match = _ISO8601.fullmatch(text)
    if match is None:
        raise ValueError("not a date-time of RFC 3339")
    fraction = float(match[7] or 0)
    offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0)).total_seconds()
    moment = _seconds(*(int(match[group]) for group in range(1, 7))) + fraction
    return moment + offset if match[8] == "-" else moment - offset


@lru_cache(maxsize=64)  # the requests of a second have the same
def from_basic(text: str) -> float:
    """``20260102T030405Z``, the form Signature Version 4 uses. Raises ValueError."""
    match = _BASIC.fullmatch(text)
    if match is None:
        raise ValueError("not of the form YYYYMMDDTHHMMSSZ")
    return _seconds(*map(int, match.groups()))


def from_http_date(text: str) -> float:
    """``Fri, 02 Jan 2026 03:04:05 GMT``. Raises ValueError."""
    match = _HTTP_DATE.fullmatch(text)
    if match is None or match[2] not in _MONTHS:
        raise ValueError("not an HTTP date")
    month = _MONTHS.index(match[2]) + 1
    return _seconds(int(match[3]), month, int(match[1]), *(int(match[i]) for i in (4, 5, 6)))


def to_iso8601(moment: float) -> str:
    """The form of :func:`from_iso8601`, with milliseconds. Raises as :func:`to_basic`."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def to_http_date(moment: float) -> str:
    """The form of :func:`from_http_date`. Raises as :func:`to_basic`."""
    at = datetime.fromtimestamp(moment, UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} GMT"
    )


def to_basic(moment: float) -> str:
    """The form of :func:`from_basic`. Raises OverflowError or ValueError out of range."""
    at = datetime.fromtimestamp(moment, UTC)
    return f"{at.year:04}{at:%m%dT%H%M%SZ}"  # `%Y` does not pad


def _seconds(*fields: int) -> float:
    year, month, day, hour, minute, second = fields
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()

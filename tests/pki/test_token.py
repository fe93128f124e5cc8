"""Ownership tokens: what they prove, and that nothing else proves it."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetgate.errors import InvalidToken
from fleetgate.pki import token
from fleetgate.pki.token import Ownership

KEY = bytes(range(32))
NONCE = b"twelve bytes"
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CLAIMS = Ownership("123456789012", "eu-central-1", "ab" * 32, NOW + timedelta(hours=1))
TEXT = token.seal(KEY, CLAIMS, NONCE)


def opened(
    text: str, account: str = CLAIMS.account, region: str = CLAIMS.region, now: datetime = NOW
) -> Ownership:
    return token.open_(KEY, text, account=account, region=region, now=now)


def test_a_token_gives_back_what_was_sealed() -> None:
    assert opened(TEXT) == CLAIMS


def test_a_token_is_deterministic_for_a_nonce_and_differs_for_another() -> None:
    assert token.seal(KEY, CLAIMS, NONCE) == TEXT
    assert token.seal(KEY, CLAIMS, b"another one.") != TEXT


def test_a_token_is_safe_in_urls_and_json_and_shorter_than_512_characters() -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{100,512}", TEXT)


def test_a_token_hides_what_it_carries() -> None:
    assert b"eu-central" not in token._from_text(TEXT)
    assert bytes.fromhex(CLAIMS.certificate_id) not in token._from_text(TEXT)


@pytest.mark.parametrize(
    ("account", "region", "now", "message"),
    [
        ("000000000000", CLAIMS.region, NOW, "another account or region than account 000000000000"),
        (CLAIMS.account, "us-east-1", NOW, "another account or region"),
        (CLAIMS.account, CLAIMS.region, CLAIMS.expires_at, "expired at 2026-11-20T13:00:00Z"),
        (CLAIMS.account, CLAIMS.region, NOW + timedelta(days=9), "expired"),
    ],
)
def test_a_foreign_or_expired_token_is_refused(
    account: str, region: str, now: datetime, message: str
) -> None:
    with pytest.raises(InvalidToken, match=message):
        opened(TEXT, account, region, now)


def test_a_token_lives_until_the_last_moment() -> None:
    assert opened(TEXT, now=NOW + timedelta(seconds=3599, milliseconds=999)) == CLAIMS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # The wire text of AWS: github.com/aws/aws-iot-device-sdk-js-v2 issue 69.
        ("", r"^Certificate ownership token cannot be empty\.$"),
        ("x", "malformed"),
        ("gibberish!", "malformed"),
        (TEXT + "=", "malformed"),
        (TEXT[:-1], "malformed"),
        ("Ag" + TEXT[2:], "malformed"),  # version 2
        ("A" * 513, "at most 512 characters, not 513"),
        ("ü" * 128, "malformed"),
        (TEXT[:40] + ("A" if TEXT[40] != "A" else "B") + TEXT[41:], "not made by this server"),
        (token.seal(b"k" * 32, CLAIMS, NONCE), "not made by this server"),
    ],
)
def test_a_text_that_is_no_token_is_refused_with_its_reason(text: str, message: str) -> None:
    with pytest.raises(InvalidToken, match=message):
        opened(text)


@given(at=st.integers(0, len(TEXT) - 1), new=st.characters(max_codepoint=0x17F))
def test_no_character_of_a_token_can_be_changed(at: int, new: str) -> None:
    changed = TEXT[:at] + new + TEXT[at + 1 :]
    if changed == TEXT:
        assert opened(changed) == CLAIMS
    else:
        with pytest.raises(InvalidToken):
            opened(changed)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,520}", fullmatch=True))
@example("\ud800")
def test_any_text_raises_only_invalid_token(text: str) -> None:
    with pytest.raises(InvalidToken):
        opened(text)


@given(
    account=st.from_regex(r"[0-9]{12}", fullmatch=True),
    region=st.from_regex(r"[a-z0-9-]{1,30}", fullmatch=True),
    digest=st.binary(min_size=32, max_size=32),
    expires_at=st.datetimes(datetime(2020, 1, 1), datetime(2200, 1, 1)).map(
        lambda each: each.replace(microsecond=0, tzinfo=UTC)
    ),
    nonce=st.binary(min_size=12, max_size=12),
)
def test_every_claim_survives(
    account: str, region: str, digest: bytes, expires_at: datetime, nonce: bytes
) -> None:
    claims = Ownership(account, region, digest.hex(), expires_at)
    text = token.seal(KEY, claims, nonce)
    before = expires_at - timedelta(seconds=1)
    assert token.open_(KEY, text, account=account, region=region, now=before) == claims


@pytest.mark.parametrize(
    ("key", "claims", "nonce"),
    [
        (b"short", CLAIMS, NONCE),
        (KEY, CLAIMS, b"short"),
        (KEY, Ownership("1", "r", "ab", NOW), NONCE),
        (KEY, Ownership("1\0", "r", "ab" * 32, NOW), NONCE),
        (KEY, Ownership("1", "r" * 400, "ab" * 32, NOW), NONCE),
    ],
)
def test_arguments_that_do_not_fit_are_refused(key: bytes, claims: Ownership, nonce: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        token.seal(key, claims, nonce)

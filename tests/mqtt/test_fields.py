from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import ProtocolError
from fleetgate.mqtt import fields


# MQTT 5.0 table 1-1: the bounds of each size of a variable byte integer.
@pytest.mark.parametrize(
    ("value", "packed"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ],
)
def test_a_variable_byte_integer_has_the_form_of_table_1_1(value: int, packed: str) -> None:
    assert fields.pack_varint(value).hex() == packed
    assert fields.read_varint(bytes.fromhex(packed), 0) == (value, len(packed) // 2)


# MQTT-1.5.5-1 (shortest form), 1.5.5 (four bytes at most).
@pytest.mark.parametrize("packed", ["8000", "ff00", "80808000", "8080808001", "80", ""])
def test_a_bad_variable_byte_integer_is_malformed(packed: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        fields.read_varint(bytes.fromhex(packed), 0)
    assert caught.value.reason == 0x81


@pytest.mark.parametrize("value", [-1, 268_435_456])
def test_an_integer_out_of_range_is_not_packed(value: int) -> None:
    with pytest.raises(ProtocolError):
        fields.pack_varint(value)
    with pytest.raises(ProtocolError):
        fields.pack_integer(value, 2)


# MQTT 5.0 section 1.5.4, MQTT-1.5.4-1 (surrogates), -2 (U+0000); RFC 3629 section 3 and 10.
@pytest.mark.parametrize(
    "raw",
    [b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\0", b"a\0b", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xff"],
)
def test_a_string_that_is_not_strict_utf8_is_malformed(raw: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        fields.read_string(len(raw).to_bytes(2, "big") + raw, 0)
    assert caught.value.reason == 0x81


# MQTT-1.5.4-3: U+FEFF is an ordinary character and must not be stripped.
def test_a_byte_order_mark_stays() -> None:
    assert fields.read_string(b"\x00\x03\xef\xbb\xbf", 0) == ("\ufeff", 5)
    assert fields.pack_string("\ufeff") == b"\x00\x03\xef\xbb\xbf"


@pytest.mark.parametrize("value", ["\0", "\ud800", "a" * 65_536])
def test_a_string_that_cannot_be_sent_is_refused(value: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        fields.pack_string(value)
    assert caught.value.reason == 0x81


@given(st.binary(max_size=6), st.integers(0, 6))
def test_reading_past_the_end_is_malformed_and_nothing_else(body: bytes, at: int) -> None:
    for read in (
        fields.read_byte,
        fields.read_two,
        fields.read_four,
        fields.read_varint,
        fields.read_binary,
        fields.read_string,
        fields.read_pair,
    ):
        try:
            _, end = read(body, at)
        except ProtocolError as error:
            reason, end = error.reason, len(body)
        else:
            reason = 0x81
            assert at < end
        assert reason == 0x81
        assert end <= len(body)


def test_shown_cuts_and_cleans_what_goes_into_a_message() -> None:
    assert fields.shown("a/b") == "`a/b`"
    assert fields.shown("a\n\0\ud800") == "`a\ufffd\ufffd\ufffd`"
    assert fields.shown("x" * 81) == "`" + "x" * 80 + "...`"

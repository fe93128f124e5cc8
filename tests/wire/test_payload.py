"""Payloads of the MQTT operations, well-formed and hostile."""

import contextlib

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import InvalidPayloadException
from fleetgate.wire import payload

MAPS = st.dictionaries(
    st.text(max_size=8), st.text(max_size=8) | st.dictionaries(st.text(), st.text(), max_size=3)
)


@given(MAPS, st.sampled_from(payload.FORMATS))
def test_what_is_encoded_decodes_to_the_same(value: dict[str, object], name: str) -> None:
    try:
        encoded = payload.encode(name, value)
    except UnicodeEncodeError:  # a lone surrogate is not text; JSON and CBOR both refuse it
        return
    if value:
        assert payload.decode(name, encoded) == value


@given(st.binary(max_size=200), st.sampled_from(payload.FORMATS))
def test_any_bytes_decode_or_raise_the_one_error(data: bytes, name: str) -> None:
    with contextlib.suppress(InvalidPayloadException):
        assert isinstance(payload.decode(name, data), dict)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"[]", "expected is an object"),
        (b"null", "expected is an object"),
        (b'{"a":', "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"a":' * 100_000, "not valid JSON"),
        (b'{"a":' * 20 + b"1" + b"}" * 20, "nested deeper than 16"),
    ],
)
def test_broken_json_is_named(data: bytes, words: str) -> None:
    with pytest.raises(InvalidPayloadException, match=words):
        payload.decode("json", data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\x80", "expected is an object"),
        (b"\x81" * 100_000, "nesting depth"),
        (b"\xa1\x61a" * 50_000, "nesting depth"),
        # declared lengths far beyond the input (RFC 8949 section 10)
        (b"\x9b" + b"\xff" * 8, "not valid CBOR"),
        (b"\x5b\x7f" + b"\xff" * 7, "not valid CBOR"),
        (b"\x7b\x00\x00\x00\x7f\xff\xff\xff\xff", "not valid CBOR"),
        (b"\xbb\x00\x00\x00\x7f\xff\xff\xff\xff", "not valid CBOR"),
        (b"\xa0\xa0", "bytes behind"),
        (b"\xa1\x61a\xc2\x41\x01", "semantic tag"),  # a big number
        (b"\xa1\x61a\xd8\x23\x65(a+)+", "semantic tag"),  # a regular expression
        (b"\xa1\x61a\xd8\x1c\x81\xd8\x1d\x00", "semantic tag"),  # a cycle
        (b"\xa1\x61a\xd9\x30\x39\x00", "semantic tag"),  # nobody's tag
        (b"\xa1\x01\x02", "expected at least|no text|key"),
    ],
)
def test_broken_cbor_is_named(data: bytes, words: str) -> None:
    with pytest.raises(InvalidPayloadException, match=words):
        payload.decode("cbor", data)


def test_cbor_of_indefinite_length_is_read() -> None:
    assert payload.decode("cbor", b"\xbf\x61a\x7f\x61b\x61c\xff\xff") == {"a": "bc"}


def test_cbor_answers_have_definite_lengths_and_text() -> None:
    # statusCode 500 is `19 01F4`, an unsigned integer (RFC 8949 section 3.1)
    assert payload.encode("cbor", {"statusCode": 500}) == b"\xa1\x6astatusCode\x19\x01\xf4"
    assert cbor2.loads(payload.encode("cbor", {"a": None, "b": {"c": "d"}})) == {"b": {"c": "d"}}

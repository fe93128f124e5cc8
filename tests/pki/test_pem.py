"""PEM text: one block, nothing after it."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.pki import pem

BLOCK = pem.encode("CERTIFICATE", bytes(range(100)))


def test_the_form_is_lf_64_columns_and_a_newline_at_the_end() -> None:
    lines = BLOCK.split("\n")
    assert lines[0] == "-----BEGIN CERTIFICATE-----"
    assert [len(line) for line in lines[1:-2]] == [64, 64, 8]
    assert lines[-2:] == ["-----END CERTIFICATE-----", ""]


@given(st.binary(max_size=300))
def test_decode_undoes_encode(content: bytes) -> None:
    assert pem.decode(pem.encode("X", content), "X") == content


@pytest.mark.parametrize(
    "text",
    [
        BLOCK.replace("\n", "\r\n"),
        "\n \n" + BLOCK + "\n\t \r\n",
        "Certificate:\n    Data:\n" + BLOCK,  # openssl x509 -text
        BLOCK.rstrip("\n"),
        BLOCK.replace("-----\n", "-----  \n", 1),
    ],
)
def test_what_other_programs_write_is_read(text: str) -> None:
    assert pem.decode(text, "CERTIFICATE") == bytes(range(100))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no `-----BEGIN CERTIFICATE-----` line"),
        ("gibberish", "no `-----BEGIN CERTIFICATE-----` line"),
        (BLOCK * 2, "2 PEM blocks"),
        (BLOCK + "tail", "text after the PEM block: `tail`"),
        (BLOCK.replace("CERTIFICATE", "PRIVATE KEY"), "is a `PRIVATE KEY`, not a `CERTIFICATE`"),
        (BLOCK.replace("END CERTIFICATE", "END OTHER"), "broken"),
        (BLOCK.replace("-----END", "----END"), "broken"),
        (BLOCK.replace("A", "*", 1), "broken"),
        (textwrap.dedent(BLOCK).replace("\n", "\\n"), "broken"),
        ("-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----", "not base64"),
        ("-----BEGIN CERTIFICATE-----\nA=AA\n-----END CERTIFICATE-----", "not base64"),
    ],
)
def test_anything_else_is_refused_with_its_rule(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pem.decode(text, "CERTIFICATE")


@given(st.text(max_size=200))
def test_any_text_raises_only_value_error(text: str) -> None:
    for each in (text, f"-----BEGIN X-----\n{text}-----END X-----"):
        try:
            pem.decode(each, "X")
        except ValueError:
            continue

"""A claim in a file and in QR codes: there and back, and everything that is refused."""

from __future__ import annotations

import dataclasses
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import segno
import zxingcpp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.device import claim as claims
from fleetgate.device import claim_code
from fleetgate.device.claim import Claim, ClaimDamaged, ClaimExpired
from fleetgate.device.errors import StorageRefused

NOW = datetime(2026, 11, 21, 20, 20, tzinfo=UTC)


def claim_for(key: CertificateIssuerPrivateKeyTypes, **changes: Any) -> Claim:
    """A claim with `key`, of an authority of its own."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a claim")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(7)
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(minutes=5))
    certificate = builder.public_key(key.public_key()).sign(key, hashes.SHA256())
    traditional = PrivateFormat.TraditionalOpenSSL
    made = Claim(
        certificate.public_bytes(Encoding.PEM).decode(),
        key.private_bytes(Encoding.PEM, traditional, NoEncryption()).decode(),
        NOW + timedelta(minutes=5),
        "iot.example.com",
        8883,
        "lamps",
        certificate.public_bytes(Encoding.PEM).decode(),
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def rsa_claim() -> Claim:
    """As AWS and Fleetgate make them."""
    return claim_for(rsa.generate_private_key(65537, 2048))


@pytest.fixture(scope="module")
def claim() -> Claim:
    return claim_for(ec.generate_private_key(ec.SECP256R1()))


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


# --- the file ---


def test_what_is_written_is_read(claim: Claim, tmp_path: Path) -> None:
    for each in (claim, dataclasses.replace(claim, ca_pem=None)):
        file = written(tmp_path / "claim.json", claims.dump(each))
        assert claims.load(file, NOW.timestamp()) == each
    assert "PRIVATE KEY" not in repr(claim)


def test_a_claim_that_has_expired_is_refused_with_both_times(claim: Claim, tmp_path: Path) -> None:
    file = written(tmp_path / "claim.json", claims.dump(claim))
    end = NOW.timestamp() + 300
    assert claims.load(file, end - 0.1) == claim
    for late, ago in ((0, "0 s"), (90, "90 s"), (600, "10 min"), (86400, "24 h")):
        with pytest.raises(ClaimExpired) as caught:
            claims.load(file, end + late)
        assert f"`{file}` has expired at 2026-11-21T20:25:00Z, {ago} before" in str(caught.value)
        assert "ask for a new one with `fleetgate claim`" in str(caught.value)
        assert not caught.value.retry


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_claim_that_others_may_read_is_refused(claim: Claim, tmp_path: Path, mode: int) -> None:
    file = written(tmp_path / "claim.json", claims.dump(claim), mode)
    with pytest.raises(StorageRefused, match="others may read"):
        claims.load(file, NOW.timestamp())


def test_a_claim_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageRefused, match=r"cannot read the claim `.*/claim\.json`: No such"):
        claims.load(tmp_path / "claim.json")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "`version` is 2, and this program reads 1"),
        ({"version": None}, "`version` is None"),
        ({"certificatePem": None}, "`certificatePem` is no text"),
        ({"certificatePem": "x"}, "the certificate cannot be read"),
        ({"privateKey": ""}, "`privateKey` is no text"),
        ({"privateKey": "x"}, "the private key cannot be read"),
        ({"endpoint": "a b"}, "'a b' is no host name"),
        ({"port": "8883"}, "`port` is '8883', no number"),
        ({"port": True}, "`port` is True, no number"),
        ({"port": 0}, "a server's port is 1 to 65535"),
        ({"template": "a b"}, "`a b` cannot be the name of a provisioning template"),
        ({"expiration": "soon"}, "`expiration` is no date and time"),
        ({"expiration": "2026-11-21T20:25:00"}, "`expiration` does not say its time zone"),
        ({"caPem": 7}, "`caPem` is neither text nor null"),
        ({"caPem": "x"}, "the authorities cannot be read"),
    ],
)
def test_what_is_wrong_with_a_claim_is_said(
    claim: Claim, changes: dict[str, Any], said: str
) -> None:
    values = json.loads(claims.dump(claim)) | changes
    with pytest.raises(ClaimDamaged) as caught:
        claims.parse(json.dumps(values).encode(), "`F`")
    assert str(caught.value).startswith("`F`: ")
    assert said in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{", b"[" * 60000, b"FLEETGATE:", b"x"])
def test_what_is_no_claim_is_refused(content: bytes) -> None:
    with pytest.raises(ClaimDamaged, match="`F`"):
        claims.parse(content, "`F`")


def test_a_claim_is_not_read_for_ever(tmp_path: Path) -> None:
    file = written(tmp_path / "claim.json", " " * 65537)
    with pytest.raises(ClaimDamaged, match="more than 65536 bytes"):
        claims.load(file)


def test_a_claim_for_another_key_is_refused(claim: Claim, rsa_claim: Claim) -> None:
    mixed = dataclasses.replace(claim, private_key_pem=rsa_claim.private_key_pem)
    with pytest.raises(ClaimDamaged, match="the certificate is for another key"):
        claims.parse(claims.dump(mixed).encode(), "`F`")


def test_the_files_of_a_claim_are_in_memory_and_private(claim: Claim) -> None:
    with claim.files() as (credentials, ca):
        paths = [Path(credentials.certificate), Path(credentials.key), ca]
        texts = [claim.certificate_pem, claim.private_key_pem, claim.ca_pem]
        for path, text in zip(paths, texts, strict=True):
            assert path is not None
            for _ in range(2):  # each reader begins at the beginning
                assert path.read_text() == text
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any(path is not None and path.exists() for path in paths)
    with dataclasses.replace(claim, ca_pem=None).files() as (_, ca):
        assert ca is None


# --- codes ---


@given(st.binary(max_size=50))
def test_base45_there_and_back(data: bytes) -> None:
    assert claim_code._from_base45(claim_code.base45(data)) == data


@pytest.mark.parametrize(
    ("plain", "text"),
    # RFC 9285 section 4.3
    [(b"AB", "BB8"), (b"Hello!!", "%69 VD92EX0"), (b"base-45", "UJCLQE7W581"), (b"", "")],
)
def test_base45_is_that_of_the_rfc(plain: bytes, text: str) -> None:
    assert claim_code.base45(plain) == text


@pytest.mark.parametrize("text", ["A", "ABCD", "GGW", ":::", "::"])  # RFC 9285 section 6
def test_what_is_no_base45_is_refused(text: str) -> None:
    with pytest.raises(ClaimDamaged):
        claim_code._from_base45(text)


def test_a_code_has_as_much_room_as_is_said() -> None:
    for version, room in enumerate(claim_code.CAPACITIES, 1):
        if version in (1, 9, 10, 22, 26, 27, 40):
            made = [
                segno.make("A" * size, error="l", mode="alphanumeric", micro=False).version
                for size in (room, room + 1)
                if size <= claim_code.CAPACITIES[-1]
            ]
            assert made == [version, version + 1][: len(made)]


@pytest.mark.parametrize("version", [10, 22])
def test_codes_there_and_back(claim: Claim, rsa_claim: Claim, version: int) -> None:
    for each in (claim, rsa_claim, dataclasses.replace(rsa_claim, ca_pem=None)):
        texts = claim_code.encode(each, version)
        assert max(map(len, texts)) <= claim_code.CAPACITIES[version - 1]
        read = claims.parse("\n".join([*reversed(texts), texts[0], ""]).encode(), "F")
        same = load_pem_private_key(read.private_key_pem.encode(), None)
        expected = load_pem_private_key(each.private_key_pem.encode(), None)
        assert same.private_bytes(*PKCS8) == expected.private_bytes(*PKCS8)
        assert dataclasses.replace(read, private_key_pem="") == dataclasses.replace(
            each, private_key_pem=""
        )


PKCS8 = Encoding.DER, PrivateFormat.PKCS8, NoEncryption()


def test_a_claim_takes_few_codes_that_fit_a_screen(rsa_claim: Claim) -> None:
    assert len(claim_code.encode(rsa_claim, claim_code.LARGEST)) <= 2
    assert claim_code.size_of(claim_code.LARGEST) == (113, 57)


def test_codes_that_do_not_make_a_claim(claim: Claim, rsa_claim: Claim) -> None:
    texts, others = claim_code.encode(rsa_claim, 10), claim_code.encode(claim, 10)
    assert len(texts) > 2
    first = texts[0]
    damaged = first[:-2] + ("0" if first[-2] != "0" else "1") + ":"
    for lines, said in (
        (texts[1:-1], f"of {len(texts)} codes 1, {len(texts)} is missing"),
        ([first, others[1]], "the codes are of different claims"),
        ([first.replace(":1/", ":9/")], f"code 9 of {len(texts)} cannot be"),
        ([first.replace(":1/", ":0/")], f"code 0 of {len(texts)} cannot be"),
        ([first, "something else"], "`something else` is not what a code of a claim says"),
        ([first[:-1]], "is not what a code of a claim says"),
        ([each.replace(each[10:18], "00000000") for each in texts], "checksum of the codes"),
        ([damaged, *texts[1:]], "scan"),
    ):
        with pytest.raises(ClaimDamaged) as caught:
            claim_code.decode("\n".join(lines))
        assert said in str(caught.value)


@given(st.binary(max_size=200))
def test_codes_with_anything_in_them_are_refused(data: bytes) -> None:
    with pytest.raises(ClaimDamaged):
        claim_code._unpacked(data)


def scanned(lines: list[str], scale: int = 3) -> list[str]:
    """What a scanner reads in what a terminal shows, by zxing."""
    rows = []
    for line in lines:
        blocks = line.removeprefix(claim_code.PAPER).removesuffix(claim_code.PLAIN)
        rows += [[each in upper for each in blocks] for upper in ("▀█", "▄█")]
    width, height = len(rows[0]) * scale, len(rows) * scale
    pixels = bytes(
        0 if dark else 255
        for row in rows
        for _ in range(scale)
        for dark in row
        for _ in range(scale)
    )
    image = memoryview(pixels).cast("B", (height, width))
    only = zxingcpp.BarcodeFormats(
        [zxingcpp.BarcodeFormat.QRCode]
    )  # it sees bar codes of four digits in some of them
    return [found.text for found in zxingcpp.read_barcodes(image, only)]


@pytest.mark.parametrize("version", [10, 22])
def test_a_scanner_reads_what_is_drawn(rsa_claim: Claim, version: int) -> None:
    text = claim_code.encode(rsa_claim, version)[0]
    lines = claim_code.draw(text)
    assert scanned(lines) == [text]
    columns, rows = claim_code.size_of(version)
    assert len(lines) <= rows
    assert len(lines[0]) - len(claim_code.PAPER + claim_code.PLAIN) <= columns


@pytest.mark.parametrize(
    ("columns", "rows", "version"),
    [(80, 24, 10), (65, 100, 10), (113, 57, 22), (112, 57, 21), (113, 55, 21), (300, 200, 22)],
)
def test_codes_fit_the_terminal_within_reason(columns: int, rows: int, version: int) -> None:
    assert claim_code.version_for(columns, rows) == version

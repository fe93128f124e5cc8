"""A claim in a file and in QR codes: there and back, and everything that is refused."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import stat
from collections.abc import Callable
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
from fleetgate.device import claim_code, claim_command, claim_screen
from fleetgate.device.claim import Claim, ClaimDamaged, ClaimExpired
from fleetgate.device.disk import Disk
from fleetgate.device.errors import BadRequest, StorageRefused

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
        ({"caPem": "ä"}, "the authorities cannot be read"),
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


def test_remarks_between_authorities_may_be_in_any_script(claim: Claim) -> None:
    assert claim.ca_pem is not None
    values = json.loads(claims.dump(claim)) | {
        "caPem": f"NetLock Arany (Főtanúsítvány)\n{claim.ca_pem}"
    }
    assert claims.parse(json.dumps(values).encode(), "`F`").ca_pem == values["caPem"]


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


# --- the files of `fleetgate claim --out` ---


class FullDisk(Disk):
    """Has room for two files; before it says so, `meanwhile` happens."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._room = 2
        self._meanwhile = meanwhile

    def write(self, descriptor: int, content: bytes) -> None:
        self._room -= 1
        if self._room < 0:
            self._meanwhile()
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(descriptor, content)


def theirs(directory: Path) -> dict[str, str]:
    """Files that may be anybody's, called as something temporary might be."""
    made = {}
    for name in ("claim.json.tmp", ".claim.json", "claim.key~", "claim.pem.new", ".tmp", "tmpx"):
        (directory / name).write_text(name)
        made[name] = name
    return made


def content_of(directory: Path) -> dict[str, str]:
    return {each.name: each.read_text() for each in directory.iterdir()}


def test_a_claim_that_cannot_be_written_takes_nothing_with_it(claim: Claim, tmp_path: Path) -> None:
    there = theirs(tmp_path)

    def replaced() -> None:
        """Somebody takes a file that was written just now away, and puts one of their own there."""
        (tmp_path / "claim.key").unlink()
        (tmp_path / "claim.key").write_text("mine")

    for meanwhile, left in ((lambda: None, {}), (replaced, {"claim.key": "mine"})):
        with claim_command._directory(tmp_path) as place:
            place._disk = FullDisk(meanwhile)
            with pytest.raises(StorageRefused, match=r"cannot write `.*claim.json`: No space left"):
                place.write(claim)
        assert content_of(tmp_path) == there | left


def test_a_file_that_appears_meanwhile_is_not_overwritten(claim: Claim, tmp_path: Path) -> None:
    there = theirs(tmp_path)
    with claim_command._directory(tmp_path) as place:
        (tmp_path / "ca.pem").write_text("mine")  # while the server is asked for a claim
        with pytest.raises(StorageRefused, match=r"cannot write `.*ca.pem`: File exists"):
            place.write(claim)
    assert content_of(tmp_path) == there | {"ca.pem": "mine"}


def test_a_directory_is_removed_again_by_who_made_it(tmp_path: Path) -> None:
    own = tmp_path / "a" / "b"
    with pytest.raises(ZeroDivisionError), claim_command._directory(own):
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(ZeroDivisionError), claim_command._directory(own):
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
    with pytest.raises(ZeroDivisionError), claim_command._directory(own):
        (own / "file").touch()
        1 / 0  # noqa: B018
    assert list(own.iterdir()) == [own / "file"]


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


def test_codes_are_made_for_the_terminal_as_soon_as_one_fits(rsa_claim: Claim) -> None:
    """On the usual 80 x 24 none does; what is above the bottom lines is out of sight there."""
    claim = dataclasses.replace(rsa_claim, expiration=datetime.now(UTC) + timedelta(seconds=20))
    small, large, smaller = (os.terminal_size(each) for each in ((80, 24), (100, 40), (60, 24)))
    # drawn small; made larger, and drawn; Enter; drawn when it was made smaller; done
    asked = [(small, ""), (large, ""), (large, "\n"), (smaller, " Q \n")]
    read, write = os.pipe()
    shown = io.StringIO()
    with os.fdopen(read) as stdin, os.fdopen(write, "w") as keyboard:

        def size() -> os.terminal_size:
            found, typed = asked.pop(0)
            keyboard.write(typed)
            keyboard.flush()
            return found

        claim_screen.show(claim, stdin, shown, size)
    assert asked == []
    begin, *screens = shown.getvalue().partition("\x1b[?1049l")[0].split("\x1b[H\x1b[2J")
    assert begin == "\x1b[?1049h"
    captions = [each.splitlines()[0].partition(",")[0] for each in screens]
    assert captions == ["code 1 of 4", "code 1 of 3", "code 2 of 3"]
    prompts = [each.splitlines()[-1] for each in screens]
    hint = "too small: 80 x 24, the code needs 65 x 35; make the letters smaller, or q: done "
    assert prompts[0] == hint
    assert prompts[1] == "Enter: the next code; q and Enter: done "
    assert prompts[2].startswith("too small: 60 x 24, ")  # what was scanned is still good
    texts = [scanned(each.splitlines()[1:-1])[0] for each in screens[1:]]
    assert texts == claim_code.encode(claim, claim_code.version_for(100, 38))[:2]


def test_codes_vanish_with_the_claim(claim: Claim) -> None:
    soon = dataclasses.replace(claim, expiration=datetime.now(UTC) + timedelta(seconds=0.2))
    read, write = os.pipe()
    shown = io.StringIO()
    with os.fdopen(read) as stdin, os.fdopen(write, "w"):
        claim_screen.show(soon, stdin, shown, lambda: os.terminal_size((120, 62)))
    assert shown.getvalue().endswith(", in 0 min 0 s\n")
    assert "\x1b[?1049lthe claim for the template `lamps` expires " in shown.getvalue()


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminals", "encoding", "term", "said"),
    [
        ((False, True), "utf-8", "xterm", "the standard input is none: use --out"),
        ((True, False), "utf-8", "xterm", "the standard output is none: use --out"),
        ((True, True), "utf-8", "dumb", "this one is `dumb`, as TERM says: use --out"),
        ((True, True), "latin-1", "xterm", "needs a terminal in UTF-8, and this one is in latin-1"),
        ((True, True), "utf-8", "xterm", None),
    ],
)
def test_codes_are_for_terminals_that_show_them(
    terminals: tuple[bool, bool], encoding: str, term: str, said: str | None
) -> None:
    kinds = [Terminal if each else io.TextIOWrapper for each in terminals]
    stdin, stdout = (kind(io.BytesIO(), encoding=encoding) for kind in kinds)
    if said is None:
        claim_screen.check(stdin, stdout, {"TERM": term})
    else:
        with pytest.raises(BadRequest, match=said):
            claim_screen.check(stdin, stdout, {"TERM": term})

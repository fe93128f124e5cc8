"""Keys of all kinds, and the requests they sign; also on a PKCS#11 token."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleetgate.device import keys
from fleetgate.device.errors import BadRequest
from fleetgate.device.keys import KeyKind
from tests.functions import softhsm
from tests.integration.server import environment


@pytest.mark.parametrize("kind", [each for each in get_args(KeyKind) if each != "RSA-4096"])
@pytest.mark.needs("openssl")
def test_a_key_signs_a_request_that_openssl_verifies(kind: KeyKind, tmp_path: Path) -> None:
    key = keys.make(kind)
    assert keys.kind_of(key.public_key()) == kind
    assert keys.load(keys.pem(key)).private_numbers() == key.private_numbers()
    request = tmp_path / "request.pem"
    request.write_text(keys.csr(key, keys.subject_of("CN=lamp,O=Example")))
    done = subprocess.run(
        ["openssl", "req", "-in", request, "-noout", "-verify", "-subject"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "OK" in done.stderr + done.stdout
    assert "CN = lamp, O = Example" in done.stdout or "O = Example, CN = lamp" in done.stdout


def test_a_subject_may_have_the_usual_names_and_in_any_case() -> None:
    text = "serialNumber=5,emailAddress=a@example,dnQualifier=q,title=t,givenName=g,surname=s,cn=c"
    oids = [each.oid.dotted_string for each in keys.subject_of(text)]
    assert oids == [
        *("2.5.4.3", "2.5.4.4", "2.5.4.42", "2.5.4.12", "2.5.4.46"),
        *("1.2.840.113549.1.9.1", "2.5.4.5"),
    ]
    assert keys.subject_of("serialNumber=5") == keys.subject_of("2.5.4.5=5")


@pytest.mark.parametrize("text", ["lamp", "", "CN", "CN=a,,O=b", "XX=1"])
def test_a_bad_subject_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="subject"):
        keys.subject_of(text)


def test_a_long_client_id_still_makes_a_name() -> None:
    (name,) = keys.common_name("ü" * 100)
    assert name.value == "ü" * 32


@pytest.mark.parametrize("content", [b"", b"gibberish", b"-----BEGIN PRIVATE KEY-----"])
def test_what_is_no_key_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        keys.load(content)


def test_other_keys_and_encrypted_ones_are_refused() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="Ed25519"):
        keys.load(pem)
    assert keys.kind_of(ec.generate_private_key(ec.SECP521R1()).public_key()) == "secp521r1"


ON_A_TOKEN = """
import sys
from pathlib import Path
from fleetgate.device import keys
from fleetgate.device.errors import StorageRefused
from fleetgate.device.identity import KeyOnToken

module, pin, wrong = map(Path, sys.argv[1:])
subject = keys.subject_of("CN=lamp")
for label in ("P-256", "P-384", "RSA-2048"):
    text, public_key = keys.csr_on_token(KeyOnToken(module, "card", label, pin), subject)
    assert keys.kind_of(public_key) == label
    print(text)
for key in (
    KeyOnToken(module, "card", "none", pin),
    KeyOnToken(module, "none", "P-256", pin),
    KeyOnToken(module, "card", "P-256", wrong),
    KeyOnToken(module, "card", "P-256", Path("/nowhere/pin")),
    KeyOnToken(Path("/nowhere.so"), "card", "P-256", pin),
):
    try:
        keys.csr_on_token(key, subject)
    except StorageRefused as error:
        print(error.message)
"""


@pytest.mark.needs("softhsm2-util")
def test_a_token_signs_requests(tmp_path: Path) -> None:
    """In a process of its own: SoftHSM reads its configuration once."""
    hsm = softhsm.make(tmp_path)
    hsm.add_token("card")
    made: dict[str, keys.PrivateKey] = {}
    for number, kind in enumerate(("P-256", "P-384", "RSA-2048")):
        made[kind] = keys.make(kind)  # type: ignore[arg-type]
        file = tmp_path / f"{kind}.pem"
        file.write_text(keys.pem(made[kind]))
        hsm.add_key("card", file, kind, f"0{number}")
    for name, pin in (("pin", softhsm.PIN), ("wrong", "000000")):
        (tmp_path / name).write_text(f"{pin}\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ON_A_TOKEN, softhsm.MODULE]
        + [str(tmp_path / name) for name in ("pin", "wrong")],
        env=environment(SOFTHSM2_CONF=str(hsm.configuration)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *requests, said = done.stdout.split("\n\n")
    for text, key in zip(requests, made.values(), strict=True):
        request = x509.load_pem_x509_csr(text.encode())
        assert request.is_signature_valid
        assert request.public_key() == key.public_key()
        assert request.subject.rfc4514_string() == "CN=lamp"
    no_key, no_token, no_pin, no_file, no_module = said.splitlines()
    about = f"the key `none` of the token `card` (`{softhsm.MODULE}`) cannot be used: NoSuchKey"
    assert no_key.startswith(about)
    assert "NoSuchToken" in no_token
    assert "PinIncorrect" in no_pin
    assert no_file.startswith("cannot read the PIN in `/nowhere/pin`")
    assert "`/nowhere.so`" in no_module

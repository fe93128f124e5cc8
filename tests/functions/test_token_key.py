"""`local-ca` with its key on a PKCS#11 token: SoftHSM, whose module runs in this process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fleetgate.functions import local_ca
from fleetgate.functions.target import Failure, FunctionError, Run
from fleetgate.functions.token_key import TokenKey
from tests.functions import authorities, softhsm
from tests.functions.authorities import NOW, Files, event
from tests.functions.softhsm import MODULE, PIN, SoftHsm

pytestmark = pytest.mark.needs("softhsm2-util")

KEYS: dict[str, Callable[[], authorities.Key]] = {
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    """The module reads its configuration when it is initialized, once for this process."""
    made = softhsm.make(tmp_path_factory.mktemp("softhsm"))
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(made.configuration)
    yield made
    del os.environ["SOFTHSM2_CONF"]
    if before is not None:
        os.environ["SOFTHSM2_CONF"] = before


@pytest.fixture(scope="module", params=list(KEYS))
def ca(request: pytest.FixtureRequest, hsm: SoftHsm, tmp_path_factory: Any) -> Files:
    """An authority whose key is on a token of its name, and in no file any more."""
    made = authorities.make(
        tmp_path_factory.mktemp(request.param), KEYS[request.param](), called=request.param
    )
    hsm.add_token(request.param)
    hsm.add_key(request.param, made.key_file, "ca")
    made.key_file.unlink()
    return made


def write_pin(directory: Path, pin: str = PIN) -> Path:
    file = directory / "pin"
    file.write_text(f"{pin}\n")
    file.chmod(0o600)
    return file


def function(ca: Files, pin: Path, /, **pkcs11: Any) -> local_ca.LocalCa:
    token = {
        "module": MODULE,
        "token": ca.certificate_file.stem,
        "key": "ca",
        "pin_file": str(pin),
        **pkcs11,
    }
    token = {name: value for name, value in token.items() if value is not None}
    return local_ca.from_options(
        "mine",
        {"certificate": ca.certificate_file.name, "pkcs11": token},
        ca.certificate_file.parent,
        now=lambda: NOW,
    )


async def sign(mine: local_ca.LocalCa, seconds: float = 5) -> Run:
    return await mine.invoke(event(authorities.request()), request_id="1", seconds=seconds)


async def sign_and_close(mine: local_ca.LocalCa) -> Run:
    try:
        return await sign(mine)
    finally:
        await mine.close()


def failure(mine: local_ca.LocalCa) -> FunctionError:
    with pytest.raises(FunctionError) as caught:
        asyncio.run(sign(mine))
    return caught.value


def test_the_token_signs(ca: Files, tmp_path: Path) -> None:
    for names in ({}, {"key_id": "01"}, {"key": None, "key_id": "01"}):
        mine = function(ca, write_pin(tmp_path), **names)
        (signed,) = authorities.certificates(asyncio.run(sign_and_close(mine)))
        signed.verify_directly_issued_by(ca.certificate)


def test_many_requests_at_a_time_are_signed_one_after_the_other(ca: Files, tmp_path: Path) -> None:
    async def many() -> list[Run]:
        # two functions over one module: what they do must not meet inside it
        both = [function(ca, write_pin(tmp_path)) for _ in range(2)]
        done = await asyncio.gather(*(sign(both[number % 2]) for number in range(12)))
        for each in both:
            await each.close()
        return done

    done = [authorities.certificates(run)[0] for run in asyncio.run(many())]
    assert len({each.serial_number for each in done}) == 12
    for signed in done:
        signed.verify_directly_issued_by(ca.certificate)


def test_a_token_that_went_and_came_back_signs_again(
    ca: Files, hsm: SoftHsm, tmp_path: Path
) -> None:
    mine, other = (function(ca, write_pin(tmp_path)) for _ in range(2))
    away = hsm.tokens.rename(hsm.tokens.with_name("away"))
    try:
        gone = failure(mine)
    finally:
        away.rename(hsm.tokens)
    assert gone.kind is Failure.UNREACHABLE
    token = ca.certificate_file.stem
    assert gone.message.startswith(
        f"function `mine`: the key `ca` of the token `{token}` does not sign: "
    )
    for each in (mine, other):  # the other's session was ended by starting anew
        authorities.certificates(asyncio.run(sign_and_close(each)))


def test_a_wrong_pin_is_not_tried_again_before_its_file_changes(
    ca: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = ca.certificate_file.stem
    pin_file = write_pin(tmp_path, "0000777")
    key = TokenKey(Path(MODULE), token, label="ca", key_id=b"", pin_file=pin_file)
    expected = f"the token `{token}` refuses the PIN in `{pin_file}` (PinIncorrect)"
    for _ in range(2):
        with pytest.raises(Exception, match="refuses the PIN") as caught:
            key.sign(b"text", "ECDSA" if token == "p384" else "SHA256_RSA_PKCS")
        assert str(caught.value).startswith(expected)
        assert "0000777" not in str(caught.value)
    with pytest.raises(ValueError, match=r"`pkcs11`: the token `.*` refuses the PIN"):
        function(ca, pin_file)
    write_pin(tmp_path)
    assert key.sign(b"text", "ECDSA" if token == "p384" else "SHA256_RSA_PKCS")
    key.close()
    assert "0000777" not in caplog.text
    assert PIN not in caplog.text


def test_a_token_that_does_not_answer_is_given_up_at_the_deadline(
    ca: Files, tmp_path: Path
) -> None:
    """The module is busy with a call that hangs, as one to a device without power does."""
    mine = function(ca, write_pin(tmp_path))
    busy, release = threading.Event(), threading.Event()

    def hang() -> None:
        assert mine._token is not None
        with mine._token._module.lock:
            busy.set()
            release.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    busy.wait(10)

    async def given_up() -> None:
        with pytest.raises(
            FunctionError, match=r"no signature by the key `ca` .* within 0.1 s"
        ) as e:
            await sign(mine, seconds=0.1)
        assert e.value.kind is Failure.TIMED_OUT
        release.set()
        authorities.certificates(await sign(mine))
        await mine.close()

    asyncio.run(given_up())
    thread.join()


def test_the_key_of_another_certificate_is_told(hsm: SoftHsm, tmp_path: Path) -> None:
    ca = authorities.make(tmp_path, called="stranger")
    hsm.add_token("stranger")
    authorities.write_key(tmp_path / "other", ec.generate_private_key(ec.SECP384R1()))
    hsm.add_key("stranger", tmp_path / "other", "ca")
    with pytest.raises(ValueError, match="`pkcs11`: the key `ca` of the token `stranger` is not"):
        function(ca, write_pin(tmp_path))
    hsm.add_key("stranger", ca.key_file, "ca", "02")
    with pytest.raises(ValueError, match="2 keys are called so; name one by `key_id`"):
        function(ca, write_pin(tmp_path))
    mine = function(ca, write_pin(tmp_path), key_id="02")
    authorities.certificates(asyncio.run(sign_and_close(mine)))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"module": None}, "`pkcs11.module` is required: a file is expected"),
    ({"module": "/no/module.so"}, "`pkcs11.module`: `/no/module.so` is not there"),
    ({"module": "/etc/hostname"}, "`pkcs11`: the PKCS#11 module `/etc/hostname` cannot be loaded"),
    ({"token": None}, "`pkcs11.token` is required: the label of a token is expected"),
    (
        {"token": "no"},
        "`pkcs11`: the key `ca` of the token `no` does not sign: NoSuchToken: No tok",
    ),
    ({"key": "no"}, "`pkcs11`: the key `no` of the token `p384` does not sign: NoSuchKey: no pri"),
    ({"key": None}, "`pkcs11.key` (a label) or `key_id` is required"),
    ({"key_id": "0x1"}, "`pkcs11.key_id`: hexadecimal bytes are expected, not `0x1`"),
    ({"pin_file": "no"}, "`pkcs11.pin_file`: `{dir}/no` cannot be read: No such file or directory"),
    (
        {"pin": "1234"},
        "`pkcs11.pin` is not an option; there are `key`, `key_id`, `module`, `pin_fil",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[str(wrong) for wrong, _ in WRONG])
@pytest.mark.parametrize("ca", ["p384"], indirect=True)
def test_a_wrong_option_is_told(
    wrong: dict[str, Any], message: str, ca: Files, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as caught:
        function(ca, write_pin(tmp_path), **wrong)
    expected = message.replace("{dir}", str(ca.certificate_file.parent))
    assert str(caught.value).startswith(expected)
    assert "1234" not in str(caught.value)


def test_a_pin_that_others_may_read_is_refused(tmp_path: Path) -> None:
    ca = authorities.make(tmp_path)
    pin_file = write_pin(tmp_path)
    pin_file.chmod(0o640)
    with pytest.raises(ValueError, match=r"`pkcs11.pin_file`: .* holds a secret and has mode 0640"):
        function(ca, pin_file)


@pytest.mark.parametrize("make", KEYS.values(), ids=list(KEYS))
def test_a_key_on_a_token_can_do_no_more_than_sign(make: Any, tmp_path: Path) -> None:
    real = make()
    key = TokenKey(Path(MODULE), "t", label="l", key_id=b"", pin_file=tmp_path).private_key(
        real.public_key()
    )
    calls = [
        key.private_numbers,
        lambda: key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    ]
    if isinstance(key, rsa.RSAPrivateKey):
        calls.append(lambda: key.decrypt(b"", padding.PKCS1v15()))
        calls.append(lambda: key.sign(b"", padding.PSS(padding.MGF1(SHA256()), 32), SHA256()))
    else:
        calls.append(lambda: key.exchange(ec.ECDH(), real.public_key()))
    for call in calls:
        with pytest.raises(UnsupportedAlgorithm, match="the key is on a token"):
            call()
    assert key.key_size == real.key_size


def test_openssl_bindings_take_the_signatures(ca: Files, tmp_path: Path) -> None:
    """`cryptography` builds a certificate with an object that is only shaped like a key."""
    mine = function(ca, write_pin(tmp_path))
    key = mine._authority.private_key
    name = ca.certificate.subject
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(moment)
    crl = builder.next_update(moment).sign(key, SHA256())
    assert crl.is_signature_valid(ca.key.public_key())
    asyncio.run(mine.close())
    asyncio.run(mine.close())  # twice is no harm

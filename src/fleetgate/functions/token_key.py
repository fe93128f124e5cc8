"""A private key on a PKCS#11 token: a smart card, a hardware security module, SoftHSM.

The key never leaves the token: what is to be signed goes there, the signature comes back. The
library that speaks to the token (the module) runs in the server's own process and is of that
process alone, so all keys of one module share it:

* A module does one thing at a time, behind its lock, whoever asks; modules need not be thread-safe
  unless asked to be (PKCS#11 2.40, C_Initialize). Whoever waits does so in a thread.
* A session is opened with the first signature and kept. When a signature fails, the session is
  opened anew; when that fails too, the module is started anew, since some see a token that came
  back only then. Starting anew ends the sessions of all keys of the module, each of which opens
  its own again.
* A PIN that the token refused is not tried again until its file has changed: a token locks itself
  after few wrong ones.

Everything here blocks. Source: OASIS PKCS#11 base specification 2.40 and 3.1, python-pkcs11.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from fleetgate.errors import Error
from fleetgate.functions.options import read_secret
from fleetgate.pki.operator_authority import PrivateKey
from fleetgate.pki.strength import PublicKey

if TYPE_CHECKING:
    import pkcs11
    from pkcs11 import _pkcs11
    from pkcs11.types import SignMixin


class TokenError(Error):
    """A token does not sign; the message names module, token, key and what it said."""


class _PinRefused(TokenError):
    """The token does not take the PIN; trying again would bring it nearer to its lock-out."""


class _Module:
    """A PKCS#11 library, loaded once in a process."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self.open_keys: set[TokenKey] = set()
        self._path = path
        self._library: _pkcs11.lib | None = None

    def library(self) -> _pkcs11.lib:
        """The library, initialized. Raises TokenError and PKCS11Error."""
        if self._library is None:
            try:
                import pkcs11
            except ImportError as error:
                raise TokenError(
                    "keys on PKCS#11 tokens need the package python-pkcs11: "
                    f"pip install 'fleetgate[pkcs11]' ({error})"
                ) from None
            if not self._path.is_file():
                raise TokenError(f"the PKCS#11 module `{self._path}` is not there")
            try:
                self._library = pkcs11.lib(str(self._path))
            except pkcs11.PKCS11Error as error:
                raise TokenError(
                    f"the PKCS#11 module `{self._path}` cannot be loaded: {_said(error)}"
                ) from None
        if not self._library.initialized:
            self._library.initialize()
        return self._library

    def start_anew(self) -> None:
        """Ends all sessions and initializes the library again."""
        for key in list(self.open_keys):
            key.forget()
        if self._library is not None and self._library.initialized:
            self._library.finalize()
        self.library()


_modules: dict[Path, _Module] = {}
_modules_lock = threading.Lock()


def _module(path: Path) -> _Module:
    with _modules_lock:
        return _modules.setdefault(path.resolve(), _Module(path))


class TokenKey:
    """One key of one token, by its label, its id (CKA_ID) or both.

    `pin_file` holds the user's PIN; it is read at each login.
    """

    def __init__(
        self, module: Path, token: str, *, label: str, key_id: bytes, pin_file: Path
    ) -> None:
        self._module = _module(module)
        self._token = token
        self._label = label
        self._key_id = key_id
        self._pin_file = pin_file
        self._session: pkcs11.Session | None = None
        self._key: SignMixin | None = None
        self._refused: tuple[object, str] | None = None

    def __str__(self) -> str:
        named = [f"`{self._label}`"] if self._label else []
        named += [f"id {self._key_id.hex()}"] if self._key_id else []
        return f"key {' '.join(named)} of the token `{self._token}`"

    def private_key(self, public_key: PublicKey) -> PrivateKey:
        """The key as `cryptography` asks for signatures; `public_key` is the one it belongs to."""
        if isinstance(public_key, rsa.RSAPublicKey):
            return _RsaKey(self, public_key)
        return _EcKey(self, public_key)

    def sign(self, content: bytes, mechanism: str) -> bytes:
        """The signature as the PKCS#11 `mechanism` (``ECDSA``) gives it. Raises TokenError."""
        with self._module.lock:
            self._module.library()  # says what is missing; PKCS11Error exists from here on
            from pkcs11 import Mechanism, PKCS11Error

            said = ""
            for prepare in (self._as_it_is, self._reopened, self._started_anew):
                try:
                    signature = prepare().sign(content, mechanism=Mechanism[mechanism])
                except PKCS11Error as error:
                    said = _said(error)
                else:
                    return bytes(signature)
            self.forget()
            raise TokenError(f"the {self} does not sign: {said}")

    def close(self) -> None:
        """Ends the session."""
        with self._module.lock:
            self.forget()

    def forget(self) -> None:
        """Ends the session, whatever the token says to it. Under the module's lock."""
        session, self._session, self._key = self._session, None, None
        self._module.open_keys.discard(self)
        if session is not None:
            with suppress(RuntimeError):  # PKCS11Error is one
                session.close()

    def _as_it_is(self) -> SignMixin:
        return self._key or self._opened()

    def _reopened(self) -> SignMixin:
        self.forget()
        return self._opened()

    def _started_anew(self) -> SignMixin:
        self._module.start_anew()
        return self._opened()

    def _opened(self) -> SignMixin:
        """The key, in a new session. Raises TokenError and PKCS11Error."""
        from pkcs11 import Attribute, MultipleObjectsReturned, NoSuchKey, ObjectClass
        from pkcs11.types import SignMixin

        self._session = self._logged_in()
        self._module.open_keys.add(self)
        wanted: dict[Attribute, object] = {Attribute.CLASS: ObjectClass.PRIVATE_KEY}
        if self._label:
            wanted[Attribute.LABEL] = self._label
        if self._key_id:
            wanted[Attribute.ID] = self._key_id
        found = list(self._session.get_objects(wanted))
        if len(found) > 1:
            raise MultipleObjectsReturned(f"{len(found)} keys are called so; name one by `key_id`")
        if not found:
            raise NoSuchKey("no private key is called so")
        key = found[0]
        if not isinstance(key, SignMixin):
            raise TokenError(f"the {self} may not sign (CKA_SIGN)")
        self._key = key
        return key

    def _logged_in(self) -> pkcs11.Session:
        import pkcs11

        token = self._module.library().get_token(token_label=self._token)
        state = self._pin_state()
        if self._refused is not None and self._refused[0] == state:
            raise _PinRefused(self._refused[1])
        pin = self._read_pin()
        try:
            session = token.open(user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:
            return token.open()  # a login is of the process, not of the session
        except (
            pkcs11.PinIncorrect,
            pkcs11.PinInvalid,
            pkcs11.PinLenRange,
            pkcs11.PinExpired,
            pkcs11.PinLocked,
            pkcs11.UserPinNotInitialized,
        ) as error:
            message = (
                f"the token `{self._token}` refuses the PIN in `{self._pin_file}` "
                f"({type(error).__name__}); it is not tried again before the file has changed"
            )
            self._refused = state, message
            raise _PinRefused(message) from None
        self._refused = None
        return session

    def _read_pin(self) -> str:
        try:
            return read_secret("`pin_file`", self._pin_file)
        except ValueError as error:
            raise TokenError(str(error)) from None

    def _pin_state(self) -> object:
        try:
            state = self._pin_file.stat()
        except OSError:
            return None
        return state.st_mtime_ns, state.st_size, state.st_ino


def _said(error: Exception) -> str:
    return f"{type(error).__name__}{f': {error}' if str(error) else ''}"


def _stays(*_: object) -> NoReturn:
    raise UnsupportedAlgorithm("the key is on a token: it does not leave it, and only signs")


class _EcKey(ec.EllipticCurvePrivateKey):
    """An EC key whose signatures the token makes."""

    def __init__(self, token_key: TokenKey, public_key: ec.EllipticCurvePublicKey) -> None:
        self._token_key = token_key
        self._public_key = public_key

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """ECDSA over a hash made here, which every token can; in the form of RFC 3279 2.2.3."""
        algorithm = signature_algorithm.algorithm
        if not isinstance(algorithm, hashes.HashAlgorithm):
            _stays(algorithm)
        digest = hashes.Hash(algorithm)
        digest.update(data)
        raw = self._token_key.sign(digest.finalize(), "ECDSA")  # r and s (PKCS#11 2.40, 2.3.1)
        half = len(raw) // 2
        return utils.encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        _stays(algorithm, peer_public_key)

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        _stays()

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - the interface's name
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> bytes:
        _stays(encoding, format, encryption_algorithm)

    def __copy__(self) -> _EcKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> _EcKey:
        return self


class _RsaKey(rsa.RSAPrivateKey):
    """An RSA key whose signatures the token makes."""

    def __init__(self, token_key: TokenKey, public_key: rsa.RSAPublicKey) -> None:
        self._token_key = token_key
        self._public_key = public_key

    def sign(self, data: Any, padding: padding.AsymmetricPadding, algorithm: object) -> bytes:
        """RSASSA-PKCS1-v1_5 (RFC 8017 section 8.2)."""
        if padding.name != _PKCS1:
            _stays(padding)
        return self._token_key.sign(bytes(data), _RSA_MECHANISMS[type(algorithm)])

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public_key

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> bytes:
        _stays(ciphertext, padding)

    def private_numbers(self) -> rsa.RSAPrivateNumbers:
        _stays()

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - the interface's name
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> bytes:
        _stays(encoding, format, encryption_algorithm)

    def __copy__(self) -> _RsaKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> _RsaKey:
        return self


_PKCS1 = "EMSA-PKCS1-v1_5"  # as `cryptography` calls RSASSA-PKCS1-v1_5
_RSA_MECHANISMS: dict[type[object], str] = {hashes.SHA256: "SHA256_RSA_PKCS"}

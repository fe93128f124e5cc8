"""`local-ca`: a certificate provider over an authority of the operator's own.

Certificate and key are in files, or the key is on a PKCS#11 token (`token_key`). The key is used in
the server's own process: what signs is our code, and a process of its own would have to be trusted
with the key just the same. Only subject and key of a request come into a certificate; all else is
the profile's. A certificate never outlives the authority's.

What is wrong with the authority is found at the start: it signs a test text, which its certificate
has to verify.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from fleetgate.errors import InvalidCsr
from fleetgate.functions.certificate_profile import read_profile
from fleetgate.functions.key_file import read_private_key
from fleetgate.functions.options import Options, read_secret
from fleetgate.functions.signing import Refused, refused, request_of, signed
from fleetgate.functions.target import Failure, FunctionError, Run
from fleetgate.functions.threads import Threads
from fleetgate.functions.token_key import TokenError, TokenKey
from fleetgate.pki import csr, issue, operator_authority, pem
from fleetgate.pki.issue import Profile
from fleetgate.pki.operator_authority import OperatorAuthority, PrivateKey
from fleetgate.pki.strength import PublicKey

_log = logging.getLogger(__name__)

_START_SECONDS = 15.0
"""How long a token may take for its first signature."""

_CLOSE_SECONDS = 2.0
_SOON = timedelta(days=30)


def from_options(
    name: str,
    options: Mapping[str, object],
    directory: Path,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> LocalCa:
    """The function called `name`; relative paths are relative to `directory`.

    Reads the files and lets the key sign once; blocks. Raises ValueError naming option, rule and
    value. An authority that ends soon is a warning in the log.
    """
    read = Options(options, directory)
    certificate_file = read.path("certificate")
    chain = read.flag("chain")
    profile = read_profile(read)
    if read.given("key") == read.given("pkcs11"):
        raise ValueError("one of `key` (a file) and `pkcs11` (a token) is required")
    token = _token(read.table("pkcs11")) if read.given("pkcs11") else None
    key_file = read.optional_path("key")
    passphrase_file = read.optional_path("passphrase_file")
    read.optional("pkcs11")  # known, for the message of unknown ones
    read.finished()
    if passphrase_file is not None and key_file is None:
        raise ValueError("`passphrase_file` goes with `key`; a token's PIN is in `pin_file`")

    try:
        certificates = operator_authority.read_certificates(
            read.read("certificate", certificate_file)
        )
        public_key = operator_authority.check(certificates[0], now=now())
    except ValueError as error:
        if str(error).startswith("`certificate`"):
            raise
        raise ValueError(f"`certificate`: `{certificate_file}`: {error}") from None
    if token is not None:
        key = token.private_key(public_key)
        _try_token(token, key, public_key)
    else:
        assert key_file is not None  # noqa: S101 - one of the two is given
        key = read_private_key(key_file, passphrase_file)
        try:
            operator_authority.check_key(key, public_key)
        except ValueError:
            raise ValueError(
                f"`key`: `{key_file}` is not the key of the certificate in `{certificate_file}`"
            ) from None
    authority = OperatorAuthority(certificates[0], key, certificates[1:])
    _warn(name, authority, profile, now())
    return LocalCa(
        name,
        f"builtin:local-ca {certificate_file.name}",
        authority,
        profile,
        chain=chain,
        token=token,
        now=now,
        random_bytes=random_bytes,
    )


class LocalCa:
    """A Target that signs requests itself."""

    def __init__(
        self,
        name: str,
        description: str,
        authority: OperatorAuthority,
        profile: Profile,
        *,
        chain: bool,
        token: TokenKey | None,
        now: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._name = name
        self._description = description
        self._authority = authority
        self._profile = profile
        self._token = token
        self._now = now
        self._random_bytes = random_bytes
        self._threads = Threads(f"fleetgate-token-{name}", 1)
        above = (authority.certificate, *authority.chain) if chain else ()
        self._chain = "".join(each.public_bytes(Encoding.PEM).decode("ascii") for each in above)

    @property
    def description(self) -> str:
        return self._description

    async def invoke(self, event: bytes, *, request_id: str, seconds: float) -> Run:
        """Signs the request in the event. Raises FunctionError when the token does not."""
        try:
            request = _request(event)
            now = self._now()
            _check_still_valid(self._authority.certificate, now)
        except Refused as error:
            return refused(error)

        serial = _serial(self._random_bytes)

        def sign() -> bytes:
            return issue.issue(
                self._profile,
                self._authority,
                request.public_key,
                request.subject,
                now=now,
                serial=serial,
            )

        der = sign() if self._token is None else await self._by_token(sign, seconds)
        _log.info("event=signed function=%s request=%s serial=%x", self._name, request_id, serial)
        return signed(pem.encode("CERTIFICATE", der) + self._chain, self._remark(now))

    async def close(self) -> None:
        """Ends the session with the token; one that does not answer is left alone."""
        token = self._token
        if token is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._threads.run(token.close)
        except TimeoutError:
            _log.warning("event=token.close function=%s reason=%r", self._name, "no answer")

    async def _by_token(self, sign: Callable[[], bytes], seconds: float) -> bytes:
        try:
            async with asyncio.timeout(seconds):
                return await self._threads.run(sign)
        except TimeoutError:
            raise FunctionError(
                Failure.TIMED_OUT,
                f"function `{self._name}`: no signature by the {self._token} within "
                f"{seconds:.3g} s",
            ) from None
        except TokenError as error:
            raise FunctionError(
                Failure.UNREACHABLE, f"function `{self._name}`: {error.message}"
            ) from None

    def _remark(self, now: datetime) -> str:
        """What operators should know beside the certificate."""
        lifetime = self._profile.lifetime
        if lifetime is not None and now + lifetime > self._authority.not_after:
            return f"the certificate ends with the authority's, at {self._authority.not_after}"
        return ""


def _request(event: bytes) -> csr.SigningRequest:
    try:
        return csr.parse(request_of(event).certificate_signing_request)
    except InvalidCsr as error:
        raise Refused("InvalidCsr", error.message) from None


def _check_still_valid(certificate: x509.Certificate, now: datetime) -> None:
    try:
        operator_authority.check(certificate, now=now)
    except ValueError as error:
        raise Refused("AuthorityNotValid", f"the authority's certificate: {error}") from None


def _serial(random_bytes: Callable[[int], bytes]) -> int:
    """159 random bits; 0 is not a serial number (RFC 5280 section 4.1.2.2)."""
    return (int.from_bytes(random_bytes(20)) & issue.MAX_SERIAL) or 1


def _token(options: Options) -> TokenKey:
    module = options.path("module")
    if not module.is_file():
        raise ValueError(f"{options.named('module')}: `{module}` is not there")
    token = options.text("token", rule="the label of a token is expected")
    label = options.optional("key")
    key_id = options.optional(
        "key_id", pattern=r"([0-9A-Fa-f]{2}){1,64}", rule="hexadecimal bytes are expected"
    )
    pin_file = options.path("pin_file")
    options.finished()
    if not label and not key_id:
        raise ValueError(f"{options.named('key')} (a label) or `key_id` is required")
    read_secret(options.named("pin_file"), pin_file)
    return TokenKey(module, token, label=label, key_id=bytes.fromhex(key_id), pin_file=pin_file)


def _try_token(token: TokenKey, key: PrivateKey, public_key: PublicKey) -> None:
    """Lets the token sign, for a bounded time. Raises ValueError."""
    failed: list[Exception] = []

    def attempt() -> None:
        try:
            operator_authority.check_key(key, public_key)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=attempt, name="fleetgate-token", daemon=True)
    thread.start()
    thread.join(_START_SECONDS)
    if thread.is_alive():
        raise ValueError(f"`pkcs11`: no answer for the {token} within {_START_SECONDS:.0f} s")
    for error in failed:
        if isinstance(error, TokenError):
            raise ValueError(f"`pkcs11`: {error.message}")
        if isinstance(error, ValueError):
            raise ValueError(f"`pkcs11`: the {token} is not the key of the certificate")
        raise error


def _warn(name: str, authority: OperatorAuthority, profile: Profile, now: datetime) -> None:
    """Says in the log what will be a trouble later."""
    left = authority.not_after - now
    if left < _SOON:
        _log.warning(
            "event=authority.ends function=%s not_after=%s days=%d",
            name,
            authority.not_after.isoformat(),
            left.days,
        )
    elif profile.lifetime is not None and left < profile.lifetime:
        _log.warning(
            "event=authority.short function=%s not_after=%s reason=%r",
            name,
            authority.not_after.isoformat(),
            "certificates end with it, before their validity_days",
        )
    try:
        usage = authority.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return
    allowed = set(usage.value)
    missing = [each for each in profile.extended_key_usage if each not in allowed]
    if missing and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in allowed:
        _log.warning(
            "event=authority.purpose function=%s purposes=%s reason=%r",
            name,
            ",".join(each.dotted_string for each in missing),
            "the authority's own extended key usage does not name them",
        )

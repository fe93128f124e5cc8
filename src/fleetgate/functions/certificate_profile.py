"""The profile of an operator's certificates, as the options of `local-ca` write it."""

from __future__ import annotations

import re
from datetime import timedelta

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from fleetgate.functions.options import Options
from fleetgate.pki.issue import Profile

_USAGES = {
    "digitalSignature": "digital_signature",
    "nonRepudiation": "content_commitment",
    "keyEncipherment": "key_encipherment",
    "dataEncipherment": "data_encipherment",
    "keyAgreement": "key_agreement",
}
"""Key usages of a certificate that signs no others. Source: RFC 5280 section 4.2.1.3."""

_PURPOSES = {
    "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "serverAuth": ExtendedKeyUsageOID.SERVER_AUTH,
    "codeSigning": ExtendedKeyUsageOID.CODE_SIGNING,
    "emailProtection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "timeStamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "OCSPSigning": ExtendedKeyUsageOID.OCSP_SIGNING,
}
"""Source: RFC 5280 section 4.2.1.12."""

_URL = r"https?://[!-~]{1,2000}"
_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,38})){1,63}", re.ASCII)  # X.660


def read_profile(options: Options) -> Profile:
    """The profile that the options describe. Raises ValueError naming option, rule and value."""
    return Profile(
        # RFC 5280 section 4.1.2.6; the request's subject is copied, an empty one too
        x509.Name([]),
        lifetime=timedelta(days=options.whole("validity_days", 365, 1, 36500)),
        backdate=timedelta(seconds=options.whole("backdate_seconds", 120, 0, 604_800)),
        key_usage=_key_usage(options),
        extended_key_usage=_purposes(options),
        policies=_policies(options),
        crl_url=_url(options, "crl_url"),
        ocsp_url=_url(options, "ocsp_url"),
        issuer_url=_url(options, "issuer_url"),
    )


def _url(options: Options, name: str) -> str:
    return options.optional(name, pattern=_URL, rule="a URL that begins with http:// is expected")


def _key_usage(options: Options) -> x509.KeyUsage:
    names = options.texts("key_usage", ("digitalSignature",))
    unknown = [name for name in names if name not in _USAGES]
    if unknown or not names:
        raise ValueError(
            f"{options.named('key_usage')} is one or more of {', '.join(_USAGES)}, "
            f"not `{', '.join(unknown)[:80]}`"
        )
    return x509.KeyUsage(
        **{member: name in names for name, member in _USAGES.items()},
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _purposes(options: Options) -> tuple[ObjectIdentifier, ...]:
    names = options.texts("extended_key_usage", ("clientAuth",))
    rule = f"is a list of {', '.join(_PURPOSES)} or OIDs"
    return tuple(
        _PURPOSES[name] if name in _PURPOSES else _oid(options, "extended_key_usage", name, rule)
        for name in dict.fromkeys(names)
    )


def _policies(options: Options) -> tuple[ObjectIdentifier, ...]:
    texts = dict.fromkeys(options.texts("policies"))
    return tuple(_oid(options, "policies", text, "is a list of OIDs") for text in texts)


def _oid(options: Options, name: str, text: str, rule: str) -> ObjectIdentifier:
    try:
        if _OID.fullmatch(text):
            return ObjectIdentifier(text)
    except ValueError:
        pass
    raise ValueError(f"{options.named(name)} {rule} like 1.3.6.1.4.1.99999.1, not `{text[:80]}`")

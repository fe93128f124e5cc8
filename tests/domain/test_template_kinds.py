"""What a template may ask for depends on what it is for.

Source: AWS IoT Developer Guide, "Provisioning templates" (certificate methods, pseudo parameters)
and "Provisioning devices that have device certificates" (RegisterThing with a signing request).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleetgate.domain import template
from fleetgate.domain.resources import Certificate, Kind
from fleetgate.domain.template import CERTIFICATE_ID
from fleetgate.errors import InvalidTemplate

ID = "0123456789abcdef" * 4


def body(properties: dict[str, Any] | None, **sections: Any) -> str:
    resources: dict[str, Any] = {
        "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "ThingName"}}}
    }
    if properties is not None:
        resources["cert"] = {"Type": "AWS::IoT::Certificate", "Properties": properties}
    return json.dumps({"Resources": resources, **sections})


def inline(properties: dict[str, Any] | None, **parameters: str) -> Certificate | None:
    parsed = template.parse(body(properties), Kind.INLINE)
    return template.render(parsed, {"ThingName": "t", **parameters}).certificate


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        (None, None),
        ({"CertificateId": {"Ref": "Id"}}, Certificate("cert", ID)),
        (
            {"CertificateSigningRequest": {"Ref": "CSR"}, "Status": "Inactive"},
            Certificate("cert", None, "INACTIVE", csr="csr"),
        ),
        ({"CertificatePem": "pem"}, Certificate("cert", None, pem="pem")),
        (
            {
                "CertificatePem": "pem",
                "CACertificatePem": {"Ref": "CA"},
                "ThingPrincipalType": "EXCLUSIVE_THING",
            },
            Certificate("cert", None, principal_type="EXCLUSIVE_THING", pem="pem", ca_pem="ca"),
        ),
    ],
)
def test_an_inline_template_takes_every_method(
    properties: dict[str, Any] | None, expected: Certificate | None
) -> None:
    assert inline(properties, Id=ID, CSR="csr", CA="ca") == expected


# A caller is not a device: AWS's users pass the id of the certificate under this name.
def test_the_caller_of_an_inline_template_may_name_any_parameter() -> None:
    certificate = inline({"CertificateId": {"Ref": CERTIFICATE_ID}}, **{CERTIFICATE_ID: ID})
    assert certificate == Certificate("cert", ID)
    with pytest.raises(InvalidTemplate) as caught:
        inline({"CertificateId": {"Ref": CERTIFICATE_ID}})
    assert caught.value.rule == f"Cannot resolve reference value: {CERTIFICATE_ID}"


@pytest.mark.parametrize(
    ("kind", "properties", "message"),
    [
        (Kind.FLEET, {}, "`CertificateId` is missing"),
        (Kind.FLEET, {"CertificatePem": "x"}, "CertificatePem: a fleet .* takes only `Certifi"),
        (Kind.FLEET, {"CertificateSigningRequest": "x"}, "Request: a fleet .* takes only `Cert"),
        (Kind.FLEET, {"CertificateId": "x", "CACertificatePem": "x"}, "takes only `CertificateId`"),
        (Kind.INLINE, {}, "exactly one of CertificateId, .*, CertificatePem; it has none"),
        (
            Kind.INLINE,
            {"CertificateId": "x", "CertificatePem": "x"},
            "it has `CertificateId` and `CertificatePem`",
        ),
        (
            Kind.INLINE,
            {"CertificateId": "x", "CACertificatePem": "x"},
            "CACertificatePem: it belongs to `CertificatePem`, not to `CertificateId`",
        ),
    ],
)
def test_the_methods_are_exclusive(kind: Kind, properties: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidTemplate, match=message):
        template.parse(body(properties), kind)


def test_a_device_configuration_is_for_devices() -> None:
    with pytest.raises(InvalidTemplate, match="DeviceConfiguration: only a fleet provisioning"):
        template.parse(body(None, DeviceConfiguration={"a": "b"}), Kind.INLINE)
    # as AWS's users send it
    template.parse(body(None, DeviceConfiguration={}), Kind.INLINE)

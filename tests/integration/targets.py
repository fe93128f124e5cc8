"""Something for every operation to be about, so that whoever may call it gets an answer.

What reads shares one resource of each kind; what changes or ends one has a resource of its own,
which bears the name of the operation and is brought into the state the operation asks for.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fleetgate.functions.runner import runtimes
from tests.integration.fleet import arn, policy_document, signing_request, template_body
from tests.integration.server import ACCOUNT, REGION

ALLOW = policy_document({"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"})
RIGHTS = policy_document({"Effect": "Allow", "Action": "iot:*", "Resource": "*"})
TRUST = policy_document(
    {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
        "Action": "sts:AssumeRole",
    }
)
ONLY_A_POLICY = (
    '{"Resources": {"p": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "NAME"}}}}'
)
"""A template that asks for what is there: nothing is left to be done, or allowed."""
PASSWORD, OTHER_PASSWORD = "Correct horse 1 battery", "Correct horse 2 battery"
TAGS = [{"Key": "k", "Value": "v"}]
SHARED = "present"
PERMISSION = {
    "StatementId": "added",
    "Action": "lambda:InvokeFunction",
    "Principal": "iot.amazonaws.com",
}
READS = ("Describe", "Get", "List", "Test")


def _code() -> dict[str, bytes]:
    """The zip of a function."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("f.py", "def handler(event, context):\n    return event\n")
    return {"ZipFile": out.getvalue()}


CODE = _code()


def function_arn(name: str) -> str:
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


REFUSED: dict[str, tuple[int, str]] = {
    # nothing is ever transferred to the one account of a server
    "AcceptCertificateTransfer": (400, "InvalidRequestException"),
    "RejectCertificateTransfer": (400, "InvalidRequestException"),
    # seven days, and five minutes, have to pass first
    "DeleteDomainConfiguration": (400, "InvalidRequestException"),
    "DeleteThingType": (400, "InvalidRequestException"),
    # there is no such task, and no bucket to make one from
    "DescribeThingRegistrationTask": (404, "ResourceNotFoundException"),
    "ListThingRegistrationTaskReports": (400, "InvalidRequestException"),
    "StartThingRegistrationTask": (400, "InvalidRequestException"),
    "StopThingRegistrationTask": (404, "ResourceNotFoundException"),
    "GetAccountPasswordPolicy": (404, "NoSuchEntity"),
}
"""Operations that cannot succeed here, and what they answer those who may call them."""


class Targets:
    """Parameters of calls that succeed. `iot`, `iam` and `functions` (Lambda) are clients of the
    root user.

    `role` is the ARN of a role that AWS IoT and its credential provider may assume, `user` the
    name of the user who calls, and `key` their access key.
    """

    def __init__(self, iot: Any, iam: Any, functions: Any, role: str, user: str, key: str) -> None:
        self.iot, self.iam, self.functions = iot, iam, functions
        self.role, self.user, self.key = role, user, key
        self._made: dict[tuple[str, str], str] = {}

    def parameters(self, operation: str, names: Iterable[str]) -> dict[str, Any]:
        """A value for each of these members of an operation; what they name is there."""
        own = SHARED if operation.startswith(READS) else operation
        values: dict[str, Any] = {}
        for name in names:
            kind = "caCertificateId" if "CACert" in operation and name == "certificateId" else name
            if kind not in MAKERS:
                value = VALUES[name]
                values[name] = value(self, own) if callable(value) else value
            elif operation == f"Create{MAKERS[kind][0]}":
                values[name] = own  # the call makes it
            else:
                values[name] = self.one(kind, own)
        if operation in PREPARED:
            values |= PREPARED[operation](self, values) or {}
        return values

    def one(self, kind: str, name: str) -> str:
        """The name, id or ARN of a resource that is there; `kind` is the member that has it."""
        if (kind, name) not in self._made:
            self._made[kind, name] = MAKERS[kind][1](self, name)
        return self._made[kind, name]

    def certificate_arn(self, name: str) -> str:
        return arn(f"cert/{self.one('certificateId', name)}")

    def other_key(self) -> str:
        """A second access key of the user who calls."""
        listed = self.iam.list_access_keys(UserName=self.user)["AccessKeyMetadata"]
        keys: list[str] = [each["AccessKeyId"] for each in listed]
        if keys == [self.key]:
            made = self.iam.create_access_key(UserName=self.user)
            keys.append(made["AccessKey"]["AccessKeyId"])
        return next(key for key in keys if key != self.key)


# --- what is made --------------------------------------------------------------------------------


def _named(service: str, operation: str, member: str) -> Callable[[Targets, str], str]:
    def make(made: Targets, name: str) -> str:
        getattr(getattr(made, service), operation)(**{member: name})
        return name

    return make


def _policy(made: Targets, name: str) -> str:
    made.iot.create_policy(policyName=name, policyDocument=ALLOW)
    return name


def _template(made: Targets, name: str) -> str:
    made.iot.create_provisioning_template(
        templateName=name,
        templateBody=template_body(name, made.one("policyName", SHARED)),
        provisioningRoleArn=made.role,
        enabled=True,
    )
    return name


def _role_alias(made: Targets, name: str) -> str:
    made.iot.create_role_alias(roleAlias=name, roleArn=made.role)
    return name


def _certificate_provider(made: Targets, name: str) -> str:
    """The one there may be, unless the call is to make it."""
    for each in made.iot.list_certificate_providers()["certificateProviders"]:
        there = each["certificateProviderName"]
        made.iot.delete_certificate_provider(certificateProviderName=there)
    if not name.startswith("Create"):
        made.iot.create_certificate_provider(
            certificateProviderName=name,
            lambdaFunctionArn=VALUES["lambdaFunctionArn"],
            accountDefaultForOperations=VALUES["accountDefaultForOperations"],
        )
    return name


def _certificate(made: Targets, _: str) -> str:
    answer = made.iot.create_certificate_from_csr(certificateSigningRequest=signing_request().csr)
    return str(answer["certificateId"])


def _ca_certificate(made: Targets, name: str) -> str:
    pem = _authority(name)[1]
    answer = made.iot.register_ca_certificate(
        caCertificate=pem, certificateMode="SNI_ONLY", setAsActive=not name.startswith("Delete")
    )
    return str(answer["certificateId"])


def _role(made: Targets, name: str) -> str:
    made.iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST)
    made.iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=RIGHTS)
    if name == "DeleteRole":
        made.iam.delete_role_policy(RoleName=name, PolicyName="inline")
    return name


def _user(made: Targets, name: str) -> str:
    made.iam.create_user(UserName=name)
    if name in (SHARED, "DeleteUserPolicy"):
        made.iam.put_user_policy(UserName=name, PolicyName="inline", PolicyDocument=RIGHTS)
    if "LoginProfile" in name or name == SHARED:
        made.iam.create_login_profile(UserName=name, Password=PASSWORD)
    if name == "CreateLoginProfile":
        made.iam.delete_login_profile(UserName=name)
    return name


def _managed_policy(made: Targets, name: str) -> str:
    answer = made.iam.create_policy(PolicyName=name, PolicyDocument=RIGHTS)
    return str(answer["Policy"]["Arn"])


def _function(made: Targets, name: str) -> str:
    made.functions.create_function(
        FunctionName=name, Code=CODE, Role=made.role, Runtime=runtimes()[0], Handler="f.handler"
    )
    made.functions.add_permission(FunctionName=name, **PERMISSION | {"StatementId": "present"})
    return name


@cache
def _authority(name: str) -> tuple[ec.EllipticCurvePrivateKey, str]:
    """An authority of somebody's own: its key and its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key, _signed(name, name, key, key.public_key())


def _signed(
    issuer: str, name: str, signer: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePublicKey
) -> str:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        key,
        x509.random_serial_number(),
        now - timedelta(days=1),
        now + timedelta(days=1),
    )
    is_ca = x509.BasicConstraints(ca=issuer == name, path_length=None)
    made = builder.add_extension(is_ca, critical=True).sign(signer, hashes.SHA256())
    return made.public_bytes(Encoding.PEM).decode()


def _foreign(name: str) -> str:
    """A certificate of such an authority."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return _signed(name, f"{name} device", _authority(name)[0], key)


MAKERS: dict[str, tuple[str, Callable[[Targets, str], str]]] = {
    "thingName": ("Thing", _named("iot", "create_thing", "thingName")),
    "thingGroupName": ("ThingGroup", _named("iot", "create_thing_group", "thingGroupName")),
    "billingGroupName": ("BillingGroup", _named("iot", "create_billing_group", "billingGroupName")),
    "thingTypeName": ("ThingType", _named("iot", "create_thing_type", "thingTypeName")),
    "policyName": ("Policy", _policy),
    "templateName": ("ProvisioningTemplate", _template),
    "roleAlias": ("RoleAlias", _role_alias),
    "domainConfigurationName": (
        "DomainConfiguration",
        _named("iot", "create_domain_configuration", "domainConfigurationName"),
    ),
    "certificateId": ("", _certificate),
    "caCertificateId": ("", _ca_certificate),
    "UserName": ("User", _user),
    "RoleName": ("Role", _role),
    "PolicyArn": ("", _managed_policy),
    "FunctionName": ("Function", _function),
}
"""Members that name a resource: the word for it in the operation that makes one, and how to."""

VALUES: dict[str, Any] = {
    "principal": Targets.certificate_arn,
    "target": Targets.certificate_arn,
    "resourceArn": lambda made, own: arn(f"policy/{made.one('policyName', own)}"),
    "certificateProviderName": _certificate_provider,
    "lambdaFunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:absent",
    "accountDefaultForOperations": ["CreateCertificateFromCsr"],
    "roleArn": lambda made, _: made.role,
    "provisioningRoleArn": lambda made, _: made.role,
    "RoleArn": lambda made, _: made.role,
    "AccessKeyId": lambda made, own: made.key if own == SHARED else made.other_key(),
    "loggingOptionsPayload": lambda made, _: {"roleArn": made.role, "logLevel": "ERROR"},
    "templateBody": template_body("made", SHARED),
    "policyDocument": ALLOW,
    "targetAwsAccount": "210987654321",
    "versionId": 1,
    "policyVersionId": "1",
    "targetType": "THING_GROUP",
    "targetName": SHARED,
    "reportType": "ERRORS",
    "taskId": "absent",
    "inputFileBucket": "absent",
    "inputFileKey": "absent",
    "thingGroupProperties": {},
    "billingGroupProperties": {},
    "tags": TAGS,
    "Tags": TAGS,
    "tagKeys": ["k"],
    "TagKeys": ["k"],
    "authInfos": [{"actionType": "CONNECT", "resources": [arn("client/c")]}],
    "logTarget": {"targetType": "DEFAULT"},
    "logLevel": "ERROR",
    "newStatus": "INACTIVE",
    "PolicyName": "inline",
    "PolicyDocument": RIGHTS,
    "AssumeRolePolicyDocument": TRUST,
    "VersionId": "v1",
    "Status": "Inactive",
    "Password": PASSWORD,
    "OldPassword": PASSWORD,
    "NewPassword": OTHER_PASSWORD,
    "Description": "d",
    "RoleSessionName": "matrix",
    "certificateSigningRequest": signing_request().csr,
    "caCertificate": _authority("RegisterCACertificate")[1],
    "certificateMode": "SNI_ONLY",
    "certificatePem": lambda _, own: _foreign(own),
    "Code": CODE,
    "ZipFile": CODE["ZipFile"],
    "Role": lambda made, _: made.role,
    "Runtime": runtimes()[0],
    "Handler": "f.handler",
    "Resource": lambda made, own: function_arn(made.one("FunctionName", own)),
    **PERMISSION,
}
"""Values of the other members, some of which depend on what was made."""


# --- what has to be so before --------------------------------------------------------------------

Values = dict[str, Any]


def _first(service: str, operation: str, **more: Any) -> Callable[[Targets, Values], None]:
    """Another operation, with the same parameters and these, has been called."""

    def prepare(made: Targets, values: Values) -> None:
        getattr(getattr(made, service), operation)(**values | more)

    return prepare


def _second_version(made: Targets, values: Values) -> Values:
    if "PolicyArn" in values:
        made.iam.create_policy_version(PolicyArn=values["PolicyArn"], PolicyDocument=RIGHTS)
        return {"VersionId": "v2"}
    if "policyName" in values:
        made.iot.create_policy_version(policyName=values["policyName"], policyDocument=ALLOW)
        return {"policyVersionId": "2"}
    name = values["templateName"]
    made.iot.create_provisioning_template_version(
        templateName=name, templateBody=template_body(name, SHARED)
    )
    return {"versionId": 2}


def _levels(made: Targets, _: Values) -> None:
    made.iot.set_v2_logging_options(roleArn=made.role, defaultLogLevel="ERROR")


def _transferred(made: Targets, values: Values) -> None:
    made.iot.transfer_certificate(**values, targetAwsAccount="210987654321")


def _signed_by_an_active_ca(made: Targets, _: Values) -> None:
    made.one("caCertificateId", "RegisterCertificate")


def _own_password(made: Targets, _: Values) -> None:
    made.iam.create_login_profile(UserName=made.user, Password=PASSWORD)


def _existing_policy(made: Targets, _: Values) -> Values:
    return {"templateBody": ONLY_A_POLICY.replace("NAME", made.one("policyName", SHARED))}


def _registration_code(made: Targets, _: Values) -> None:
    made.iot.get_registration_code()


PREPARED: dict[str, Callable[[Targets, Values], Values | None]] = {
    "CancelCertificateTransfer": _transferred,
    "ChangePassword": _own_password,
    "DeletePolicyVersion": _second_version,
    "DeleteProvisioningTemplateVersion": _second_version,
    "DeleteRegistrationCode": _registration_code,
    "DeleteV2LoggingLevel": _levels,
    "DetachPolicy": _first("iot", "attach_policy"),
    "DetachPrincipalPolicy": _first("iot", "attach_principal_policy"),
    "DetachRolePolicy": _first("iam", "attach_role_policy"),
    "DetachThingPrincipal": _first("iot", "attach_thing_principal"),
    "DetachUserPolicy": _first("iam", "attach_user_policy"),
    "GetV2LoggingOptions": _levels,
    "ListV2LoggingLevels": _levels,
    "RegisterCertificate": _signed_by_an_active_ca,
    "RegisterThing": _existing_policy,
    "RemovePermission": lambda *_: {"StatementId": "present"},
    "SetV2LoggingLevel": _levels,
    # those of Lambda are a map
    "TagResource": lambda _, values: {"Tags": {"k": "v"}} if "Tags" in values else {},
    "UpdateAssumeRolePolicy": lambda *_: {"PolicyDocument": TRUST},
}
"""How to bring about the state an operation asks for; may return other values of members."""

"""Functions of the Lambda API: made, changed, shown, deleted.

Sources: Lambda API reference; Lambda developer guide, "Lambda quotas"; AWS's words in refusals.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fleetgate.errors import (
    CodeStorageExceededException,
    InvalidParameterValueException,
    PreconditionFailedException,
    RequestEntityTooLargeException,
    ResourceConflictException,
    ResourceNotFoundException,
    ServiceError,
    TooManyRequestsException,
    ValidationException,
)
from fleetgate.functions.runner import runtimes
from fleetgate.operations import function_code
from fleetgate.operations.call import Call
from fleetgate.operations.dispatch import invoke
from fleetgate.operations.uploaded_functions import tell_hidden
from fleetgate.store import functions
from fleetgate.store.engine import Tx
from tests.operations.conftest import START, Registry
from tests.operations.lambda_functions import CODE, Lambda, caller_who, configure, zipped
from tests.operations.roles import add_role

OTHER_CODE = zipped(hook_py="def handler(event, context):\n    return {}\n")


@pytest.fixture
def aws(registry: Registry) -> Lambda:
    return Lambda(registry)


def sha256(code: bytes) -> str:
    return base64.b64encode(hashlib.sha256(code).digest()).decode()


def code_ids(aws: Lambda) -> set[str]:
    """Of all code that is in the store."""

    def find(tx: Tx) -> set[str]:
        return {row[0] for row in tx.all("SELECT code_id FROM function_code")}

    return aws.registry.runner.run(aws.registry.services.store.read(find))


def stored_code(aws: Lambda, name: str) -> bytes:
    services = aws.registry.services
    call = Call(services, "request", aws.registry.clock())
    found = aws.registry.runner.run(services.store.read(functions.find_function, name))
    assert found is not None
    return aws.registry.runner.run(function_code.read_code(call, found))


def limit(aws: Lambda, **limits: int) -> None:
    services = aws.registry.services
    aws.registry.services = replace(services, limits=replace(services.limits, **limits))


def test_what_lambda_answers_is_answered(aws: Lambda) -> None:
    made = aws.create(
        Description="decides",
        Timeout=5,
        MemorySize=256,
        Environment={"Variables": {"LEVEL": "debug"}},
        Architectures=["arm64"],
        Tags={"team": "fleet"},
    )
    assert made.pop("RevisionId")
    assert made == {
        "FunctionName": "hook",
        "FunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:hook",
        "Runtime": runtimes()[0],
        "Role": aws.role,
        "Handler": "hook.handler",
        "CodeSize": len(CODE),
        "Description": "decides",
        "Timeout": 5,
        "MemorySize": 256,
        "LastModified": "2026-09-21T14:13:20.000+0000",
        "CodeSha256": sha256(CODE),
        "Version": "$LATEST",
        "Environment": {"Variables": {"LEVEL": "debug"}},
        "TracingConfig": {"Mode": "PassThrough"},
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": "Zip",
        "Architectures": ["arm64"],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/hook"},
    }
    for name in ("hook", "function:hook", "123456789012:function:hook", aws.arn("hook")):
        for members, arn in (
            ({"FunctionName": name}, aws.arn("hook")),
            ({"FunctionName": f"{name}:$LATEST"}, aws.arn("hook:$LATEST")),
            ({"FunctionName": name, "Qualifier": "$LATEST"}, aws.arn("hook:$LATEST")),
        ):
            found = aws("GetFunction", **members)
            assert aws("GetFunctionConfiguration", **members) == found["Configuration"]
            found["Configuration"].pop("RevisionId")
            assert found["Configuration"] == {**made, "FunctionArn": arn}
            assert found["Tags"] == {"team": "fleet"}
            assert "/_fleetgate/functions/hook/" in found["Code"]["Location"]
    versions = aws("ListVersionsByFunction", FunctionName="hook")["Versions"]
    assert [each["FunctionArn"] for each in versions] == [aws.arn("hook:$LATEST")]
    signing = aws("GetFunctionCodeSigningConfig", FunctionName="hook")
    assert signing == {"FunctionName": "hook"}
    used = aws("GetAccountSettings")["AccountUsage"]
    assert used == {"TotalCodeSize": len(CODE), "FunctionCount": 1}


def test_versions_are_listed_by_their_own_arns(aws: Lambda) -> None:
    aws.create()
    configure(aws.registry, "allow")
    for asked, suffix in (({}, ""), ({"FunctionVersion": "ALL"}, ":$LATEST")):
        listed = aws("ListFunctions", **asked)["Functions"]
        arns = [aws.arn("allow") + suffix, aws.arn("hook") + suffix]
        assert [each["FunctionArn"] for each in listed] == arns
    qualified = aws("GetFunction", FunctionName="allow", Qualifier="$LATEST")
    assert qualified["Configuration"]["FunctionArn"] == aws.arn("allow:$LATEST")


@pytest.mark.parametrize(
    ("actions", "why"),
    [
        (["Allow lambda:ListTags"], ""),
        ([], "because no identity-based policy allows the lambda:ListTags action"),
        (
            ["Allow lambda:*", "Deny lambda:ListTags"],
            "with an explicit deny in an identity-based policy",
        ),
    ],
)
def test_tags_are_shown_to_those_who_may_list_them(
    aws: Lambda, actions: list[str], why: str
) -> None:
    """Lambda API reference, GetFunction, Tags."""
    aws.create(Tags={"team": "fleet"})
    may = caller_who("Allow lambda:GetFunction", *actions)
    services = aws.registry.services
    call = Call(services, "request", aws.registry.clock(), caller=may)
    operation = aws.registry.models["lambda"].operation("GetFunction")
    found = aws.registry.runner.run(invoke(call, "lambda", operation, {"function_name": "hook"}))
    if not why:
        assert (found["Tags"], found["TagsError"]) == ({"team": "fleet"}, None)
        return
    assert found["Tags"] is None
    assert found["TagsError"]["ErrorCode"] == "AccessDeniedException"
    message = found["TagsError"]["Message"]
    assert message.endswith(f"lambda:ListTags on resource: {aws.arn('hook')} {why}")


def test_what_is_left_out_has_lambdas_defaults(aws: Lambda) -> None:
    made = aws.create()
    assert (made["Timeout"], made["MemorySize"], made["Description"]) == (3, 128, "")
    assert made["Architectures"] in (["x86_64"], ["arm64"])
    assert made["Environment"] is None
    assert aws("GetFunction", FunctionName="hook")["Tags"] is None


def test_another_code_is_in_force_at_once(aws: Lambda) -> None:
    made = aws.create()
    location = aws("GetFunction", FunctionName="hook")["Code"]["Location"]
    aws.registry.clock.now += 60
    tried = aws("UpdateFunctionCode", FunctionName="hook", ZipFile=OTHER_CODE, DryRun=True)
    assert tried["CodeSha256"] == sha256(OTHER_CODE)
    assert aws("GetFunctionConfiguration", FunctionName="hook") == made
    changed = aws(
        "UpdateFunctionCode",
        FunctionName="hook",
        ZipFile=OTHER_CODE,
        RevisionId=made["RevisionId"],
        Architectures=["arm64"],
    )
    assert changed["CodeSha256"] == sha256(OTHER_CODE)
    assert changed["CodeSize"] == len(OTHER_CODE)
    assert changed["LastModified"] > made["LastModified"]
    assert changed["RevisionId"] != made["RevisionId"]
    assert stored_code(aws, "hook") == OTHER_CODE
    assert aws("GetFunction", FunctionName="hook")["Code"]["Location"] != location
    assert len(code_ids(aws)) == 1


def test_a_configuration_is_changed_member_by_member(aws: Lambda) -> None:
    made = aws.create(Environment={"Variables": {"A1": "1", "B1": "2"}})
    other = add_role(aws.registry, "other", "lambda.amazonaws.com")
    for members, shown in (
        ({"Description": "d"}, {"Description": "d"}),
        ({"Timeout": 900, "MemorySize": 10240}, {"Timeout": 900, "MemorySize": 10240}),
        ({"Handler": "a.b"}, {"Handler": "a.b"}),
        ({"Role": other}, {"Role": other}),
        ({"Environment": {"Variables": {"C1": "3"}}}, {"Environment": {"Variables": {"C1": "3"}}}),
        ({"Environment": {"Variables": {}}}, {"Environment": None}),
        ({"Runtime": runtimes()[0]}, {}),
        ({"TracingConfig": {"Mode": "PassThrough"}, "VpcConfig": {"SubnetIds": []}}, {}),
    ):
        before = aws("GetFunctionConfiguration", FunctionName="hook")
        changed = aws("UpdateFunctionConfiguration", FunctionName="hook", **members)
        assert changed == before | shown | {"RevisionId": changed["RevisionId"]}
        assert changed["RevisionId"] != before["RevisionId"]
        assert aws("GetFunctionConfiguration", FunctionName="hook") == changed
    with pytest.raises(PreconditionFailedException, match="The Revision Id provided"):
        aws(
            "UpdateFunctionConfiguration",
            FunctionName="hook",
            Timeout=1,
            RevisionId=made["RevisionId"],
        )


def test_code_of_several_parts_is_what_was_sent(aws: Lambda) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("data", bytes(range(256)) * 7000)
    code = out.getvalue()
    assert len(code) > 2 * functions.PART
    assert aws.create(Code={"ZipFile": code})["CodeSha256"] == sha256(code)
    assert stored_code(aws, "hook") == code
    aws("DeleteFunction", FunctionName="hook")
    assert code_ids(aws) == set()


def test_what_an_upload_left_behind_is_removed_by_a_later_one(aws: Lambda) -> None:
    services = aws.registry.services
    for age, code_id in ((3601, "old"), (3599, "new")):
        at = START - age
        aws.registry.runner.run(services.store.write(functions.add_code, code_id, 0, "", at))
    aws.create()
    found = aws.registry.runner.run(services.store.read(functions.find_function, "hook"))
    assert found is not None
    assert code_ids(aws) == {"new", found.code_id}


def test_listings_go_by_name_page_by_page(aws: Lambda) -> None:
    for name in ("b", "d", "a", "hidden"):
        aws.create(name)
    for name in ("c", "hidden", "Z"):
        configure(aws.registry, name)
    seen: list[dict[str, Any]] = []
    marker: dict[str, str] = {}
    while True:
        page = aws("ListFunctions", MaxItems=2, FunctionVersion="ALL", **marker)
        assert len(page["Functions"]) <= 2
        seen += page["Functions"]
        if page["NextMarker"] is None:
            break
        marker = {"Marker": page["NextMarker"]}
    assert [each["FunctionName"] for each in seen] == ["Z", "a", "b", "c", "d", "hidden"]
    hidden = seen[-1]
    assert hidden["Description"] == "configured python:company.hooks:allow"
    with pytest.raises(InvalidParameterValueException, match="page token"):
        aws("ListFunctions", Marker="x")


def test_a_deleted_function_leaves_nothing(aws: Lambda) -> None:
    aws.create(Tags={"a": "1"})
    with pytest.raises(InvalidParameterValueException, match="cannot be deleted without"):
        aws("DeleteFunction", FunctionName="hook", Qualifier="$LATEST")
    assert aws("DeleteFunction", FunctionName="hook") == {"StatusCode": 204}
    assert code_ids(aws) == set()
    for operation in ("GetFunction", "DeleteFunction", "GetPolicy", "ListVersionsByFunction"):
        with pytest.raises(ResourceNotFoundException, match="Function not found: arn:aws:lambda"):
            aws(operation, FunctionName="hook")
    aws.create()
    assert aws("ListTags", Resource=aws.arn("hook")) == {"Tags": {}}


def test_tags_are_given_and_taken(aws: Lambda) -> None:
    arn = aws.create(Tags={"a": "1"})["FunctionArn"]
    aws("TagResource", Resource=arn, Tags={"a": "2", "b": ""})
    aws("UntagResource", Resource=arn, TagKeys=["a", "x"])
    assert aws("ListTags", Resource=arn) == {"Tags": {"b": ""}}
    for resource, error in (
        (aws.arn("other"), ResourceNotFoundException),
        (arn + ":$LATEST", InvalidParameterValueException),
        (arn.replace("eu-west-1", "us-east-1"), InvalidParameterValueException),
    ):
        with pytest.raises(error):
            aws("TagResource", Resource=resource, Tags={"a": "1"})
    with pytest.raises(InvalidParameterValueException, match="reserved for AWS"):
        aws("TagResource", Resource=arn, Tags={"aws:a": "1"})
    with pytest.raises(InvalidParameterValueException, match="51 tags"):
        aws("TagResource", Resource=arn, Tags={str(n): "" for n in range(50)})


def test_functions_of_the_configuration_are_shown_and_not_changed(aws: Lambda) -> None:
    configure(aws.registry, "allow")
    found = aws("GetFunction", FunctionName="allow")
    assert found["Code"] == {"RepositoryType": "configured"}
    shown = found["Configuration"]
    assert shown["FunctionArn"] == aws.arn("allow")
    assert shown["Description"] == "configured python:company.hooks:allow"
    assert (shown["Handler"], shown["Timeout"], shown["MemorySize"]) == (
        "company.hooks.allow",
        5,
        512,
    )
    assert aws("GetFunctionConfiguration", FunctionName="allow") == shown
    assert aws("ListTags", Resource=aws.arn("allow")) == {"Tags": {}}
    refusals: tuple[Callable[[], object], ...] = (
        lambda: aws.create("allow"),
        lambda: aws("UpdateFunctionCode", FunctionName="allow", ZipFile=CODE),
        lambda: aws("UpdateFunctionConfiguration", FunctionName="allow", Timeout=1),
        lambda: aws("DeleteFunction", FunctionName="allow"),
    )
    for refused in refusals:
        with pytest.raises(ResourceConflictException, match="one of the configuration"):
            refused()
    with pytest.raises(InvalidParameterValueException, match="of the configuration"):
        aws("TagResource", Resource=aws.arn("allow"), Tags={"a": "1"})


ODD = "Could not unzip uploaded file"


def outside(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, "x")
    return out.getvalue()


def damaged() -> bytes:
    """A zip whose directory is in order, and a file in it is not."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("x", "handler")
    return out.getvalue().replace(b"handler", b"Handler")


@pytest.mark.parametrize(
    ("members", "error", "message"),
    [
        ({"FunctionName": "a b"}, ValidationException, "at 'functionName' failed"),
        ({"FunctionName": "n" * 65}, InvalidParameterValueException, "the limit is 64"),
        (
            {"FunctionName": "arn:aws:lambda:eu-west-1:210987654321:function:x"},
            ResourceNotFoundException,
            "210987654321",
        ),
        (
            {"FunctionName": "arn:aws:lambda:us-east-1:123456789012:function:x"},
            ResourceNotFoundException,
            "Functions from 'us-east-1' are not reachable in this region ('eu-west-1')",
        ),
        ({"FunctionName": "x:1"}, ResourceNotFoundException, "function:x:1"),
        ({"Runtime": "python9.9"}, ValidationException, "at 'runtime' failed"),
        ({"Runtime": "dotnet8"}, InvalidParameterValueException, runtimes()[0]),
        ({"Runtime": None}, InvalidParameterValueException, "Runtime is mandatory"),
        ({"Handler": None}, InvalidParameterValueException, "Handler is mandatory"),
        ({"Timeout": 0}, ValidationException, "at 'timeout' failed"),
        ({"Timeout": 901}, InvalidParameterValueException, "less than or equal to 900"),
        ({"MemorySize": 127}, ValidationException, "at 'memorySize' failed"),
        ({"MemorySize": 10241}, InvalidParameterValueException, "less than or equal to 10240"),
        ({"PackageType": "Image"}, InvalidParameterValueException, "PackageType `Image`"),
        ({"Publish": True}, InvalidParameterValueException, "`Publish` of CreateFunction"),
        ({"Layers": ["arn:aws:lambda:eu-west-1:123456789012:layer:l:1"]}, None, "`Layers`"),
        ({"TracingConfig": {"Mode": "Active"}}, None, "`TracingConfig.Mode` `Active`"),
        ({"EphemeralStorage": {"Size": 1024}}, None, "only `512`"),
        ({"LoggingConfig": {"LogFormat": "JSON"}}, None, "only `Text`"),
        ({"SnapStart": {"ApplyOn": "PublishedVersions"}}, None, "only `None`"),
        ({"VpcConfig": {"SubnetIds": ["subnet-1"]}}, None, "`VpcConfig.SubnetIds`"),
        ({"Environment": {"Variables": {"1": "x"}}}, ValidationException, "environment"),
        (
            {"Environment": {"Variables": {"AWS_REGION": "x", "_HANDLER": "x"}}},
            ValidationException,
            "environment",
        ),
        (
            {"Environment": {"Variables": {"AWS_REGION": "secret"}}},
            InvalidParameterValueException,
            "Reserved keys used in this request: AWS_REGION",
        ),
        ({"Environment": {"Variables": {"KEY": "x" * 4096}}}, None, "allowed are 4096"),
        ({"Environment": {"Variables": {"KEY": "a\0b"}}}, None, "`KEY` contains U+0000"),
        ({"Role": "arn:aws:iam::123456789012:role/absent"}, None, "cannot be assumed by Lambda."),
        ({"Role": "role"}, ValidationException, "at 'role' failed"),
        ({"Code": {}}, None, "Please provide a source for function code."),
        ({"Code": {"S3Bucket": "bucket", "S3Key": "key"}}, None, "`S3Bucket` is not offered"),
        ({"Code": {"ZipFile": b"no zip"}}, None, ODD),
        ({"Code": {"ZipFile": CODE[:-30]}}, None, ODD),
        ({"Code": {"ZipFile": zipped()}}, None, f"{ODD}. Please check"),
        ({"Code": {"ZipFile": zipped()}}, None, "the zip is empty"),
        ({"Code": {"ZipFile": outside("../x")}}, None, "`../x` of the zip: the name has `..`"),
        ({"Code": {"ZipFile": outside("/x")}}, None, "`/x` of the zip: the name is absolute"),
        ({"Code": {"ZipFile": damaged()}}, None, "Bad CRC-32"),
        ({"Tags": {"aws:x": "1"}}, None, "reserved for AWS"),
        ({"KMSKeyArn": "arn:aws:kms:x:y"}, None, "`KMSKeyArn`"),
    ],
)
def test_what_is_not_created(
    aws: Lambda, members: dict[str, Any], error: type[ServiceError] | None, message: str
) -> None:
    with pytest.raises(error or InvalidParameterValueException) as refused:
        aws.create(**{"name" if key == "FunctionName" else key: members[key] for key in members})
    assert message in refused.value.message
    assert "secret" not in refused.value.message
    assert code_ids(aws) == set()


def test_a_role_has_to_trust_lambda(aws: Lambda) -> None:
    role = add_role(aws.registry, "provisioning")
    with pytest.raises(InvalidParameterValueException) as refused:
        aws.create(Role=role)
    words = "The role defined for the function cannot be assumed by Lambda."
    assert refused.value.message.startswith(words)
    assert "`lambda.amazonaws.com`" in refused.value.message
    aws.create()
    with pytest.raises(InvalidParameterValueException, match="cannot be assumed by Lambda"):
        aws("UpdateFunctionConfiguration", FunctionName="hook", Role=role)


def test_a_name_is_given_once(aws: Lambda) -> None:
    aws.create()
    with pytest.raises(ResourceConflictException, match="Function already exist: hook"):
        aws.create(Code={"ZipFile": OTHER_CODE})
    assert stored_code(aws, "hook") == CODE
    assert len(code_ids(aws)) == 1


def test_what_is_not_updated(aws: Lambda) -> None:
    made = aws.create()
    for members, error, message in (
        ({"RevisionId": "x"}, PreconditionFailedException, "latest Revision Id"),
        ({"FunctionName": "x"}, ResourceNotFoundException, "Function not found"),
        ({"ZipFile": b"x"}, InvalidParameterValueException, ODD),
        ({"ZipFile": None}, InvalidParameterValueException, "provide a source"),
        ({"Publish": True}, InvalidParameterValueException, "`Publish` of UpdateFunctionCode"),
        ({"S3Bucket": "bucket"}, InvalidParameterValueException, "`S3Bucket`"),
    ):
        wanted: dict[str, Any] = {"FunctionName": "hook", "ZipFile": OTHER_CODE, **members}
        with pytest.raises(error, match=message):
            aws("UpdateFunctionCode", **wanted)
    assert aws("GetFunctionConfiguration", FunctionName="hook") == made
    assert len(code_ids(aws)) == 1


def test_quotas_of_the_account(aws: Lambda) -> None:
    aws.create("one")
    limit(aws, functions=1)
    with pytest.raises(TooManyRequestsException, match="`functions` is 1"):
        aws.create("two")
    limit(aws, functions=2, function_storage=2 * len(CODE) - 1)
    with pytest.raises(CodeStorageExceededException, match="Code storage limit exceeded"):
        aws.create("two")
    aws("UpdateFunctionCode", FunctionName="one", ZipFile=CODE)  # instead of what it has
    limit(aws, function_code=len(CODE) - 1)
    with pytest.raises(RequestEntityTooLargeException, match="`function_code`"):
        aws("UpdateFunctionCode", FunctionName="one", ZipFile=CODE)
    limit(aws, function_code=len(CODE), function_code_unzipped=10)
    with pytest.raises(InvalidParameterValueException, match="more than 10 bytes"):
        aws("UpdateFunctionCode", FunctionName="one", ZipFile=CODE)
    assert len(code_ids(aws)) == 1


def test_an_uploaded_function_that_the_configuration_hides_is_told(
    aws: Lambda, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("seen", "hidden"):
        aws.create(name)
    for name in ("hidden", "alone"):
        configure(aws.registry, name)
    caplog.clear()
    aws.registry.runner.run(tell_hidden(aws.registry.services))
    (line,) = [each for each in caplog.messages if "event=function-hidden" in each]
    assert line == (
        f"event=function-hidden function=hidden uploaded='{runtimes()[0]} hook.handler' "
        "cause='[functions] of the configuration has one of this name, which is run instead'"
    )

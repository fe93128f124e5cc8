"""Access keys and session tokens: who is behind them, and when they are good for nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.errors import ExpiredTokenException, InvalidToken, PackedPolicyTooLarge
from fleetgate.operations import credentials, session_tokens
from fleetgate.operations.call import Call
from fleetgate.operations.caller import Caller
from fleetgate.operations.condition_keys import looks_at_tags
from fleetgate.operations.credentials import Found, Keyring, Session
from fleetgate.operations.kept import SHARE
from fleetgate.store import iam_users
from tests.operations.conftest import Registry, elsewhere
from tests.operations.iam import ACCOUNT, Iam, allow

ROOT = f"arn:aws:iam::{ACCOUNT}:root"
TRUST_ACCOUNT = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"AWS": ROOT},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        },
    }
)


class Keys:
    """The keyring of a registry, asked at the registry's time."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.iam = Iam(registry)
        self.ring = Keyring(registry.services, "AKIAROOT", "root's secret")

    def find(self, key: str, token: str | None = None) -> Found | None:
        return self.registry.runner.run(self.ring.find(key, token, self.registry.clock()))

    def caller(self, key: str, token: str | None = None) -> Caller:
        found = self.find(key, token)
        assert found is not None
        return found.caller

    def user(self, name: str, *documents: str) -> dict[str, Any]:
        """A new user with these policies; the user's access key."""
        self.iam("CreateUser", UserName=name)
        for at, document in enumerate(documents):
            self.iam("PutUserPolicy", UserName=name, PolicyName=f"p{at}", PolicyDocument=document)
        key: dict[str, Any] = self.iam("CreateAccessKey", UserName=name)["AccessKey"]
        return key

    def session(self, **changes: Any) -> Session:
        services = self.registry.services
        call = Call(services, "request", self.registry.clock())
        wanted = {"principal_arn": ROOT, "principal_id": ACCOUNT, "duration": 900.0, **changes}
        return credentials.issue_session(call, **wanted)

    def role(self, name: str, document: str = allow("iot:*")) -> dict[str, Any]:
        found = self.iam("CreateRole", RoleName=name, AssumeRolePolicyDocument=TRUST_ACCOUNT)
        self.iam("PutRolePolicy", RoleName=name, PolicyName="p", PolicyDocument=document)
        role: dict[str, Any] = found["Role"]
        return role


@pytest.fixture
def keys(registry: Registry) -> Keys:
    return Keys(registry)


def allowed(caller: Caller, action: str, resource: str = "*") -> bool:
    assert caller.policies is not None
    return caller.policies.evaluate(action, resource).allowed


# --- the root user and users ----------------------------------------------------------------------


def test_the_root_user(keys: Keys) -> None:
    found = keys.find("AKIAROOT")
    assert found is not None
    assert (found.secret_access_key, found.caller.arn) == ("root's secret", ROOT)
    assert found.caller.is_root
    assert "root's secret" not in repr((found, keys.ring))


def test_the_key_of_a_user(keys: Keys) -> None:
    key = keys.user("ann", allow("iot:ListThings"))
    found = keys.find(key["AccessKeyId"])
    assert found is not None
    assert found.secret_access_key == key["SecretAccessKey"]
    caller = found.caller
    assert caller.arn == caller.principal_arn == f"arn:aws:iam::{ACCOUNT}:user/ann"
    assert allowed(caller, "iot:ListThings")
    assert not allowed(caller, "iot:CreateThing")
    assert caller.values["aws:username"] == ("ann",)
    assert caller.values["aws:userid"] == (caller.user_id,)
    assert caller.values["aws:PrincipalType"] == ("User",)


def test_variables_in_policies_are_those_of_the_user(keys: Keys) -> None:
    own = allow("iot:CreateThing", resource="arn:aws:iot:*:*:thing/${aws:username}-*")
    for name in ("ann", "bob"):
        caller = keys.caller(keys.user(name, own)["AccessKeyId"])
        assert allowed(caller, "iot:CreateThing", f"arn:aws:iot:r:a:thing/{name}-1")
        assert not allowed(caller, "iot:CreateThing", "arn:aws:iot:r:a:thing/eve-1")


def test_what_a_policy_looks_at_is_known_however_it_is_written(keys: Keys) -> None:
    """JSON has more than one way to write a name."""
    written = allow("iot:*").replace('"Action"', '"Condition": CONDITION, "Action"')
    found = {}
    for at, condition in enumerate(
        (
            r'{"StringEquals": {"AWS:ResourceT\u0061g\/site": "A"}}',
            '{"StringEquals": {"aws:username": "ann"}}',
        )
    ):
        caller = keys.caller(
            keys.user(f"u{at}", written.replace("CONDITION", condition))["AccessKeyId"]
        )
        found[at] = looks_at_tags(caller.held), caller.asks_for_values
    caller = keys.caller(keys.user("plain", allow("iot:*"))["AccessKeyId"])
    assert found == {0: (True, True), 1: (False, True)}
    assert (looks_at_tags(caller.held), caller.asks_for_values) == (False, False)


@pytest.mark.parametrize("key", ["", "AKIA", "AKIAUNKNOWNUNKNOWN00", "ASIAUNKNOWNUNKNOWN00"])
def test_an_unknown_key(keys: Keys, key: str) -> None:
    assert keys.find(key) is None
    assert keys.find(key, "token") is None
    assert keys.find(key, "") is None


def test_a_key_does_not_go_with_any_token(keys: Keys) -> None:
    key = keys.user("ann")["AccessKeyId"]
    session = keys.session()
    assert keys.find(key, session.session_token) is None
    assert keys.find("AKIAROOT", session.session_token) is None
    assert keys.find(session.access_key_id) is None
    assert keys.find(keys.session().access_key_id, session.session_token) is None


def test_what_changes_in_iam_holds_for_the_next_call(keys: Keys) -> None:
    key = keys.user("ann")["AccessKeyId"]
    assert not allowed(keys.caller(key), "iot:ListThings")
    keys.iam(
        "PutUserPolicy",
        UserName="ann",
        PolicyName="p",
        PolicyDocument=allow("iot:ListThings"),
    )
    assert allowed(keys.caller(key), "iot:ListThings")
    keys.iam("DeleteUserPolicy", UserName="ann", PolicyName="p")
    assert not allowed(keys.caller(key), "iot:ListThings")
    keys.iam("UpdateAccessKey", UserName="ann", AccessKeyId=key, Status="Inactive")
    assert keys.find(key) is None
    keys.iam("UpdateAccessKey", UserName="ann", AccessKeyId=key, Status="Active")
    assert keys.find(key) is not None
    keys.iam("DeleteAccessKey", UserName="ann", AccessKeyId=key)
    assert keys.find(key) is None


def test_a_version_of_a_managed_policy_holds_when_it_is_the_default(keys: Keys) -> None:
    key = keys.user("ann")["AccessKeyId"]
    created = keys.iam("CreatePolicy", PolicyName="m", PolicyDocument=allow("iot:ListThings"))
    arn = created["Policy"]["Arn"]
    keys.iam("AttachUserPolicy", UserName="ann", PolicyArn=arn)
    assert allowed(keys.caller(key), "iot:ListThings")
    keys.iam(
        "CreatePolicyVersion",
        PolicyArn=arn,
        PolicyDocument=allow("iot:ListPolicies"),
        SetAsDefault=True,
    )
    assert not allowed(keys.caller(key), "iot:ListThings")
    keys.iam("SetDefaultPolicyVersion", PolicyArn=arn, VersionId="v1")
    assert allowed(keys.caller(key), "iot:ListThings")


def test_what_was_found_is_kept(keys: Keys) -> None:
    key = keys.user("ann")["AccessKeyId"]
    assert keys.caller(key) is keys.caller(key)
    session = keys.session(principal_id=keys.caller(key).user_id)
    first = keys.caller(session.access_key_id, session.session_token)
    assert first is keys.caller(session.access_key_id, session.session_token)


def test_sessions_of_one_do_not_drive_out_others(keys: Keys) -> None:
    """A session may be had for the asking, with a policy as large as a token holds."""
    key = keys.user("ann", allow("iot:*"))["AccessKeyId"]
    role = keys.role("installer")
    first = keys.caller(key)
    policy = allow("iot:*", resource=f"arn:aws:iot:*:*:{'a' * 2000}")
    share = credentials.MAX_KEPT // SHARE // len(policy)
    for number in range(share + 10):
        session = keys.session(
            principal_arn=role["Arn"],
            principal_id=role["RoleId"],
            session_name=f"s{number}",
            session_policies=[policy],
        )
        latest = keys.caller(session.access_key_id, session.session_token)
    assert keys.caller(session.access_key_id, session.session_token) is latest
    assert keys.caller(key) is first
    assert len(keys.ring._kept) < share


def test_a_tag_of_a_session_takes_the_place_of_the_roles(keys: Keys) -> None:
    """IAM User Guide, "Pass session tags in AWS STS": keys have no case there."""
    role = keys.role("installer")
    keys.iam("TagRole", RoleName="installer", Tags=[{"Key": "Team", "Value": "red"}])
    looks = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow",
                "Action": "*",
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:PrincipalTag/team": "blue"}},
            },
        }
    )
    keys.iam("PutRolePolicy", RoleName="installer", PolicyName="p", PolicyDocument=looks)
    for tags, good in (({}, False), ({"team": "blue"}, True)):
        session = keys.session(
            principal_arn=role["Arn"], principal_id=role["RoleId"], session_name="s", tags=tags
        )
        caller = keys.caller(session.access_key_id, session.session_token)
        assert allowed(caller, "iot:CreateThing") is good


def test_a_key_sealed_by_another_server_is_unknown(registry: Registry, keys: Keys) -> None:
    key = keys.user("ann")["AccessKeyId"]
    other = Keyring(elsewhere(registry.services, token_key=bytes([1] * 32)), "AKIAROOT", "s")
    assert registry.runner.run(other.find(key, None, registry.clock())) is None


def test_the_use_of_a_key_is_noted_once_in_a_while(registry: Registry, keys: Keys) -> None:
    key = keys.user("ann")["AccessKeyId"]
    found = keys.find(key)
    assert found is not None

    def use(service: str) -> tuple[float | None, str | None, str | None]:
        now = registry.clock()
        registry.runner.run(keys.ring.note_use(found, service, "eu-west-1", now))
        kept = registry.runner.run(registry.services.store.read(iam_users.find_access_key, key))
        assert kept is not None
        return kept.used_at, kept.used_service, kept.used_region

    first = registry.clock()
    assert use("iot") == (first, "iot", "eu-west-1")
    registry.clock.now += credentials.USE_NOTED_AFTER - 1
    assert use("sts") == (first, "iot", "eu-west-1")
    registry.clock.now += 1
    assert use("sts") == (first + credentials.USE_NOTED_AFTER, "sts", "eu-west-1")


# --- sessions -------------------------------------------------------------------------------------


def test_a_session_of_a_role(keys: Keys) -> None:
    role = keys.role("installer")
    session = keys.session(
        principal_arn=role["Arn"],
        principal_id=role["RoleId"],
        session_name="phone",
        tags={"site": "A"},
    )
    assert session.access_key_id.startswith("ASIA")
    assert len(session.access_key_id) == 20
    assert len(session.secret_access_key) == 40
    found = keys.find(session.access_key_id, session.session_token)
    assert found is not None
    assert found.secret_access_key == session.secret_access_key
    caller = found.caller
    assert caller.arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/installer/phone"
    assert caller.principal_arn == role["Arn"]
    assert caller.user_id == f"{role['RoleId']}:phone"
    assert caller.session_kind == "role"
    assert caller.values["aws:PrincipalTag/site"] == ("A",)
    assert caller.values["aws:TokenIssueTime"] == ("2026-09-21T14:13:20Z",)
    assert "aws:username" not in caller.values
    assert allowed(caller, "iot:CreateThing")
    # the role's policies are those of the moment, not those of AssumeRole
    keys.iam("DeleteRolePolicy", RoleName="installer", PolicyName="p")
    caller = keys.caller(session.access_key_id, session.session_token)
    assert not allowed(caller, "iot:CreateThing")


def test_a_session_of_a_user_and_of_the_root_user(keys: Keys) -> None:
    user = keys.caller(keys.user("ann", allow("iot:*"))["AccessKeyId"])
    session = keys.session(principal_arn=user.arn, principal_id=user.user_id)
    caller = keys.caller(session.access_key_id, session.session_token)
    assert (caller.arn, caller.user_id, caller.session_kind) == (user.arn, user.user_id, "user")
    assert allowed(caller, "iot:CreateThing")
    session = keys.session()
    caller = keys.caller(session.access_key_id, session.session_token)
    assert caller.is_root
    assert (caller.arn, caller.session_kind) == (ROOT, "user")


def test_a_session_ends(keys: Keys, registry: Registry) -> None:
    session = keys.session(duration=900.0)
    assert session.expiration == registry.clock() + 900
    for kept in (False, True):
        registry.clock.now = session.expiration - 1
        if kept:
            assert keys.find(session.access_key_id, session.session_token) is not None
        registry.clock.now = session.expiration
        with pytest.raises(ExpiredTokenException) as caught:
            keys.find(session.access_key_id, session.session_token)
        # AWS's words
        assert caught.value.message == "The security token included in the request is expired"


def test_a_session_ends_with_its_role(keys: Keys) -> None:
    role = keys.role("installer")
    session = keys.session(principal_arn=role["Arn"], principal_id=role["RoleId"], session_name="s")
    assert keys.find(session.access_key_id, session.session_token) is not None
    keys.iam("DeleteRolePolicy", RoleName="installer", PolicyName="p")
    keys.iam("DeleteRole", RoleName="installer")
    assert keys.find(session.access_key_id, session.session_token) is None
    keys.role("installer")  # another one of the same name
    assert keys.find(session.access_key_id, session.session_token) is None


def test_a_session_ends_with_its_user(keys: Keys) -> None:
    key = keys.user("ann")["AccessKeyId"]
    user = keys.caller(key)
    session = keys.session(principal_arn=user.arn, principal_id=user.user_id)
    assert keys.find(session.access_key_id, session.session_token) is not None
    keys.iam("DeleteAccessKey", UserName="ann", AccessKeyId=key)
    # as with AWS, the session outlives the key that asked for it
    assert keys.find(session.access_key_id, session.session_token) is not None
    keys.iam("DeleteUser", UserName="ann")
    assert keys.find(session.access_key_id, session.session_token) is None


def test_session_policies_bound_the_rights(keys: Keys) -> None:
    role = keys.role("installer")
    session = keys.session(
        principal_arn=role["Arn"],
        principal_id=role["RoleId"],
        session_name="s",
        session_policies=[allow("iot:CreateThing"), allow("iam:*")],
    )
    caller = keys.caller(session.access_key_id, session.session_token)
    assert caller.session is not None
    assert caller.session.evaluate("iot:CreateThing", "*").allowed
    assert not caller.session.evaluate("iot:DeleteThing", "*").allowed


def test_what_does_not_fit_into_a_token_is_refused(keys: Keys) -> None:
    with pytest.raises(PackedPolicyTooLarge, match="8192"):
        keys.session(tags={f"k{each}": f"{each * 7919:x}" * 10 for each in range(1000)})


# --- tokens ---------------------------------------------------------------------------------------

CLAIMS = session_tokens.Claims("ASIAKEY", "arn", "id", "name", ("{}",), {"k": "v"}, 1.0, 2.0)
KEY, NONCE = bytes(range(32)), bytes(12)


def test_a_token_says_what_was_sealed() -> None:
    secret, text = session_tokens.seal(KEY, CLAIMS, NONCE)
    assert session_tokens.open_(KEY, text) == (secret, CLAIMS)
    assert secret not in text


def test_each_session_has_a_secret_of_its_own() -> None:
    others = [
        session_tokens.seal(KEY, CLAIMS, bytes([1] * 12)),
        session_tokens.seal(bytes(32), CLAIMS, NONCE),
        session_tokens.seal(KEY, _with(CLAIMS, access_key_id="ASIAOTHER"), NONCE),
    ]
    secrets = {secret for secret, _ in others} | {session_tokens.seal(KEY, CLAIMS, NONCE)[0]}
    assert len(secrets) == 4


def test_a_token_of_another_server_is_refused() -> None:
    _, text = session_tokens.seal(KEY, CLAIMS, NONCE)
    with pytest.raises(InvalidToken):
        session_tokens.open_(bytes(32), text)


def test_a_changed_token_is_refused() -> None:
    _, text = session_tokens.seal(KEY, CLAIMS, NONCE)
    for at in range(len(text)):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(InvalidToken):
            session_tokens.open_(KEY, changed)


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda each: each.hex()))
def test_whatever_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidToken):
        session_tokens.open_(KEY, text)


def test_a_token_beyond_the_bound_is_not_looked_at() -> None:
    with pytest.raises(InvalidToken, match="8192"):
        session_tokens.open_(KEY, "A" * 8193)
    with pytest.raises(ValueError, match="8192"):
        session_tokens.seal(
            KEY, _with(CLAIMS, tags={f"{each * 104729:x}": "" for each in range(9000)}), NONCE
        )


def _with(claims: session_tokens.Claims, **changes: Any) -> session_tokens.Claims:
    values = {name: getattr(claims, name) for name in claims.__struct_fields__}
    return session_tokens.Claims(**{**values, **changes})

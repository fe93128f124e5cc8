"""Random sequences of calls of IAM and STS break no reference.

A few users, access keys, passwords, roles, policies and sessions, created, changed, renamed and
deleted in any order; after every step all references between rows are followed
(tests/operations/references.py), and every access key and session stands for the one it was given
to, or for nobody.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from fleetgate.errors import ExpiredTokenException, ServiceError
from fleetgate.operations.caller import Caller
from fleetgate.operations.credentials import Found, Keyring
from tests.operations.account_machine import STEPS, TAGS, Account
from tests.operations.conftest import Registry
from tests.operations.iam import allow
from tests.operations.roles import REGISTRATION

USERS, ROLES, POLICIES = ("ann", "bob"), ("reader", "writer"), ("policy1", "policy2")
users, roles, policies = st.sampled_from(USERS), st.sampled_from(ROLES), st.sampled_from(POLICIES)
owners = st.sampled_from([("User", name) for name in USERS] + [("Role", name) for name in ROLES])
flag = st.booleans()
ROOT = "arn:aws:iam::123456789012:root"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"AWS": ROOT},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        },
    }
)
ANYTHING = allow("*")


class Callers(Account):
    """Who may call."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.ring = Keyring(registry.services, "AKIAROOT", "secret")
        self.ids: dict[str, str] = {}
        """The ids of the users and roles there are, by kind and name."""
        self.keys: dict[str, str] = {}
        """Access keys, with the id of their user; also of those that are gone."""
        self.sessions: dict[tuple[str, str], tuple[str, float]] = {}
        """Key and token of sessions, with the id of whose they are and when they end."""

    @initialize()
    def begin(self) -> None:
        self.populate()

    @precondition(lambda self: self.deleted > 2)
    @rule()
    def populate(self) -> None:
        """Whatever is missing, all of it linked: else most calls would meet nothing."""
        self.deleted = 0
        for name in USERS:
            self.create("User", name, tagged=True)
            self.create_key(name)
        self.login_profile("ann", delete=False)
        for name in ROLES:
            self.create("Role", name, tagged=True)
        for name in POLICIES:
            self.policy(name, delete=False, tagged=True)
            self.create_version(name, default=False)
        for owner in (("User", "ann"), ("Role", "reader")):
            self.inline_policy(owner, "own", delete=False)
            self.attachment(owner, "policy1", detach=False)
            self.attachment(owner, "", detach=False)
        self.assume("ann", "reader")

    # --- users and roles --------------------------------------------------------------------------

    @rule(name=users, tagged=flag)
    def create_user(self, name: str, tagged: bool) -> None:
        self.create("User", name, tagged=tagged)

    @rule(name=roles, tagged=flag)
    def create_role(self, name: str, tagged: bool) -> None:
        self.create("Role", name, tagged=tagged)

    def create(self, kind: str, name: str, *, tagged: bool) -> None:
        more = {"AssumeRolePolicyDocument": TRUST} if kind == "Role" else {}
        tags = TAGS if tagged else []
        made = self.ask(f"Create{kind}", **{f"{kind}Name": name}, **more, Tags=tags)
        if made is not None:
            self.ids[f"{kind} {name}"] = made[kind][f"{kind}Id"]
            got = self.iam(f"List{kind}Tags", **{f"{kind}Name": name})["Tags"]
            assert got == tags  # those of one who had the name before are gone

    @rule(owner=owners)
    def delete(self, owner: tuple[str, str]) -> None:
        kind, name = owner
        if self.ask(f"Delete{kind}", **{f"{kind}Name": name}) is not None:
            del self.ids[f"{kind} {name}"]

    @rule(owner=owners)
    def strip(self, owner: tuple[str, str]) -> None:
        """Lets go of everything, so that deleting has a chance."""
        for name in ("own", "other"):
            self.inline_policy(owner, name, delete=True)
        for policy in ("", *POLICIES):
            self.attachment(owner, policy, detach=True)
        if owner[0] == "User":
            self.login_profile(owner[1], delete=True)
            for key in list(self.keys):
                self.ask("DeleteAccessKey", UserName=owner[1], AccessKeyId=key)
        self.delete(owner)

    @rule(name=users, path=st.sampled_from(["/", "/team/"]))
    def move_user(self, name: str, path: str) -> None:
        self.ask("UpdateUser", UserName=name, NewPath=path)

    @rule(name=users, new=users)
    def rename_user(self, name: str, new: str) -> None:
        if self.ask("UpdateUser", UserName=name, NewUserName=new) is not None:
            self.ids[f"User {new}"] = self.ids.pop(f"User {name}")

    @rule(owner=owners, remove=flag)
    def tags(self, owner: tuple[str, str], remove: bool) -> None:
        kind, name = owner
        given: dict[str, Any] = {"TagKeys": ["site"]} if remove else {"Tags": TAGS}
        self.ask(f"{'Untag' if remove else 'Tag'}{kind}", **{f"{kind}Name": name}, **given)

    @rule(name=roles, user=st.none() | users)
    def trust(self, name: str, user: str | None) -> None:
        who = ROOT if user is None else f"arn:aws:iam::123456789012:user/{user}"
        self.ask("UpdateAssumeRolePolicy", RoleName=name, PolicyDocument=TRUST.replace(ROOT, who))

    # --- keys, passwords, sessions ----------------------------------------------------------------

    @rule(name=users)
    def create_key(self, name: str) -> None:
        made = self.ask("CreateAccessKey", UserName=name)
        if made is not None:
            self.keys[made["AccessKey"]["AccessKeyId"]] = self.ids[f"User {name}"]

    @rule(name=users, at=st.integers(0, 5), change=st.sampled_from(["Active", "Inactive", ""]))
    def change_key(self, name: str, at: int, change: str) -> None:
        key = list(self.keys)[at % len(self.keys)]
        operation = "UpdateAccessKey" if change else "DeleteAccessKey"
        self.ask(operation, UserName=name, AccessKeyId=key, Status=change or None)

    @rule(name=users, delete=flag)
    def login_profile(self, name: str, delete: bool) -> None:
        if delete:
            self.ask("DeleteLoginProfile", UserName=name)
        elif self.ask("GetLoginProfile", UserName=name) is None:  # hashing takes its time
            self.ask("CreateLoginProfile", UserName=name, Password="correct horse 1 Battery")

    @rule(name=users, role=roles)
    def assume(self, name: str, role: str) -> None:
        caller = self.caller(name)
        if caller is None:
            return
        try:
            made = self.iam.sts(
                "AssumeRole",
                caller,
                RoleArn=f"arn:aws:iam::123456789012:role/{role}",
                RoleSessionName="session",
                DurationSeconds=900,
            )
        except ServiceError:
            return
        self.keep(made["Credentials"], self.ids[f"Role {role}"], 900)

    @rule(name=users)
    def session_token(self, name: str) -> None:
        caller = self.caller(name)
        if caller is not None:
            made = self.iam.sts("GetSessionToken", caller, DurationSeconds=1800)
            self.keep(made["Credentials"], caller.user_id, 1800)

    def caller(self, name: str) -> Caller | None:
        """The user by one of their active keys."""
        for key, who in self.keys.items():
            if who == self.ids.get(f"User {name}"):
                found = self.find(key)
                if found is not None:
                    return found.caller
        return None

    def keep(self, given: dict[str, Any], who: str, seconds: float) -> None:
        ends = self.registry.clock.now + seconds
        self.sessions[given["AccessKeyId"], given["SessionToken"]] = who, ends
        if len(self.sessions) > 5:
            del self.sessions[next(iter(self.sessions))]
        self.changed = True

    @rule()
    def time_passes(self) -> None:
        self.registry.clock.now += 500
        self.changed = True

    def find(self, key: str, token: str | None = None) -> Found | None:
        now = self.registry.clock.now
        return self.registry.runner.run(self.ring.find(key, token, now))

    # --- policies ---------------------------------------------------------------------------------

    def arn(self, name: str) -> str:
        return f"arn:aws:iam::123456789012:policy/{name}" if name else REGISTRATION

    @rule(name=policies, delete=flag, tagged=flag)
    def policy(self, name: str, delete: bool, tagged: bool) -> None:
        if delete:
            self.ask("DeletePolicy", PolicyArn=self.arn(name))
            return
        tags = TAGS if tagged else []
        made = self.ask("CreatePolicy", PolicyName=name, PolicyDocument=ANYTHING, Tags=tags)
        if made is not None:
            assert self.iam("ListPolicyTags", PolicyArn=self.arn(name))["Tags"] == tags

    @rule(name=policies, default=flag)
    def create_version(self, name: str, default: bool) -> None:
        self.ask(
            "CreatePolicyVersion",
            PolicyArn=self.arn(name),
            PolicyDocument=ANYTHING,
            SetAsDefault=default,
        )

    @rule(name=policies, version=st.integers(1, 6), delete=flag)
    def version(self, name: str, version: int, delete: bool) -> None:
        operation = "DeletePolicyVersion" if delete else "SetDefaultPolicyVersion"
        self.ask(operation, PolicyArn=self.arn(name), VersionId=f"v{version}")

    @rule(name=policies)
    def strip_policy(self, name: str) -> None:
        """Lets go of everything, so that deleting has a chance."""
        for owner in (*(("User", name) for name in USERS), *(("Role", name) for name in ROLES)):
            self.attachment(owner, name, detach=True)
        for version in range(1, 7):
            self.version(name, version, delete=True)
        self.policy(name, delete=True, tagged=False)

    @rule(owner=owners, name=st.sampled_from(["own", "other"]), delete=flag)
    def inline_policy(self, owner: tuple[str, str], name: str, delete: bool) -> None:
        kind, of = owner
        document = None if delete else ANYTHING
        self.ask(
            f"{'Delete' if delete else 'Put'}{kind}Policy",
            **{f"{kind}Name": of},
            PolicyName=name,
            PolicyDocument=document,
        )

    @rule(owner=owners, policy=st.sampled_from(["", *POLICIES]), detach=flag)
    def attachment(self, owner: tuple[str, str], policy: str, detach: bool) -> None:
        kind, of = owner
        operation = f"{'Detach' if detach else 'Attach'}{kind}Policy"
        self.ask(operation, **{f"{kind}Name": of}, PolicyArn=self.arn(policy))

    # --- what has to hold -------------------------------------------------------------------------

    def look(self) -> None:
        there = set(self.ids.values())
        listed = {each["UserId"] for each in self.iam("ListUsers")["Users"]}
        listed |= {each["RoleId"] for each in self.iam("ListRoles")["Roles"]}
        assert listed == there
        active = {
            each["AccessKeyId"]
            for name in USERS
            if f"User {name}" in self.ids
            for each in self.iam("ListAccessKeys", UserName=name)["AccessKeyMetadata"]
            if each["Status"] == "Active"
        }
        for key, who in self.keys.items():
            found = self.find(key)
            assert (found is not None) == (key in active)
            assert found is None or (found.caller.user_id == who and who in there)
        for (key, token), (who, ends) in self.sessions.items():
            if self.registry.clock.now >= ends:
                with pytest.raises(ExpiredTokenException):
                    self.find(key, token)
                continue
            # one of the same name that was made anew is somebody else
            found = self.find(key, token)
            assert (found is not None) == (who in there)
            assert found is None or found.caller.user_id.partition(":")[0] == who


def test_no_sequence_of_calls_breaks_a_reference_of_iam(registry: Registry) -> None:
    begin: Any = lambda: Callers(registry)  # noqa: E731 - whatever makes one, says its documentation
    run_state_machine_as_test(begin, settings=STEPS)

"""What a policy compares: the seccomp hash, and who a process runs as."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import Failed
from uvmd.linux.accounts import Accounts, Group, User
from uvmd.oci.seccomp import canonical, seccomp_hash
from uvmd.oci.user_info import UserInfo, no_user_info, user_info

FULL = {
    "syscalls": [
        {
            "args": [{"op": "SCMP_CMP_EQ", "valueTwo": 0, "value": 8, "index": 1}],
            "names": ["a"],
            "action": "X",
        },
        {"action": "Y", "errnoRet": 0, "args": []},
        {"names": [], "action": ""},
    ],
    "flags": ["F"],
    "listenerMetadata": "<&>\u2028\u2029",
    "listenerPath": "",
    "architectures": [],
    "defaultErrnoRet": 0,
    "defaultAction": "SCMP_ACT_ERRNO",
    "surprise": 1,
}


def test_the_canonical_text_is_that_of_the_reference() -> None:
    assert canonical(FULL) == (
        '{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":0,"flags":["F"],'
        '"listenerMetadata":"\\u003c\\u0026\\u003e\\u2028\\u2029","syscalls":['
        '{"names":["a"],"action":"X","args":[{"index":1,"value":8,"op":"SCMP_CMP_EQ"}]},'
        '{"names":null,"action":"Y","errnoRet":0},{"names":[],"action":""}]}'
    )
    assert canonical({}) == '{"defaultAction":""}'


def test_the_hash_is_of_the_text_and_empty_without_a_profile() -> None:
    assert seccomp_hash(None) == ""
    assert seccomp_hash(FULL) == hashlib.sha256(canonical(FULL).encode()).hexdigest()


@given(st.text(max_size=20), st.lists(st.text(max_size=5), max_size=3))
def test_any_text_survives_the_escapes(action: str, names: list[str]) -> None:
    text = canonical({"defaultAction": action, "syscalls": [{"names": names, "action": action}]})
    assert not set("<>&\u2028\u2029") & set(text)
    back = json.loads(text)
    assert back["defaultAction"] == action
    assert back["syscalls"][0]["names"] == names


BOTH = Accounts(
    (User("root", 0, 0), User("bob", 7, 8)), (Group("root", 0), Group("staff", 50), Group("bobs", 8))
)
NONE = Accounts(None, None)


def who(accounts: Accounts, **user: Any) -> UserInfo:
    return user_info({"user": user}, accounts)


def named(id_text: str, name: str) -> dict[str, str]:
    return {"id": id_text, "name": name}


def test_numbers_are_named_from_the_image() -> None:
    assert who(BOTH, uid=7, gid=50, additionalGids=[0]) == UserInfo(
        named("7", "bob"), [named("50", "staff"), named("0", "root")], "0022"
    )
    assert who(BOTH, umask=0o77).umask == "0077"


def test_without_files_numbers_have_no_names() -> None:
    assert who(NONE, uid=7, gid=9, additionalGids=[3]) == UserInfo(
        named("7", ""), [named("9", ""), named("3", "")], "0022"
    )


@pytest.mark.parametrize(
    ("text", "user", "group"),
    [
        ("bob", named("7", "bob"), named("8", "bobs")),
        ("7", named("7", "bob"), named("8", "bobs")),
        ("9", named("9", ""), named("0", "root")),
        ("bob:staff", named("7", "bob"), named("50", "staff")),
        ("bob:50", named("7", "bob"), named("50", "staff")),
        ("bob:51", named("7", "bob"), named("51", "")),
    ],
)
def test_user_strings_are_named(text: str, user: dict[str, str], group: dict[str, str]) -> None:
    info = who(BOTH, username=text)
    assert (info.user, list(info.groups)) == (user, [group])


@pytest.mark.parametrize(
    "user",
    [{"uid": 5}, {"uid": 7, "gid": 5}, {"uid": 7, "gid": 8, "additionalGids": [5]}, {"username": "eve"},
     {"username": "bob:eve"}, {"username": "a:b:c"}, {"username": "bob", "additionalGids": [5]}],
)  # fmt: skip
def test_who_cannot_be_named_is_refused(user: dict[str, Any]) -> None:
    with pytest.raises(Failed):
        who(BOTH, **user)


def test_a_user_string_with_more_groups_needs_the_group_file() -> None:
    users_only = Accounts(BOTH.users, None)
    assert who(users_only, username="bob").groups == [named("8", "")]
    with pytest.raises(Failed):
        who(users_only, username="bob", additionalGids=[8])


def test_a_policy_that_does_not_want_to_know_gets_empty_answers() -> None:
    assert no_user_info() == UserInfo(named("", ""), [], "")

"""Who a process runs as, in the words of the policy (spec containers.md 15.3, policy.md 9.9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from uvmd.errors import Failed
from uvmd.linux.accounts import Accounts
from uvmd.oci.shape.users import parse_id, require_id, user_by_name

IdName = dict[str, str]


@dataclass(frozen=True, slots=True)
class UserInfo:
    """The policy's input keys ``user``, ``groups`` and ``umask``."""

    user: IdName
    groups: Sequence[IdName]
    umask: str


def no_user_info() -> UserInfo:
    """Return the empty answer that the built-in stances get."""
    return UserInfo(_pair("", ""), [], "")


_DEFAULT_UMASK: Final = 0o022


def user_info(process: dict[str, Any], accounts: Accounts) -> UserInfo:
    """Look up the names of a process's user and groups.

    Raises:
        Failed: a name, or an id that must have one, does not match exactly one line.
    """
    user = process["user"]
    umask = f"{user.get('umask', _DEFAULT_UMASK):04o}"
    if username := user.get("username"):
        who, group = _by_string(username, accounts)
        must_resolve = True
    else:
        who = _user_line(user.get("uid", 0), accounts)
        must_resolve = accounts.groups is not None
        group = _group_line(user.get("gid", 0), accounts, must_resolve)
    others = [_group_line(gid, accounts, must_resolve) for gid in user.get("additionalGids", ())]
    return UserInfo(who, [group, *others], umask)


def _pair(id_text: str, name: str) -> IdName:
    return {"id": id_text, "name": name}


def _by_string(username: str, accounts: Accounts) -> tuple[IdName, IdName]:
    text, colon, group_text = username.partition(":")
    if ":" in group_text:
        raise Failed(f"user string {username!r}: more than one colon")
    uid = parse_id(text)
    if uid is None:
        line = user_by_name(text, accounts)
        uid, gid, name = require_id(line.uid), require_id(line.gid), line.name
    else:
        lines = [line for line in accounts.users or () if line.uid == uid]
        gid, name = (require_id(lines[0].gid), lines[0].name) if len(lines) == 1 else (0, "")
    who = _pair(str(uid), name)
    if not colon:
        return who, _group_or_unnamed(gid, accounts)
    number = parse_id(group_text)
    if number is not None:
        return who, _group_or_unnamed(number, accounts)
    matches = [line for line in accounts.groups or () if line.name == group_text]
    if len(matches) != 1:
        raise Failed(f"expected exactly 1 group matched {group_text!r}, found {len(matches)}")
    return who, _pair(str(require_id(matches[0].gid)), matches[0].name)


def _user_line(uid: int, accounts: Accounts) -> IdName:
    if accounts.users is None:
        return _pair(str(uid), "")
    lines = [line for line in accounts.users if line.uid == uid]
    if len(lines) != 1:
        raise Failed(f"expected exactly 1 user matched '{uid}', found {len(lines)}")
    return _pair(str(uid), lines[0].name)


def _group_line(gid: int, accounts: Accounts, must_resolve: bool) -> IdName:
    lines = [line for line in accounts.groups or () if line.gid == gid]
    if len(lines) == 1:
        return _pair(str(gid), lines[0].name)
    if must_resolve:
        raise Failed(f"expected exactly 1 group matched '{gid}', found {len(lines)}")
    return _pair(str(gid), "")


def _group_or_unnamed(gid: int, accounts: Accounts) -> IdName:
    return _group_line(gid, accounts, must_resolve=False)

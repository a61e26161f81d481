"""User strings: ``process.user.username`` as user, uid, user:group and so on (spec containers.md 7.2)."""

from __future__ import annotations

from typing import Any, Final

from uvmd.errors import Failed
from uvmd.linux.accounts import Accounts, User

_MAX_ID: Final = (1 << 32) - 1


def apply_user_string(process: dict[str, Any], accounts: Accounts) -> dict[str, Any]:
    """Return the process with the uid and gid that its username stands for; same if it has none.

    The username stays: an exec without one of its own inherits it with the ids.

    Raises:
        Failed: the string is malformed or names nobody, or the files make it ambiguous.
    """
    username = process["user"].get("username")
    if not username:
        return process
    uid, gid = resolve_user(username, accounts)
    return {**process, "user": {**process["user"], "uid": uid, "gid": gid}}


def resolve_user(username: str, accounts: Accounts) -> tuple[int, int]:
    """Return the uid and gid of a user string.

    Raises:
        Failed: as :func:`apply_user_string`.
    """
    user, colon, group = username.partition(":")
    if ":" in group:
        raise Failed(f"user string {username!r}: more than one colon")
    uid, gid = _find_user(user, accounts)
    if colon:
        gid = _find_group(group, accounts)
    return uid, gid


def parse_id(text: str) -> int | None:
    """Return the number that ``text`` is to Go's Atoi, None if it is a name.

    Raises:
        Failed: a number that is no id.
    """
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 100:
        return None
    number = int(text)
    if not -(1 << 63) <= number < 1 << 63:
        return None  # Atoi overflows: not a number, so a name, and nobody has it
    return require_id(number)


def require_id(number: int) -> int:
    """Return the number if it can be a uid or gid; the image's files may hold anything."""
    if not 0 <= number <= _MAX_ID:
        raise Failed(f"id {number} is out of range")
    return number


def _find_user(text: str, accounts: Accounts) -> tuple[int, int]:
    uid = parse_id(text)
    if uid is None:
        user = user_by_name(text, accounts)
        return require_id(user.uid), require_id(user.gid)
    lines = [user for user in accounts.users or () if user.uid == uid]
    return uid, require_id(lines[0].gid) if len(lines) == 1 else 0


def _find_group(text: str, accounts: Accounts) -> int:
    gid = parse_id(text)
    if gid is not None:
        return gid
    lines = [group for group in accounts.groups or () if group.name == text]
    if len(lines) != 1:
        raise Failed(f"group {text!r}: {len(lines)} lines of the group file match, must be 1")
    return require_id(lines[0].gid)


def user_by_name(name: str, accounts: Accounts) -> User:
    """Return the one passwd line of that name.

    Raises:
        Failed: none, or several.
    """
    lines = [user for user in accounts.users or () if user.name == name]
    if len(lines) != 1:
        raise Failed(f"user {name!r}: {len(lines)} lines of the passwd file match, must be 1")
    return lines[0]

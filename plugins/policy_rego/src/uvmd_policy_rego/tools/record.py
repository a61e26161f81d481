"""``uvmctl policy record``: what a daemon has kept, as a session of the replay format."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from uvmd_policy_rego.recording import VERSION
from uvmd_policy_rego.tools.errors import PolicyToolError

_OFF = (
    "the daemon keeps no record there; it keeps one when its configuration says where: "
    '[plugin.policy_rego] record = "/run/uvmd/policy-record.jsonl"'
)


def read_record(path: str) -> list[dict[str, Any]]:
    """Return the lines of a record; the last one may be being written and is left out then.

    Raises:
        PolicyToolError: there is none, or it is something else.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        raise PolicyToolError(f"{path}: {_OFF}") from None
    except OSError as error:
        raise PolicyToolError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError:
        raise PolicyToolError(f"{path}: is no record of policy questions") from None
    try:
        found = [json.loads(line) for line in lines[:-1]]
    except ValueError:
        raise PolicyToolError(f"{path}: is no record of policy questions") from None
    if not found or not isinstance(found[0], dict) or "policy" not in found[0]:
        raise PolicyToolError(f"{path}: is no record of policy questions")
    if found[0].get("v") != VERSION:
        raise PolicyToolError(f"{path}: is a record of version {found[0].get('v')}, not {VERSION}")
    return found


def session_of(lines: Iterable[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return the record as a session that ``uvmctl policy replay`` runs."""
    head, *calls = lines
    return {
        "name": name,
        "policy": base64.b64decode(head["policy"]).decode("utf-8", "replace"),
        "os": head["os"],
        "default_mounts": head["default_mounts"],
        "privileged_mounts": head["privileged_mounts"],
        "calls": list(_in_pairs(calls)),
    }


def _in_pairs(calls: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """A daemon says when a change begins and when one is taken back; what succeeds just goes on."""
    is_open = False
    for call in calls:
        if call["kind"] == "begin" and is_open:
            yield {"kind": "end", "rollback": False}
        if call["kind"] in ("begin", "end"):
            is_open = call["kind"] == "begin"
        yield call
    if is_open:
        yield {"kind": "end", "rollback": False}


def write_private(path: str, text: str) -> None:
    """Write a file that only its owner reads, in place of an earlier one.

    Raises:
        PolicyToolError: it cannot be written.
    """
    temporary = f"{path}.new"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            os.fchmod(fd, 0o600)
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise PolicyToolError(f"{path}: {(error.strerror or str(error)).lower()}") from error

"""The enforcer that keeps every question in a file, for ``uvmctl policy record``.

Only a configuration that names the file gets it: what is kept holds the arguments and
environments of containers in full. The record is an observer. Where it cannot be written
it ends, and the policy decides as before.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from uvmd.api import Decision, Enforcer, Environment, Fragment, TrustList
from uvmd_policy_rego import defaults
from uvmd_policy_rego.enforcer import RegoEnforcer

log = logging.getLogger(__name__)

#: The first line of a record says what is in it.
VERSION = 1
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
#: A record that grows without end would take the VM's memory: /run is a tmpfs.
MAX_BYTES = 256 << 20


class Record:
    """Lines of JSON at the end of a file that only its owner reads."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._over = False

    def is_for(self, digest: str) -> bool:
        """Tell whether the file is the record of this policy, of an earlier daemon then."""
        try:
            with open(self._path, encoding="utf-8") as lines:
                return bool(json.loads(lines.readline() or "{}").get("digest") == digest)
        except (OSError, ValueError):
            return False

    def start(self) -> None:
        """Make way for the record of another policy."""
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return
        except OSError as error:
            self._end(error)

    def add(self, line: Mapping[str, Any]) -> None:
        """Write one line. What fails ends the record, not the request."""
        if self._over:
            return
        data = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        try:
            fd = os.open(self._path, _FLAGS, 0o600)
            try:
                if os.fstat(fd).st_size + len(data) > MAX_BYTES:
                    raise OSError(27, "the record is full")
                os.write(fd, data)
            finally:
                os.close(fd)
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        self._over = True
        log.error(
            "the record of policy questions has ended, ignoring",
            extra={"file": self._path, "errno": error.errno},
        )


class RecordingEnforcer(RegoEnforcer):
    """See the module. Each question is kept before it is asked, so that one that ends badly is there."""

    def __init__(self, text: str, env: Environment, path: str) -> None:
        super().__init__(text, env)
        self._questions = Record(path)
        log.warning("questions to the policy are recorded, environments included", extra={"file": path})
        if not self._questions.is_for(self._digest):
            self._questions.start()
            self._questions.add(
                {
                    "v": VERSION,
                    "digest": self._digest,
                    "policy": text,
                    "os": "linux",
                    "default_mounts": defaults.DEFAULT_MOUNTS,
                    "privileged_mounts": defaults.PRIVILEGED_MOUNTS,
                }
            )

    def decide(self, point: str, input: Mapping[str, Any]) -> Decision:
        self._questions.add({"kind": "enforce", "point": point, "input": dict(input)})
        return super().decide(point, input)

    def decide_all(
        self, questions: Sequence[tuple[str, Mapping[str, Any]]], *_: object
    ) -> Sequence[Decision]:
        # One by one: what comes after a no is not asked, and so not kept.
        return Enforcer.decide_all(self, questions)

    def extend_default_mounts(self, mounts: Sequence[Mapping[str, Any]]) -> None:
        if mounts:
            self._questions.add(
                {"kind": "extend_default_mounts", "mounts": [dict(mount) for mount in mounts]}
            )
        super().extend_default_mounts(mounts)

    def load_fragment(self, fragment: Fragment) -> None:
        call = fragment._asdict()
        self._questions.add({"kind": "load_fragment", "header_svn": call.pop("svn"), **call})
        super().load_fragment(fragment)

    def load_trust_list(self, trust_list: TrustList) -> None:
        self._questions.add({"kind": "load_transparency_trust_list", **trust_list._asdict()})
        super().load_trust_list(trust_list)

    def snapshot(self) -> object:
        self._questions.add({"kind": "begin"})
        return super().snapshot()

    def restore(self, snapshot: object) -> None:
        self._questions.add({"kind": "end", "rollback": True})
        super().restore(snapshot)

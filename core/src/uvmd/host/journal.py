"""What the daemon must know again after it died: one JSON file a container or external process.

Under ``journal/`` of the run directory, owner-only. An entry is written whole to ``NAME.new``,
then the old ``NAME.json`` is removed and the new one renamed: at every moment one of the two is
complete, and the next daemon takes that. (Renaming over the old one would do the same in one
step, but where the directory is no tmpfs ext4 writes a replaced file out at once, which takes
up to milliseconds.) No fsync: the VM's death ends all that is recorded. Exit statuses are not
here; the monitor keeps those until they are acknowledged.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any, Final

from uvmd.host.containers import Container, State
from uvmd.host.processes import Kind, Process
from uvmd.linux.files import unlink_if_there, write_whole
from uvmd.observe.steps import step
from uvmd.oci.role import Kind as ContainerKind
from uvmd.oci.role import Role

log = logging.getLogger(__name__)

VERSION: Final = 2
_EXTERNAL: Final = "external@"  # no container id has an @

Entry = dict[str, Any]


class Journal:
    """Reads and writes the entries. Every method may be called from any thread."""

    def __init__(self, run_dir: str) -> None:
        self._directory = f"{run_dir}/journal"
        self._lock = threading.Lock()
        #: Why entries could not be read, in words.
        self.unreadable: list[str] = []
        os.makedirs(self._directory, mode=0o700, exist_ok=True)

    def save(self, container: Container, *, state: State | None = None, doing: str = "") -> None:
        """Write a container as it is now, or as it is about to be when ``state`` is given.

        ``doing`` is ``deleting`` while it is taken down.

        Raises:
            OSError: it could not be written; the entry is as before.
        """
        # Under the lock from reading the record to the rename: a later state must not be
        # overwritten by an earlier one of another thread.
        with self._lock:
            self._write(
                container.id, container_entry(container, container.state if state is None else state, doing)
            )

    def prepare(self, container: Container, state: State) -> None:
        """Write aside what :meth:`commit` makes the entry: that needs no room any more.

        Raises:
            OSError: it could not be written; the entry is as before.
        """
        with self._lock:
            self._write_aside(container.id, container_entry(container, state, ""))

    def commit(self, container_id: str) -> None:
        """Have what was prepared count, unless something later was saved meanwhile."""
        with self._lock:
            if os.path.exists(f"{self._directory}/{container_id}.new"):
                self._take_aside(container_id)

    def drop(self, container_id: str) -> None:
        """Forget what was prepared, if it is still there."""
        with self._lock:
            unlink_if_there(f"{self._directory}/{container_id}.new")

    def save_external(self, process: Process) -> None:
        """Write an external process."""
        with self._lock:
            self._write(f"{_EXTERNAL}{process.slot}", {"version": VERSION, "process": process_entry(process)})

    def remove(self, container_id: str) -> None:
        """Remove a container's entry; fine if there is none."""
        self._unlink(container_id)

    def remove_external(self, slot: int) -> None:
        """Remove an external process's entry; fine if there is none."""
        self._unlink(f"{_EXTERNAL}{slot}")

    def containers(self) -> Iterator[Entry]:
        """Yield the containers' entries; unreadable ones are logged, moved aside and left out."""
        yield from self._entries(external=False)

    def external(self) -> Iterator[Entry]:
        """Yield the external processes' entries, as :meth:`containers`."""
        yield from self._entries(external=True)

    def _entries(self, external: bool) -> Iterator[Entry]:
        self._settle()
        for name in sorted(os.listdir(self._directory)):
            if not name.endswith(".json") or name.startswith(_EXTERNAL) is not external:
                continue
            path = f"{self._directory}/{name}"
            try:
                with open(path, "rb") as file:
                    entry = json.loads(file.read())
                if entry["version"] != VERSION:
                    raise ValueError(f"version {entry['version']!r}, known is {VERSION}")
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._set_aside(name, error)
                continue
            yield entry

    def _set_aside(self, name: str, error: Exception) -> None:
        path = f"{self._directory}/{name}"
        log.error("journal entry cannot be read", extra={"path": path, "error": str(error)})
        self.unreadable.append(f"the journal's {name} cannot be read: {error}")
        os.replace(path, path.removesuffix(".json") + ".unreadable")

    def _settle(self) -> None:
        """Finish or drop what a daemon was writing when it died."""
        for name in os.listdir(self._directory):
            if not name.endswith(".new"):
                continue
            aside = f"{self._directory}/{name}"
            path = aside.removesuffix(".new") + ".json"
            # With the old entry there the new one may be cut off. Without it either it is whole,
            # or it is the very first of its name, and then nothing had been done yet.
            if os.path.exists(path) or not _is_whole(aside):
                os.unlink(aside)
            else:
                os.rename(aside, path)

    def _write(self, name: str, entry: Entry) -> None:
        self._write_aside(name, entry)
        self._take_aside(name)

    def _write_aside(self, name: str, entry: Entry) -> None:
        with step("journal"):
            text = json.dumps(entry, separators=(",", ":"))
            write_whole(f"{self._directory}/{name}.new", text.encode())

    def _take_aside(self, name: str) -> None:
        path = f"{self._directory}/{name}.json"
        unlink_if_there(path)
        os.rename(f"{self._directory}/{name}.new", path)

    def _unlink(self, name: str) -> None:
        with self._lock:
            # A write that failed may have left either, or both.
            for ending in ("new", "json"):
                unlink_if_there(f"{self._directory}/{name}.{ending}")


def _is_whole(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            json.loads(file.read())
    except ValueError:
        return False
    return True


def container_entry(container: Container, state: State, doing: str) -> Entry:
    """Return what of a container is recorded."""
    return {
        "version": VERSION,
        "id": container.id,
        "activity_id": container.activity_id,
        "state": state.name.lower(),
        "doing": doing,
        "role": role_entry(container.role),
        "bundle": container.bundle,
        "scratch": container.scratch,
        "root": container.root,
        "cgroup": container.cgroup,
        "exit_type": container.exit_type,
        "user": container.user,
        "rlimits": container.rlimits,
        "owns_pid_namespace": container.owns_pid_namespace,
        "stdio_allowed": container.stdio_allowed,
        "tee_log": container.tee_log,
        "sandbox_root": container.sandbox_root,
        "made_bundle": container.made_bundle,
        "made_parents": list(container.made_parents),
        "made_root": container.made_root,
        "existed": list(container.existed),
        "security_context": container.security_context,
        "created_at": container.created_at,
        "notified": container.notified,
        "created_by": container.created_by,
        "deleted_by": container.deleted_by,
        "init": None if container.init is None else process_entry(container.init),
        "execs": [process_entry(process) for process in list(container.execs.values())],
    }


def role_entry(role: Role) -> Entry:
    """Return what of a role is recorded."""
    return {
        "kind": role.kind.value,
        "pod_id": role.pod_id,
        "virtual": role.virtual,
        "namespace": role.namespace,
        "lenient_network": role.lenient_network,
        "host_network": role.host_network,
    }


def read_role_entry(entry: Entry) -> Role:
    """Make the role of an entry again."""
    return Role(**{**entry, "kind": ContainerKind(entry["kind"])})


def process_entry(process: Process) -> Entry:
    """Return what of a process is recorded."""
    return {
        "slot": process.slot,
        "kind": process.kind.value,
        "container_id": process.container_id,
        "args": list(process.args),
        "terminal": process.terminal,
        "pid": process.pid,
        "start_time": process.start_time,
    }


def read_process(entry: Entry) -> Process:
    """Make the process of an entry again."""
    return Process(
        slot=entry["slot"],
        kind=Kind(entry["kind"]),
        container_id=entry["container_id"],
        args=tuple(entry["args"]),
        terminal=entry["terminal"],
        pid=entry["pid"],
        start_time=entry["start_time"],
    )


def read_container(entry: Entry) -> Container:
    """Make the container of an entry again, its execs left out."""
    return Container(
        id=entry["id"],
        activity_id=entry["activity_id"],
        role=read_role_entry(entry["role"]),
        bundle=entry["bundle"],
        scratch=entry["scratch"],
        root=entry["root"],
        cgroup=entry["cgroup"],
        state=State[entry["state"].upper()],
        init=None if entry["init"] is None else read_process(entry["init"]),
        exit_type=entry["exit_type"],
        user=entry["user"],
        rlimits=entry["rlimits"],
        owns_pid_namespace=entry["owns_pid_namespace"],
        stdio_allowed=entry["stdio_allowed"],
        tee_log=entry["tee_log"],
        sandbox_root=entry["sandbox_root"],
        made_bundle=entry["made_bundle"],
        made_parents=tuple(entry.get("made_parents", ())),  # unknown to earlier releases
        made_root=entry["made_root"],
        existed=tuple(entry["existed"]),
        security_context=entry["security_context"],
        created_at=entry["created_at"],
        notified=entry["notified"],
        # An earlier release did not know them.
        created_by=entry.get("created_by", 0),
        deleted_by=entry.get("deleted_by", 0),
    )

"""The real daemon, with places at which it stops and waits for its death.

``--hold=FOLDER`` (taken off the arguments): where a file ``hold-PLACE`` is found when the
daemon comes to a place, it becomes ``held-PLACE`` and the thread goes no further. So a test
kills the daemon exactly there; the next one finds no file and goes on.

A host may select the enforcer ``counting``, which allows each create and each device once:
like policyd it remembers over the daemon's death what it has allowed, in FOLDER.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from uvmd.api.policy import Decision, Enforcer
from uvmd.bridge import server
from uvmd.daemon import compose, serve
from uvmd.host import records
from uvmd.host.operations import planning
from uvmd.linux import syscalls
from uvmd.monitor import link
from uvmd.oci import runtime

_FOLDER = ""


def hold(place: str) -> None:
    """Stop here if a test wants it."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(f"{_FOLDER}/hold-{place}", f"{_FOLDER}/held-{place}")
        time.sleep(600)


def after(owner: Any, name: str, place: str) -> None:
    """Make a place behind a call."""
    real = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        result = real(*arguments, **options)
        hold(place)
        return result

    setattr(owner, name, call)


def before_answers(real: Callable[..., None]) -> Callable[..., None]:
    """Make a place before each answer: ``answer-create``, ..."""

    def answer(bridge: server.Bridge, call: Any, outcome: object) -> None:
        if call.operation is not None:
            hold(f"answer-{call.operation.name}")
        real(bridge, call, outcome)

    return answer


class CountingEnforcer(Enforcer):
    """Yes to the first question of its kind, no to the same one again."""

    def __init__(self, text: str) -> None:
        self.text = text

    def decide(self, point: str, input: Mapping[str, Any]) -> Decision:
        if point in ("create_container", "modify_resource"):
            what = str(input.get("containerID") or input.get("settings"))
            name = f"{_FOLDER}/counted-{point}-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
            try:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            except FileExistsError:
                return Decision(False, reason=f"{point} was counted before")
        return Decision(True)


class Gate(compose.Gate):
    """The gate of this daemon."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options["enforcers"] = {"counting": CountingEnforcer}
        options["selectable"] = [*options["selectable"], "counting"]
        super().__init__(*arguments, **options)


def main() -> None:
    global _FOLDER
    flags = [flag for flag in sys.argv[1:] if not flag.startswith("--hold=")]
    _FOLDER = next(flag.partition("=")[2] for flag in sys.argv[1:] if flag.startswith("--hold="))
    after(planning, "plan", "create-decided")
    after(runtime.OciRuntime, "create", "create-made")
    after(runtime.OciRuntime, "start", "start-made")
    after(runtime.OciRuntime, "exec", "exec-made")
    after(runtime.OciRuntime, "delete", "delete-made")
    after(link.Link, "connect", "connected")
    after(link.Link, "spawn", "spawned")
    after(link.Link, "kill", "signalled")
    after(records.Records, "begin", "change-begun")
    after(syscalls, "mount", "mounted")
    after(records.Records, "commit", "change-committed")
    server.Bridge._answer = before_answers(server.Bridge._answer)  # type: ignore[method-assign]
    compose.Gate = Gate  # type: ignore[misc]
    sys.exit(serve.run(flags))


if __name__ == "__main__":
    main()

"""The real daemon with one thing added: a scripted enforcer that a host may select.

No shipped configuration can select it (``uvmd.api.testing.scripted``), so the gate is made
with one more factory here. The script is JSON in ``--script=`` (taken off the arguments):
point -> fields of the Decision, all other points are allowed.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from uvmd.api.policy import Decision
from uvmd.api.testing import ScriptedEnforcer
from uvmd.daemon import compose, serve

NAME = "scripted"


class Gate(compose.Gate):
    """The gate of the tests' daemon."""

    script: dict[str, Any] = {}

    def __init__(self, *arguments: Any, **options: Any) -> None:
        decisions = {point: Decision(**{"allowed": True, **fields}) for point, fields in self.script.items()}
        options["enforcers"] = {NAME: lambda text: ScriptedEnforcer(text, decisions)}
        options["selectable"] = [*options["selectable"], NAME]
        super().__init__(*arguments, **options)


def main() -> None:
    flags = [flag for flag in sys.argv[1:] if not flag.startswith("--script=")]
    for flag in sys.argv[1:]:
        if flag.startswith("--script="):
            Gate.script = json.loads(flag.partition("=")[2])
    compose.Gate = Gate  # type: ignore[misc]
    sys.exit(serve.run(flags))


if __name__ == "__main__":
    main()

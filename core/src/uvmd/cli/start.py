"""``uvmd``: the first process of every start, so it imports next to nothing.

``uvmd serve`` becomes the monitor (same pid), which starts the daemon as its child. Every
other verb is a command for people and lives in ``cli.commands``.
"""

from __future__ import annotations

import os
import sys


def become_monitor(module: str, arguments: list[str]) -> None:
    """Replace this process by ``uvmd-monitor``, with ``python -m MODULE ARGUMENTS`` as its daemon."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    python = sys.executable
    monitor = [python, "-I", "-S", os.path.join(here, "monitor", "__main__.py")]
    # No site folder of a user, no PYTHON* variables: root runs this.
    environment = {**os.environ, "PYDANTIC_DISABLE_PLUGINS": "__all__", "MALLOC_ARENA_MAX": "2"}
    os.execve(python, [*monitor, "--", python, "-I", "-m", module, *arguments], environment)


def main() -> None:
    """Entry point of ``uvmd``."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["serve"]:
        if "--help" in arguments or "-h" in arguments:
            from uvmd.daemon.options import help_text

            print(help_text(), end="")
            return
        become_monitor("uvmd.daemon", arguments[1:])
    from uvmd.cli.commands import uvmd

    uvmd()

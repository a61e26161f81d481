"""``uvmd``: the first process of every start, so it imports next to nothing.

``uvmd serve`` becomes the monitor (same pid), which starts the daemon as its child; with a
monitor around it, it becomes the daemon. ``uvmd monitor`` becomes a monitor whose daemon is
started by somebody else. Every other verb is a command for people and lives in
``cli.commands``.
"""

from __future__ import annotations

import os
import sys

#: Where a monitor awaits a daemon that is no child of its.
SOCKET = "/run/uvmd/monitor.sock"
MONITOR_HELP = f"""\
Usage: uvmd monitor [--listen PATH]

Run the monitor alone: the process that owns the containers, their streams and the
connection to the host, and outlives every daemon. The daemon is a unit of its own
(uvmd.service), or `uvmd serve` with UVMD_MONITOR_SOCKET=PATH. SIGTERM takes everything
down. Without that variable `uvmd serve` needs none of this: it brings its own monitor.

  --listen PATH
      the socket at which the daemon is awaited, for root alone
      default: {SOCKET}
"""

#: glibc's malloc for two dozen threads of which one runs: no arena and no cache for each. The
#: caches alone (up to 450 free blocks a thread) take a thousand containers to fill, and 2 MiB.
ENVIRONMENT = {
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
    "MALLOC_ARENA_MAX": "2",
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}


def become_monitor(module: str, arguments: list[str]) -> None:
    """Replace this process by ``uvmd-monitor``, with ``python -m MODULE ARGUMENTS`` as its daemon."""
    _execute(*_monitor(), "--", *_daemon(module, arguments))


def serve(arguments: list[str]) -> None:
    """``uvmd serve``: the whole, or the daemon of the monitor that is there."""
    if _wants_help(arguments):
        from uvmd.daemon.options import help_text

        print(help_text(), end="")
    elif "UVMD_MONITOR_SOCKET" in os.environ:
        _execute(*_daemon("uvmd.daemon", arguments))
    else:
        become_monitor("uvmd.daemon", arguments)


def monitor(arguments: list[str]) -> None:
    """``uvmd monitor``: a monitor whose daemon is to come."""
    flag, path = arguments if len(arguments) == 2 else ("--listen", SOCKET)
    if _wants_help(arguments):
        print(MONITOR_HELP, end="")
    elif len(arguments) in (0, 2) and flag == "--listen":
        _execute(*_monitor(), "--listen", path)
    else:
        print("uvmd: monitor takes --listen PATH and nothing else", file=sys.stderr)
        sys.exit(os.EX_USAGE)


def _wants_help(arguments: list[str]) -> bool:
    return "--help" in arguments or "-h" in arguments


def _monitor() -> list[str]:
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [sys.executable, "-I", "-S", os.path.join(here, "monitor", "__main__.py")]


def _daemon(module: str, arguments: list[str]) -> list[str]:
    return [sys.executable, "-I", "-m", module, *arguments]


def _execute(*argv: str) -> None:
    # No site folder of a user, no PYTHON* variables: root runs this.
    environment = os.environ | ENVIRONMENT
    # What relative paths mean: the monitor goes to /.
    try:
        environment["UVMD_STARTED_IN"] = os.getcwd()
    except FileNotFoundError:
        environment["UVMD_STARTED_IN"] = "/"
    os.execve(argv[0], list(argv), environment)


def main() -> None:
    """Entry point of ``uvmd``."""
    verb, rest = sys.argv[1:2], sys.argv[2:]
    if verb == ["serve"]:
        serve(rest)
    elif verb == ["monitor"]:
        monitor(rest)
    else:
        from uvmd.cli.commands import uvmd

        uvmd()

"""``gcs``: the reference agent's name and flags, so that a host's kernel command line starts uvmd.

The flags themselves are read by the daemon (``daemon/gcs.py``); a wrong one ends this
process with status 2, as the reference does.
"""

from __future__ import annotations

import sys

from uvmd.cli.start import become_monitor

_OOM_SCORE = -999


def main() -> None:
    """Entry point of ``gcs``."""
    arguments = sys.argv[1:]
    if any(flag in ("-h", "-help", "--help") for flag in arguments):
        from uvmd.daemon.gcs import help_text

        print(help_text(), end="")
        return
    _survive_lack_of_memory()
    # The reference's default, said for the monitor, which looks for the flag and not for our name.
    become_monitor("uvmd.daemon.gcs", ["-log-format=text", *arguments])


def _survive_lack_of_memory(path: str = "/proc/self/oom_score_adj") -> None:
    """Have the kernel kill anything else first: with the monitor the exit codes go.

    The monitor hands it on to the daemon and to nobody else. Elsewhere systemd does this.
    """
    try:
        with open(path, encoding="ascii") as file:
            if int(file.read()) <= _OOM_SCORE:
                return
        with open(path, "w", encoding="ascii") as file:
            file.write(str(_OOM_SCORE))
    except OSError:
        return  # not permitted to lower it: as before

"""``gcs``: the reference agent's name and flags, so that a host's kernel command line starts uvmd.

The flags themselves are read by the daemon (``daemon/gcs.py``); a wrong one ends this
process with status 2, as the reference does.
"""

from __future__ import annotations

import sys

from uvmd.cli.start import become_monitor


def main() -> None:
    """Entry point of ``gcs``."""
    arguments = sys.argv[1:]
    if any(flag in ("-h", "-help", "--help") for flag in arguments):
        from uvmd.daemon.gcs import help_text

        print(help_text(), end="")
        return
    become_monitor("uvmd.daemon.gcs", arguments)

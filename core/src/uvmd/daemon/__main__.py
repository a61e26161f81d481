"""``python -m uvmd.daemon``: what the monitor starts for ``uvmd serve``."""

from __future__ import annotations

import sys

from uvmd.daemon.serve import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))

"""``uvmctl``: the host's hand tool. A verb's module is imported when the verb is used."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of ``uvmctl``."""
    from uvmd.cli.ctl.app import uvmctl

    uvmctl.main(sys.argv[1:], prog_name="uvmctl")


if __name__ == "__main__":
    main()

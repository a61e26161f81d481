"""Records what a release keeps in its run directory: golden files for ``earlier.py``.

    PYTHONPATH=tests .venv/bin/python tests/support/record_journal.py CHECKOUT FOLDER

CHECKOUT is a work tree of that release in which `make setup` was run. Once recorded the files
stay: that release will not change.
"""

from __future__ import annotations

import sys
from pathlib import Path

from support.daemon import Daemon
from support.earlier import STRICT_ID, Made, StrictThings, Things
from support.strict import strict_root


def of_release(checkout: Path, **options: str) -> Daemon:
    """The daemon of that release, not started."""
    vm = Daemon(options={key.replace("_", "-"): value for key, value in options.items()})
    vm.program = [str(checkout / ".venv" / "bin" / "uvmd"), *vm.argv()[1:]]
    return vm


def write(made: Made, folder: Path) -> None:
    for name, text in made.record().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path, len(text))


def main() -> None:
    checkout, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    vm = of_release(checkout)
    try:
        write(Things(vm, vm.start().connect()), folder / "open")
    finally:
        vm.stop()
        vm.close()
    vm = of_release(checkout, paths_bundle_roots="/run/gcs")
    try:
        with strict_root(STRICT_ID) as root:
            write(StrictThings(vm, vm.start().connect(), root), folder / "strict")
            vm.stop()
    finally:
        vm.close()


if __name__ == "__main__":
    main()

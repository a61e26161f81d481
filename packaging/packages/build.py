#!/usr/bin/env python3
"""Build wheels, a bill of materials and the Debian package from this source tree; see --help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "common"))

from building.tools import BuildError
from making import debian
from making.whole import REPOSITORY, make_packages

ABOUT = """\
Build what uvmd is installed from: a wheel for core and for each plugin, uvmd.cdx.json (the bill
of materials, CycloneDX), and the Debian package uvmd for Debian 12 on amd64, with SHA256SUMS.

The same source gives the same bytes: all files get the time of the last commit, or that of
SOURCE_DATE_EPOCH. Needs no root. Wheels of others come by the hashes in .ci/constraints.txt.
`make packages` sets up what this program needs.
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="build.py", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = REPOSITORY / ".cache" / "packages"
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", default=cache / "made",
        help="where they go, in place of those of before (default: .cache/packages/made)",
    )  # fmt: skip
    parser.add_argument("--no-deb", action="store_true", help="wheels and bill of materials alone")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", default=cache, help="where downloads are kept (.cache/packages)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if not options.no_deb and debian.program() is None:
        print("build.py: dpkg-deb is not here; --no-deb makes the wheels alone", file=sys.stderr)
        return 1
    try:
        made = make_packages(options.cache, options.output.resolve(), deb=not options.no_deb)
    except (BuildError, OSError) as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    for path in made:
        print(f"  {path}  {path.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

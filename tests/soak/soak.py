"""`make soak`: bad days, one after the other, each with its bar and what was measured.

    PYTHONPATH=tests python -m soak.soak [--only SECTION]... [--seed N] [--quick] [--json]

A section is a function of the seed and of ``quick`` that yields figures; whatever it finds
wrong it raises. The seed makes a run again: it decides all inputs and, as far as a busy
machine lets it, the moments. Run as root.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterable

from bench.report import Figure, as_json, table
from soak import drops, faults, lives, malformed, restarts, storms
from support import machine

Section = Callable[[int, bool], Iterable[Figure]]

SECTIONS: dict[str, Section] = {
    "restarts": restarts.with_crun,
    "restarts-runc": restarts.with_runc,
    "malformed": malformed.section,
    "storms": storms.section,
    "drops": drops.section,
    "lives": lives.section,
    **faults.SECTIONS,
}


def run(name: str, seed: int, quick: bool) -> list[Figure]:
    """Run one section; what it raises is shown and counts as a miss."""
    began, load = time.monotonic(), os.getloadavg()[0]
    print(f"{name} ... (load {load:.1f})", file=sys.stderr, flush=True)
    figures: list[Figure] = []
    try:
        for figure in SECTIONS[name](seed, quick):
            figures.append(figure)
            print(f"  {figure.what}: {figure.measured:g} {figure.unit}; {figure.baseline}", file=sys.stderr)
    except Exception as error:
        traceback.print_exc()
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:120]
        figures.append(Figure(f"{name}: went wrong", 0, 1, "", why))
    print(f"  {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="may be repeated")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--quick", action="store_true", help="a minute each: a look, not the figures")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        print("the soak runs real containers and needs root: sudo make soak", file=sys.stderr)
        return 1
    facts: dict[str, object] = {
        "machine": machine.describe(),
        "seed": asked.seed,
        "load_before": os.getloadavg()[0],
    }
    print(f"machine: {facts['machine']}; seed {asked.seed}", file=sys.stderr, flush=True)
    began = time.monotonic()
    figures = [figure for name in asked.only or SECTIONS for figure in run(name, asked.seed, asked.quick)]
    facts["load_after"] = os.getloadavg()[0]
    missed = [figure for figure in figures if not figure.passed]
    if asked.json:
        print(as_json(facts, figures))
    else:
        load = f"load {facts['load_before']:.1f} before, {facts['load_after']:.1f} after"
        print(f"\n{facts['machine']}; seed {asked.seed}; {load}\n")
        print(table(figures))
        met = len(figures) - len(missed)
        print(f"\n{met} of {len(figures)} bars met in {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Times of signed fragments, from the message on the bridge to its answer, by the policy's size (root).

    PYTHONPATH=tests python plugins/policy_rego/bench/fragments.py [CONTAINERS...]

The answer comes when the fragment's rules are in force. The first fragment brings the code
for envelopes into the daemon; its column holds both, `grown` is the memory that stays. The
others are the median of 20, five in each of four daemons, each adding one container of 3 to
5 KB (more and more fragments in one VM make each one slower: their candidates are gone
through); `CPU` is what monitor, daemon and policyd spend on one, which depends less on who
else is at work; `envelope` is the part without policyd.
"""

from __future__ import annotations

import base64
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

import policies
from signers import FEED, signer

from support import leaks
from support.daemon import running
from support.host import NULL_ID
from uvmd_policy_rego.enforcer import encode
from uvmd_policy_rego.envelopes.did_x509 import resolve
from uvmd_policy_rego.envelopes.envelope import open_envelope

DAEMONS, ROUNDS = 4, 5
HEADS = ("containers", "first ms", "grown MiB", "median ms", "fastest ms", "CPU ms", "envelope ms")


def realistic(number: int) -> dict[str, Any]:
    """A container of 3 to 5 KB, as tools write them."""
    env_rules = [policies.rule(f"VARIABLE_{i}=value of variable {i}") for i in range(20)]
    env_rules += [policies.rule(f"(?i)(FABRIC)_{i}.+=.+", "re2") for i in range(4)]
    layers = [f"{number:08x}{layer:056x}" for layer in range(6)]
    command = ["/usr/bin/service", f"--number={number}"]
    return policies.container(command=command, layers=layers, env_rules=env_rules)


def fragment(number: int) -> str:
    listed = json.dumps([realistic(1_000_000 + number)])
    return f'package extra\nsvn := 1\nframework_version := "0.5.0"\ncontainers := {listed}\n'


def settings(number: int) -> dict[str, str]:
    envelope = signer().sign(fragment(number), svn=1)
    return {"Fragment": base64.b64encode(envelope).decode(), "MediaType": ""}


def took_ms(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return (time.perf_counter() - begin) * 1e3


def spent_ms(monitor: int) -> float:
    """The CPU time so far of the monitor and all below it."""
    pids, found = [monitor], 0
    while pids:
        pid = pids.pop()
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += int((task / "schedstat").read_text().split()[0])
            pids += map(int, (task / "children").read_text().split())
    return found / 1e6


def envelope_ms() -> float:
    blob = signer().sign(fragment(0), svn=1)

    def judge() -> None:
        opened = open_envelope(blob)
        resolve(opened.issuer, opened.chain, opened.paths)

    return statistics.median(took_ms(judge) for _ in range(100))


class Run(NamedTuple):
    """What one daemon took for its fragments."""

    first_ms: float
    grown_mib: float
    others_ms: list[float]
    spent_ms: float


def run(text: str, messages: Sequence[dict[str, str]]) -> Run:
    with running(options={"plugins-require": "policy_rego"}) as daemon:
        bridge = daemon.connect()
        bridge.modify(NULL_ID, "SecurityPolicy", settings={"EncodedSecurityPolicy": text})
        before = leaks.rss_kib(daemon.daemon_pid)

        def send(message: dict[str, str]) -> float:
            return took_ms(lambda: bridge.modify(NULL_ID, "SecurityPolicyFragment", settings=message))

        first = send(messages[0])
        grown = (leaks.rss_kib(daemon.daemon_pid) - before) / 1024
        begin = spent_ms(daemon.monitor_pid)
        others = [send(message) for message in messages[1:]]
        spent = spent_ms(daemon.monitor_pid) - begin
        bridge.close()
    return Run(first, grown, others, spent / len(others))


class Measured(NamedTuple):
    """One size of policy; all but the memory in milliseconds."""

    first: float
    grown_mib: float
    median: float
    fastest: float
    cpu: float
    envelope: float


def measure(count: int, daemons: int = DAEMONS) -> Measured:
    """Time fragments on a policy of so many containers."""
    imports = {"issuer": signer().did, "feed": FEED, "minimum_svn": "1", "includes": ["containers"]}
    text = encode(policies.policy(*map(realistic, range(count)), fragments=[imports]))
    messages = [settings(number) for number in range(ROUNDS + 1)]
    runs = [run(text, messages) for _ in range(daemons)]
    others = [took for one in runs for took in one.others_ms]
    return Measured(
        statistics.median(one.first_ms for one in runs),
        statistics.median(one.grown_mib for one in runs),
        statistics.median(others),
        min(others),
        statistics.median(one.spent_ms for one in runs),
        envelope_ms(),
    )


def sections(quick: bool, figure: Callable[..., Any]) -> list[Any]:
    """The lines of ``make bench``: ``figure`` makes one."""
    made = []
    for count in (10, 60):
        daemons = 1 if quick else DAEMONS
        found = measure(count, daemons)
        beside = f"CPU of all processes {found.cpu:.1f} ms; the first, with its code, {found.first:.0f} ms"
        what = f"fragment, message to rule, {count} containers"
        made.append(figure(what, 15.0, found.median, "ms", beside, daemons * ROUNDS))
    return made


def main() -> None:
    counts = [int(count) for count in sys.argv[1:]] or [1, 10, 60, 200, 1000]
    print("  ".join(f"{head:>11}" for head in HEADS))
    for count in counts:
        found = measure(count)
        cells = [str(count), f"{found.first:.0f}", *(f"{one:.1f}" for one in found[1:])]
        print("  ".join(f"{cell:>11}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()

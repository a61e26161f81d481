"""Times of loading and deciding, by the number of containers in the policy.

    python plugins/policy_rego/bench/decisions.py [CONTAINERS...]

Measured in a daemon's place below a real monitor, with the real policyd: a decision from
decide() to its return, socket and record included, median of 1,000 after 20, metadata put
back after each. CPU is what both processes spend on one decision and its putting back: on
a machine that does other things it says more than the clock.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))

import policies
from live_policyd import Vm, running

from uvmd_policy_rego import defaults
from uvmd_policy_rego.enforcer import RegoEnforcer
from uvmd_policy_rego.remote import Remote

ROUNDS, WARM_UP = 1000, 20
SIZES = [1, 10, 60, 200, 1000]


class Measured(NamedTuple):
    """One size: milliseconds by what took them, CPU milliseconds of decisions, MiB of policyd."""

    times_ms: dict[str, float]
    cpu_ms: dict[str, float]
    memory_mib: float


def realistic(number: int) -> dict[str, Any]:
    """A container of 3 to 5 KB, as tools write them."""
    env_rules = [policies.rule(f"VARIABLE_{i}=value of variable {i}") for i in range(20)]
    env_rules += [policies.rule(f"(?i)(FABRIC)_{i}.+=.+", "re2") for i in range(4)]
    mounts = [
        {
            "destination": f"/mnt/{i}",
            "source": f"sandbox:///tmp/atlas/emptydir/{i}.+",
            "type": "bind",
            "options": ["rbind", "rshared", "rw"],
        }
        for i in range(4)
    ]
    return policies.container(
        command=["/usr/bin/service", f"--number={number}"],
        env_rules=[*policies.container()["env_rules"], *env_rules],
        layers=[f"{number:08x}{layer:056x}" for layer in range(6)],
        mounts=[*policies.container()["mounts"], *mounts],
        capabilities=policies.caps(*defaults.UNPRIVILEGED_CAPABILITIES),
    )


def request(number: int) -> dict[str, Any]:
    """A request to create it: 22 variables, the usual 8 mounts and 4 of its own."""
    envs = [f"VARIABLE_{i}=value of variable {i}" for i in range(20)]
    own = [
        {
            "destination": f"/mnt/{i}",
            "source": f"{policies.ROOT}/sandboxMounts/tmp/atlas/emptydir/{i}x",
            "type": "bind",
            "options": ["rbind", "rshared", "rw"],
        }
        for i in range(4)
    ]
    return policies.create(
        argList=realistic(number)["command"],
        envList=["PATH=/bin", "FABRIC_1x=1", *envs],
        mounts=[*defaults.DEFAULT_MOUNTS[:8], *own],
        capabilities=policies.caps(*defaults.UNPRIVILEGED_CAPABILITIES),
    )


def cpu_s(pid: int) -> float:
    """What a process has had of the CPU."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


class Bench:
    """One policy at work in one VM."""

    def __init__(self, vm: Vm, count: int, rounds: int) -> None:
        self._rounds = rounds
        self.times_ms: dict[str, float] = {}
        self.cpu_ms: dict[str, float] = {}
        text = policies.policy(*map(realistic, range(count)), allow_properties_access=True)
        self._load(vm, text)
        self._pid = vm.pid

    def _load(self, vm: Vm, text: str) -> None:
        real, took = Remote.start, 0.0

        def start(remote: Remote) -> None:
            nonlocal took
            begin = time.perf_counter()
            real(remote)
            took = time.perf_counter() - begin

        Remote.start = start  # type: ignore[method-assign]
        try:
            begin = time.perf_counter()
            self.enforcer: RegoEnforcer = vm.enforcer(text)
            whole = time.perf_counter() - begin
        finally:
            Remote.start = real  # type: ignore[method-assign]
        self.times_ms["start"], self.times_ms["load"] = took * 1e3, (whole - took) * 1e3

    def decide(self, point: str, input: dict[str, Any], *, allowed: bool = True, name: str = "") -> None:
        """Time a decision; allowed ones are taken in the end."""
        enforcer, before, name = self.enforcer, self.enforcer.snapshot(), name or point
        times = []
        for round in range(WARM_UP + self._rounds):
            if round == WARM_UP:
                spent = cpu_s(os.getpid()) + cpu_s(self._pid)
            begin = time.perf_counter()
            decision = enforcer.decide(point, input)
            times.append(time.perf_counter() - begin)
            assert decision.allowed is allowed, decision.reason
            enforcer.restore(before)
        spent = cpu_s(os.getpid()) + cpu_s(self._pid) - spent
        self.times_ms[name] = statistics.median(times[WARM_UP:]) * 1e3
        self.cpu_ms[name] = spent / self._rounds * 1e3
        if allowed:
            assert enforcer.decide(point, input).allowed

    def memory_mib(self) -> float:
        """What is resident of policyd."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def measure(count: int, rounds: int = ROUNDS) -> Measured:
    """Measure a policy of so many containers."""
    with tempfile.TemporaryDirectory(prefix="uv-") as folder, running(Path(folder)) as vm:
        bench = Bench(vm, count, rounds)
        layers = realistic(count - 1)["layers"]
        bench.decide("get_properties", {})
        bench.decide("mount_device", policies.device(layers[0], 0))
        for number, layer in enumerate(layers[1:], 1):
            assert bench.enforcer.decide("mount_device", policies.device(layer, number)).allowed
        bench.decide("mount_overlay", policies.overlay(*reversed(range(6))))
        bench.decide("create_container", request(count - 1))
        caps = policies.caps(*defaults.UNPRIVILEGED_CAPABILITIES)
        bench.decide("exec_in_container", policies.execute(capabilities=caps))
        wrong: dict[str, Any] = {"target": "/x", "deviceHash": "y"}
        bench.decide("mount_device", wrong, allowed=False, name="denied")
        return Measured(bench.times_ms, bench.cpu_ms, bench.memory_mib())


def sections(quick: bool, figure: Callable[..., Any]) -> list[Any]:
    """The lines of ``make bench``: ``figure`` makes one."""
    rounds = 100 if quick else ROUNDS
    load_bars, memory_bars = {10: 50.0, 60: 110.0, 1000: 1200.0}, {10: 35.0, 60: 40.0, 1000: 180.0}
    bars = {"get_properties": 0.25, "mount_device": 0.5, "mount_overlay": 0.8, "create_container": 1.2}
    made = []
    for count in SIZES:
        found = measure(count, rounds)
        times = found.times_ms
        if count in load_bars:
            started = f"the process itself starts in {times['start']:.0f} ms"
            what = f"policy of {count} containers loaded"
            made.append(figure(what, load_bars[count], times["load"], "ms", started, 1))
            what = f"policyd with {count} containers, resident"
            made.append(figure(what, memory_bars[count], found.memory_mib, "MiB", "", 1))
        for point, bar in bars.items():
            beside = f"CPU of both processes, with putting back, {found.cpu_ms[point]:.3f} ms"
            what = f"{point} decided, {count} containers"
            made.append(figure(what, bar, times[point], "ms", beside, rounds))
    return made


def main() -> None:
    counts = [int(count) for count in sys.argv[1:]] or SIZES
    for count in counts:
        found = measure(count)
        print(f"{count} containers: policyd {found.memory_mib:.1f} MiB")
        for name, took in found.times_ms.items():
            cpu = f"   CPU {found.cpu_ms[name]:.3f}" if name in found.cpu_ms else ""
            print(f"  {name:<18} {took:9.3f} ms{cpu}", flush=True)


if __name__ == "__main__":
    main()

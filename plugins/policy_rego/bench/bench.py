"""Times of loading and deciding, by the number of containers in the policy.

    python plugins/policy_rego/bench/bench.py [CONTAINERS...]

Decisions are the median of 1,000 after 20, measured around the enforcer's decide() with
metadata put back after each; memory is this process's, which holds a policy a time.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import policies

from uvmd_policy_rego.enforcer import RegoEnforcer, encode

ROUNDS, WARM_UP = 1000, 20


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
    )


def median_ms(act: Callable[[], object], after: Callable[[], object]) -> float:
    times = []
    for _ in range(WARM_UP + ROUNDS):
        begin = time.perf_counter()
        act()
        times.append(time.perf_counter() - begin)
        after()
    return statistics.median(times[WARM_UP:]) * 1e3


def memory_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def measure(count: int) -> list[str]:
    text = encode(policies.policy(*map(realistic, range(count)), allow_properties_access=True))
    begin = time.perf_counter()
    enforcer = RegoEnforcer(text)
    assert not enforcer.decide("runtime_logging", {}).allowed
    load_ms = (time.perf_counter() - begin) * 1e3
    layers = realistic(count - 1)["layers"]

    def timed(point: str, input: dict[str, Any]) -> str:
        before = enforcer.snapshot()
        assert enforcer.decide(point, input).allowed, point
        enforcer.restore(before)
        took = median_ms(lambda: enforcer.decide(point, input), lambda: enforcer.restore(before))
        assert enforcer.decide(point, input).allowed
        return f"{took:.3f}"

    row = [str(count), f"{load_ms:.0f}", timed("get_properties", {})]
    row.append(timed("mount_device", policies.device(layers[0], 0)))
    for number, layer in enumerate(layers[1:], 1):
        assert enforcer.decide("mount_device", policies.device(layer, number)).allowed
    row.append(timed("mount_overlay", policies.overlay(*reversed(range(6)))))
    envs = [f"VARIABLE_{i}=value of variable {i}" for i in range(20)]
    create = policies.create(
        argList=realistic(count - 1)["command"], envList=["PATH=/bin", "FABRIC_1x=1", *envs]
    )
    row.append(timed("create_container", create))
    row.append(timed("exec_in_container", policies.execute()))
    enforcer.decide("mount_device", {})
    denied = median_ms(
        lambda: enforcer.decide("mount_device", {"target": "/x", "deviceHash": "y"}), lambda: None
    )
    return [*row, f"{denied:.3f}", f"{memory_mib():.0f}"]


def main() -> None:
    counts = [int(count) for count in sys.argv[1:]] or [1, 10, 60, 200, 1000]
    heads = [
        "containers",
        "load ms",
        "properties",
        "device",
        "overlay",
        "create",
        "exec",
        "denied",
        "RSS MiB",
    ]
    print("  ".join(f"{head:>10}" for head in heads))
    for count in counts:
        print("  ".join(f"{cell:>10}" for cell in measure(count)), flush=True)


if __name__ == "__main__":
    main()

"""`gcs` in a VM of its own: what the reference's flags do to the whole of it."""

from __future__ import annotations

import json
import shlex

import pytest

from guest.harness.guest import Guest
from support.daemon import wait_until
from support.host import NULL_ID
from uvmd.api.testing.guest.profiles import PROFILES, Profile

MIB = 1 << 20
LOG = "/run/gcs.log"
#: A host's usual command line, and every flag that is felt beyond the bridge.
FLAGS = (
    "-v4", "-log-format", "json", "-loglevel=debug", "-logfile", LOG, "-scrub-logs=true",
    "-core-dump-location", "/run/core.%e", "-kmsgLogLevel", "5",
    "-root-mem-reserve-bytes", str(256 * MIB), "-gcs-mem-limit-bytes", str(MIB),
)  # fmt: skip


@pytest.fixture(scope="module", params=["v2", "v1"])
def profile(request: pytest.FixtureRequest) -> Profile:
    return PROFILES[request.param]


def said(guest: Guest, words: str) -> list[dict[str, object]]:
    return [line for line in map(json.loads, guest.read(LOG).splitlines()) if words in line["msg"]]


def forwarded(guest: Guest) -> dict[object, object]:
    """Texts of the kernel's log with their priorities."""
    return {line["text"]: line["priority"] for line in said(guest, "kernel") if "text" in line}


def test_the_references_flags_rule_the_whole_vm(fresh_guest: Guest) -> None:
    guest = fresh_guest
    guest.daemon.stop()
    guest.sh(f"ulimit -c unlimited; (setsid gcs {shlex.join(FLAGS)} </dev/null >/dev/null 2>&1 &)")
    assert guest.run("/bin/true").exit_code == 0
    v2 = guest.profile.cgroups == "v2"
    memory = "/sys/fs/cgroup" if v2 else "/sys/fs/cgroup/memory"
    # The containers' limit, by the VM's size.
    total = 1024 * int(guest.read("/proc/meminfo").split()[1])
    limit = int(guest.read(f"{memory}/pods/memory.{'max' if v2 else 'limit_in_bytes'}"))
    assert abs(limit - (total - 256 * MIB)) < 8 * MIB
    # uvmd's own place, its protection, and the warning at the size that was passed.
    for pid in guest.daemon.pids.values():
        groups = guest.read(f"/proc/{pid}/cgroup").splitlines()
        assert any(line.endswith(f"{'0::' if v2 else ':memory:'}/gcs") for line in groups), groups
        assert guest.read(f"/proc/{pid}/oom_score_adj") == "-999\n"
    if v2:
        assert int(guest.read("/sys/fs/cgroup/gcs/memory.low")) == 256 * MIB
    wait_until(lambda: said(guest, "uses much memory"))
    assert said(guest, f"-gcs-mem-limit-bytes={MIB} is below")
    # A process of the VM that crashes.
    assert guest.read("/proc/sys/kernel/core_pattern") == "/run/core.%e\n"
    crash = {"CommandArgs": ["/bin/sh", "-c", "kill -ABRT $$"], "Environment": {}, "WorkingDirectory": "/"}
    guest.bridge.execute(NULL_ID, parameters=crash).wait()
    assert guest.sh("ls /run/core.*") == "/run/core.sh\n"
    # The kernel's log up to "notice".
    guest.sh("echo '<5>a notice of the test' >/dev/kmsg; echo '<6>an information' >/dev/kmsg")
    wait_until(lambda: "a notice of the test" in forwarded(guest))
    assert forwarded(guest)["a notice of the test"] == "notice"
    assert "an information" not in forwarded(guest)
    assert said(guest, "no clock of a hypervisor")
    monitor = guest.daemon.pids["monitor"]
    guest.hang_up()
    guest.sh(f"kill {monitor}")
    wait_until(lambda: not guest.daemon.pids, what="gcs ends")
    assert guest.sh(f"ls -d {memory}/gcs 2>/dev/null", check=False) == ""

"""A daemon takes up what the release before it has written, and nothing that it does not know.

The files of ``journals/`` were written by that release over the same things
(``support/record_journal.py``); here they take the place of our own while no daemon is there.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.daemon import is_running, wait_until
from support.earlier import RAMDISK, STRICT_ID, Held, Made, StrictThings, Things
from support.host import NULL_ID, Connection, Refused
from support.strict import strict_root

JOURNALS = Path(__file__).parent / "journals"
RELEASES = sorted(path.name for path in JOURNALS.iterdir())
Spoil = Callable[[Path], None]


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def held(**options: str) -> Iterator[tuple[Held, Connection]]:
    vm = Held(options={key.replace("_", "-"): value for key, value in options.items()})
    try:
        bridge = vm.start().connect()
        yield vm, bridge
        bridge.close()
        assert vm.stop() == 0, vm.describe()
    finally:
        vm.close()


def exchange(vm: Held, made: Made, change: Callable[[], None]) -> None:
    """Kill the daemon, change what it left, and let the next one begin."""
    vm.hold.touch()
    before = vm.kill_daemon()
    wait_until(lambda: vm.find_daemon() not in (None, before), what="the next daemon waits")
    change()
    vm.hold.unlink()


@pytest.mark.parametrize("release", RELEASES)
def test_containers_processes_and_devices_come_back(release: str) -> None:
    recorded = files(JOURNALS / release / "open")
    with held() as (vm, bridge):
        made = Things(vm, bridge)
        exchange(vm, made, lambda: made.replay(recorded))
        told = bridge.properties(NULL_ID, "uvmd.ps")["uvmd.ps"]
        assert {one["id"]: one["state"] for one in told["containers"]} == {
            made.created.id: "created",
            made.running.id: "running",
            made.pod.id: "running",
            made.workload.id: "running",
        }
        assert (told["degraded"], told["inconsistent"]) == (None, None)
        mounts = bridge.properties(NULL_ID, "uvmd.mounts")["uvmd.mounts"]
        assert made.disk in json.dumps(mounts)
        # Each is still what it was: it ends with its own code, and one more of it can be made.
        assert made.running.exec("/bin/sh", "-c", "exit 3").wait() == 3
        assert made.pod.run("echo in the pod") == b"in the pod\n"
        for process, exit_code in ((made.exec, 6), (made.init, 5), (made.workload_init, 8)):
            process.stdin.write(b"\n")
            assert process.wait() == exit_code
        bridge.signal(NULL_ID, made.external.pid, 9)
        assert made.external.wait() == 137
        late = made.created.init(stdin=True)
        late.stdin.write(b"\n")
        assert late.wait() == 7
        for container in (made.running, made.created):
            bridge.wait_for_notification(container.id)
            container.delete()
        made.pod.close()
        bridge.modify(NULL_ID, RAMDISK, "Remove", {"MountPath": made.disk})
        assert made.disk not in Path("/proc/self/mountinfo").read_text()
        # An exit code is kept a little for waits that an earlier daemon has not answered.
        left = [path.name for path in (vm.run_dir / "journal").iterdir()]
        assert [name for name in left if not name.startswith("external@")] == []


@contextlib.contextmanager
def strict() -> Iterator[tuple[Held, StrictThings]]:
    with strict_root(STRICT_ID) as root, held(paths_bundle_roots="/run/gcs") as (vm, bridge):
        yield vm, StrictThings(vm, bridge, root)


@pytest.mark.parametrize("release", RELEASES)
def test_a_policy_comes_back_with_what_it_has_counted(release: str) -> None:
    recorded = files(JOURNALS / release / "strict")
    with strict() as (vm, made):
        bridge = made.bridge
        exchange(vm, made, lambda: made.replay(recorded))
        assert made.running.exec("/bin/sh", "-c", "exit 3").wait() == 3
        with pytest.raises(Refused, match="policy"):
            made.running.exec("/bin/ls")
        made.init.stdin.write(b"\n")
        assert made.init.wait() == 5
        bridge.wait_for_notification(STRICT_ID)
        bridge.modify(NULL_ID, RAMDISK, "Remove", {"MountPath": made.disk})
        subprocess.run(["umount", made.spec["root"]["path"]], check=True)
        made.running.delete()
        # It was counted by a daemon of the other release.
        with pytest.raises(Refused, match="denied due to policy"):
            bridge.create(STRICT_ID, made.spec, **made.places)
        told = bridge.properties(NULL_ID, "uvmd.ps")["uvmd.ps"]
        assert (told["degraded"], told["inconsistent"]) == (None, None)


def newer(version: str, name: str) -> Spoil:
    def spoil(run_dir: Path) -> None:
        path = run_dir / name
        # Of a file that grows, the last line counts.
        entry = json.loads(path.read_text().splitlines()[-1])
        assert version in entry
        path.write_text(json.dumps({**entry, version: 99}))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "cause", "runs_on"),
    [
        (newer("version", f"journal/{STRICT_ID}.json"), "cannot be read: version 99, known is 2", False),
        (newer("v", "devices.json"), "devices cannot be read: version 99, known is 1", True),
        (newer("v", "gate.json"), "taken up again after a restart: version 99, known is 1", True),
        (newer("v", "plugins/uvmd-policy-rego.json"), "taken up again after a restart", True),
    ],
    ids=["container", "devices", "gate", "policy"],
)
def test_what_a_later_release_has_written_closes_the_door(spoil: Spoil, cause: str, runs_on: bool) -> None:
    with strict() as (vm, made):
        exchange(vm, made, lambda: spoil(vm.run_dir))
        with pytest.raises(Refused) as denied:
            made.bridge.properties(NULL_ID, "uvmd.ps")
        assert cause in str(denied.value)
        assert is_running(made.init.pid) is runs_on

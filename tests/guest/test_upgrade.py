"""The package under a running systemd: another version comes, containers and host go on."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guest.harness.daemon import DAEMON, SETTINGS
from guest.harness.guest import Guest
from guest.harness.snapshots import boot_product
from guest.harness.timeline import negotiate
from soak.restarts import COUNTING
from support import rootfs, specs
from support.containers import created, new_id, shell
from support.host import GET_PROPERTIES, NULL_ID, ZERO_GUID, Connection, Process
from support.packages import vary
from support.pods import Pod, sandbox_spec
from uvmd.api.testing.guest.devices import Disk
from uvmd.api.testing.guest.profiles import PROFILES

if TYPE_CHECKING:
    from guestimage.layers import Image

#: In the guest: the packages, and a root file system for containers.
PLACE = "/run/packages"
ROOT = Path(f"{PLACE}/rootfs")
INSTALL_S = 180
#: A host has other things to do, and an emulated guest one processor.
ASK_AGAIN_S = 4
MISMATCH = "the monitor speaks version 2 of its language, the daemon 3"


def newer(modules: Path) -> None:
    path = modules / "uvmd" / "__init__.py"
    path.write_text(path.read_text() + '__version__ = "9.1.0"\n')


def bad(modules: Path) -> None:
    """A setting and a module have other names, and the monitor would have to be another one."""
    core = modules / "uvmd"
    (core / "daemon" / "own_cgroup.py").rename(core / "daemon" / "its_cgroup.py")
    changes = (
        ("daemon/compose.py", "daemon.own_cgroup", "daemon.its_cgroup"),
        ("daemon/config.py", "kernel_level", "kernel_lines"),
        ("daemon/compose.py", "kernel_level", "kernel_lines"),
        ("monitor/wire.py", "VERSION = 2", "VERSION = 3"),
    )
    for name, old, new in changes:
        text = (core / name).read_text()
        assert old in text, f"{name} has no {old}"
        (core / name).write_text(text.replace(old, new))


class Upgraded:
    """A utility VM as it is delivered, with packages to install in it."""

    def __init__(self, guest: Guest, disk: Path) -> None:
        self.guest = guest
        place: Disk = guest.add_disk(disk, lun=0, read_only=True)
        guest.sh(f"mkdir {PLACE}; mount -t erofs -o ro {place.wait()} {PLACE}")

    def install(self, name: str, status: int = 0) -> str:
        """Install a version, which lies in memory; return what dpkg and the package have said."""
        return self.dpkg(f"--force-unsafe-io --install {PLACE}/{name}.deb", status)

    def dpkg(self, words: str, status: int = 0) -> str:
        text = self.guest.sh(f"dpkg {words} 2>&1; echo $?", timeout_s=INSTALL_S)
        said, _, ended = text.rstrip().rpartition("\n")
        assert int(ended) == status, text
        return said

    def installed(self) -> str:
        """What dpkg knows of it: version, and how far it is."""
        return self.guest.sh("dpkg-query -W -f '${Version} ${db:Status-Status}' uvmd")

    def log(self) -> list[dict[str, object]]:
        """What the daemons have logged."""
        text = self.guest.sh(f"journalctl -u {DAEMON} -o cat")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def serving(self) -> list[object]:
        """The versions of the daemons that have served, in their order."""
        return [line["version"] for line in self.log() if line["msg"] == "serving"]


@pytest.fixture(scope="module")
def vm(uvm_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    room = tmp_path_factory.mktemp("upgrade")
    rootfs.build(room / "disk" / "rootfs")
    vary(uvm_image.package, room / "disk" / "delivered.deb")
    vary(uvm_image.package, room / "disk" / "newer.deb", "9.1.0-1", newer)
    vary(uvm_image.package, room / "disk" / "bad.deb", "9.2.0-1", bad)
    command = ["mkfs.erofs", "--quiet", "-T0", room / "packages.erofs", room / "disk"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    made = boot_product(PROFILES["v2"])
    try:
        negotiate(made)
        yield Upgraded(made, room / "packages.erofs")
    finally:
        made.close()


class Busy:
    """Containers that a host has in the VM, each with something that an upgrade could lose."""

    def __init__(self, bridge: Connection, pod: Pod, counting: Process, terminal: Process) -> None:
        self.bridge, self.pod, self.counting, self.terminal = bridge, pod, counting, terminal
        self.wait = bridge.send_wait(counting.container_id, counting.pid)
        self.workload = pod.create(*shell("read line; echo in the pod; exit 8"), root=ROOT)
        self.init = self.workload.init(stdin=True, stdout=True)

    def ask(self) -> None:
        """What a host asks for all day; each request has to be answered."""
        process = self.bridge.execute(self.counting.container_id, specs.process("/bin/sh", "-c", "exit 3"))
        assert process.wait() == 3
        assert "containers" in self.bridge.properties(NULL_ID, "uvmd.ps")["uvmd.ps"]

    def type(self, word: str) -> None:
        self.terminal.stdin.write(f"{word}\n".encode())
        self.terminal.stdout.read_until(f"got {word}\r\n".encode())

    def end(self) -> None:
        """Each ends with its own code, and every line is there once."""
        self.init.stdin.write(b"\n")
        assert (self.init.wait(), self.init.stdout.read_all()) == (8, b"in the pod\n")
        self.terminal.stdin.write(b"end\n")
        assert self.terminal.wait() == 6
        self.bridge.signal(self.counting.container_id, self.counting.pid, 15)
        assert self.bridge.answer(self.wait, 60)["ExitCode"] == 7
        output = self.counting.stdout.read_all()
        assert output == b"".join(b"line %d\n" % number for number in range(output.count(b"\n")))


@pytest.fixture
def busy(vm: Upgraded) -> Iterator[Busy]:
    """Containers; afterwards the connection is the one of the beginning, and the monitor too."""
    guest, bridge = vm.guest, vm.guest.bridge
    monitor = guest.daemon.pids["monitor"]
    pod_id = new_id()
    bridge.create(pod_id, sandbox_spec(pod_id, root=ROOT))
    bridge.start(pod_id)
    pod = Pod(bridge, pod_id, bridge.execute(pod_id))
    with created(bridge, *shell(f"{COUNTING}; exit 7"), root=ROOT) as container:
        counting = container.init(stdout=True)
        echo = "while read word; do [ $word = end ] && exit 6; echo got $word; done"
        terminal = container.exec(*shell(echo), terminal=True, stdin=True, stdout=True)
        made = Busy(bridge, pod, counting, terminal)
        made.type("before")
        yield made
        made.end()
    pod.close()
    assert bridge.is_open
    assert guest.daemon.pids["monitor"] == monitor
    assert not (told := bridge.properties(NULL_ID, "uvmd.ps")["uvmd.ps"])["degraded"], told
    guest.assert_kernel_is_calm()


def test_an_upgrade_is_a_pause_for_the_host_and_nothing_for_containers(vm: Upgraded, busy: Busy) -> None:
    guest = vm.guest
    before, version = guest.daemon.pids, vm.serving()[-1]
    said: list[str] = []
    dpkg = threading.Thread(target=lambda: said.append(vm.install("newer")))
    dpkg.start()
    asked = 0
    while dpkg.is_alive():
        busy.ask()
        asked += 1
        dpkg.join(ASK_AGAIN_S)
    assert said, "dpkg has failed"
    assert asked > 2
    assert vm.installed() == "9.1.0-1 installed"
    assert vm.serving()[-2:] == [version, "9.1.0"]
    assert guest.daemon.pids["daemon"] != before["daemon"]
    busy.type("after")
    busy.ask()
    assert guest.sh("uvmd --version") == "uvmd, version 9.1.0\n"
    assert guest.sh("uvmd doctor", timeout_s=60).endswith("uvmd doctor: ok\n")
    assert guest.sh("find /opt/uvmd/lib -name '*.new'") == ""


def test_a_bad_version_leaves_what_runs_and_is_taken_back(vm: Upgraded, busy: Busy) -> None:
    guest, bridge = vm.guest, busy.bridge
    before, version = guest.daemon.pids, vm.serving()[-1]
    # It refuses the settings: nothing happens.
    said = vm.install("bad", status=1)
    assert "kernel_level" in said
    assert "the new version refuses the settings, the old daemon goes on" in said
    assert vm.installed() == "9.2.0-1 half-configured"
    assert guest.daemon.pids == before
    # The next daemon, too, is of the version that was at work.
    guest.daemon.wait_for_another(guest.daemon.kill())
    busy.ask()
    assert vm.serving()[-2:] == [version, version]
    # They are corrected, and its daemon cannot talk to the monitor: the host waits, containers do not.
    guest.sh(f"sed -i s/kernel_level/kernel_lines/ {SETTINGS}")
    said = vm.dpkg("--configure uvmd", status=1)
    assert "the new daemon does not start, the containers run on" in said
    errors = [str(line["error"]) for line in vm.log() if line["msg"] == "the monitor is of another release"]
    assert errors
    assert MISMATCH in errors[0]
    query = {"ContainerId": busy.counting.container_id, "ActivityId": ZERO_GUID, "Query": ""}
    waiting = bridge.send(GET_PROPERTIES, query)
    busy.counting.stdout.wait_for_bytes(busy.counting.stdout.count + 50)
    busy.type("meanwhile")
    assert not bridge.answered(waiting)
    guest.sh(f"sed -i s/kernel_lines/kernel_level/ {SETTINGS}")
    vm.install("delivered")
    assert vm.installed().endswith(" installed")
    assert bridge.answer(waiting, 60)["Result"] == 0
    busy.type("after")
    busy.ask()

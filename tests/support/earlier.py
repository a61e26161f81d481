"""What an earlier release left in its run directory, as files, and the same VM made again.

A file is what that release's daemon wrote, with names in place of what differs from one run to
the next: folders, ids, slots, pids and their start times. ``record_journal.py`` writes them;
a test makes the same things with the release at hand, and puts the files in place of its own
while no daemon is there.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import uvmd
from support import machine, rootfs, specs
from support.containers import Container, new_id, shell
from support.daemon import Daemon
from support.host import NULL_ID, Connection
from support.pods import start_sandbox

RAMDISK = "example.com/Ramdisk"
#: What is recorded; the rest of the run directory is of the moment (sockets, logs).
KEPT = ("journal/*.json", "devices.json", "gate.json", "plugins/*")
STRICT_ID = "5e" * 32
#: Each create is counted, and no id is made twice; one command may be executed.
POLICY = """package policy
api_version := "0.10.0"
framework_version := "0.3.0"
create_container := {"allowed": true, "allow_stdio_access": true, "metadata": [made]} {
    not data.metadata.made[input.containerID]
    made := {"name": "made", "action": "add", "key": input.containerID, "value": 1}
}
exec_in_container := {"allowed": true} { input.argList[0] == "/bin/sh" }
modify_resource := {"allowed": true}
get_properties := {"allowed": true}
signal_container_process := {"allowed": true}
shutdown_container := {"allowed": true}
runtime_logging := {"allowed": true}
"""


class Held(Daemon):
    """A daemon whose successors wait until they may begin."""

    def argv(self) -> list[str]:
        python = str(machine.BIN / "python")
        monitor = str(Path(uvmd.__file__).parent / "monitor" / "__main__.py")
        flags = [f"--{key}={value}" for key, value in self.options.items()]
        waiting = 'while [ -e "$0" ]; do sleep 0.02; done; exec "$@"'
        # As `uvmd serve` does it, with a moment before the daemon.
        held = ["/bin/sh", "-c", waiting, str(self.hold), python, "-I", "-m", "uvmd.daemon", *flags]
        return [python, "-I", "-S", monitor, "--", *held]

    @property
    def hold(self) -> Path:
        return self.folder / "hold"


class Made:
    """Things in a VM, and the files that are kept of them."""

    vm: Daemon
    #: The containers' ids, by the name that stands for each.
    ids: dict[str, str]

    def texts(self) -> dict[str, str]:
        """What differs from run to run, by the name that stands for it."""
        found = {"@FOLDER@": str(self.vm.folder), "@PODS@": self.vm.pods, "@ROOT@": str(rootfs.shared())}
        found |= {f"@{name}@": container_id for name, container_id in self.ids.items()}
        for path in kept(self.vm.run_dir):
            for process in _PROCESS.finditer(path.read_text()):
                owner = {container_id: name for name, container_id in self.ids.items()}
                name = f"{process['kind']}-{owner.get(process['of'], 'VM')}"
                for what in ("slot", "pid", "start"):
                    found[f"@{name}-{what}@"] = process[what]
        return found

    def record(self) -> dict[str, str]:
        """The files that are kept, by their names, with names in place of what differs."""
        texts = self.texts()
        files = {}
        for path in kept(self.vm.run_dir):
            names = (
                f"{path.relative_to(self.vm.run_dir)}",
                _PROCESS.sub(lambda found: _named(found, texts), path.read_text()),
            )
            for name, text in texts.items():
                if not text.isdigit():
                    names = names[0].replace(text, name), names[1].replace(text, name)
            files[re.sub(r"external@\d+", "external@@external-VM-slot@", names[0])] = names[1]
        return files

    def replay(self, recorded: dict[str, str]) -> None:
        """Put recorded files in place of what is kept."""
        texts = self.texts()
        for path in kept(self.vm.run_dir):
            path.unlink()
        for name, text in recorded.items():
            for stands, real in texts.items():
                name, text = name.replace(stands, real), text.replace(stands, real)
            assert not re.search(r"@[\w-]+@", text), text
            path = self.vm.run_dir / name
            path.write_text(text)
            path.chmod(0o600)


class Things(Made):
    """What is in the VM: containers in a pod and without, processes, a disk."""

    def __init__(self, vm: Daemon, bridge: Connection) -> None:
        self.vm, self.bridge = vm, bridge
        self.created, self.running = Container(bridge, new_id()), Container(bridge, new_id())
        bridge.create(self.created.id, specs.container(*shell("read x; exit 7")))
        bridge.create(self.running.id, specs.container(*shell("read x; exit 5")))
        self.init = self.running.init(stdin=True)
        self.exec = self.running.exec(*shell("read x; exit 6"), stdin=True)
        parameters = {"CommandArgs": ["sleep", "600"], "Environment": {"PATH": "/bin"}}
        self.external = bridge.execute(NULL_ID, parameters=parameters)
        self.pod = start_sandbox(bridge)
        self.workload = self.pod.create(*shell("read x; exit 8"))
        self.workload_init = self.workload.init(stdin=True)
        self.disk = f"{vm.folder}/disk"
        bridge.modify(NULL_ID, RAMDISK, "Add", {"MountPath": self.disk, "SizeMiB": 1})
        self.ids = {
            "CREATED": self.created.id,
            "RUNNING": self.running.id,
            "POD": self.pod.id,
            "WORKLOAD": self.workload.id,
        }


class StrictThings(Made):
    """What is in a strict VM: a policy that counts, a container, a disk.

    The id is always the same: what policyd keeps has it, under a digest.
    """

    def __init__(self, vm: Daemon, bridge: Connection, root: Path) -> None:
        self.vm, self.bridge = vm, bridge
        encoded = base64.b64encode(POLICY.encode()).decode()
        bridge.modify(NULL_ID, "SecurityPolicy", settings={"EncodedSecurityPolicy": encoded})
        self.running = Container(bridge, STRICT_ID)
        self.places = {
            "OciBundlePath": str(root.parent),
            "ScratchDirPath": f"{root.parent}/scratch/{STRICT_ID}",
        }
        self.spec = specs.container(*shell("read x; exit 5"), root=root)
        bridge.create(STRICT_ID, self.spec, **self.places)
        self.init = self.running.init(stdin=True)
        self.disk = f"{vm.folder}/disk"
        bridge.modify(NULL_ID, RAMDISK, "Add", {"MountPath": self.disk, "SizeMiB": 1})
        self.ids = {"RUNNING": STRICT_ID}


_PROCESS = re.compile(
    r'"slot":(?P<slot>\d+),"kind":"(?P<kind>\w+)","container_id":"(?P<of>[^"]+)"(?P<rest>[^{}]*)'
    r'"pid":(?P<pid>\d+),"start_time":(?P<start>\d+)'
)


def _named(found: re.Match[str], texts: dict[str, str]) -> str:
    (name,) = (name[1:-5] for name, text in texts.items() if name.endswith("-pid@") and text == found["pid"])
    return (
        f'"slot":@{name}-slot@,"kind":"{found["kind"]}","container_id":"{found["of"]}"{found["rest"]}'
        f'"pid":@{name}-pid@,"start_time":@{name}-start@'
    )


def kept(run_dir: Path) -> Iterator[Path]:
    """What is recorded of a run directory."""
    for pattern in KEPT:
        yield from (path for path in sorted(run_dir.glob(pattern)) if path.is_file())

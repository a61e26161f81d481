"""`make demo`: the whole of uvmd on one machine, explained as it goes.

Starts a daemon in folders of its own, then is the host: every line that begins with `$`
is a command that you could type. What must be so is checked; the demo fails where it is not.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from support import machine, rootfs
from support.daemon import ENVIRONMENT, children, command_line, wait_until

#: The pod, and the network namespace that is outside of it.
POD = "demo-pod"
NAMESPACE = "75766d64-0000-4000-8000-00000000de30"
MAC = "02:75:76:6d:64:30"
INSIDE, OUTSIDE = "10.98.76.2", "10.98.76.1"


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)


class Demo:
    """A daemon and the host's hand tool, both talking over a socket in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix:{folder}/host.sock"
        self.steps: list[tuple[str, float]] = []
        self.log = folder / "uvmd.log"

    def uvmctl(self, *arguments: str, expect: int = 0) -> str:
        """Run a command of the host, showing it, its output as it comes, and its exit code."""
        print(f"$ uvmctl {' '.join(_quoted(word) for word in arguments)}", flush=True)
        began = time.monotonic()
        environment = {**ENVIRONMENT, "UVMD_HOST": self.address}
        with subprocess.Popen(
            [machine.BIN / "uvmctl", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            text = ""
            for line in process.stdout:
                print(f"  {line}", end="", flush=True)
                text += line
        taken = time.monotonic() - began
        self.steps.append((f"uvmctl {arguments[0]}", taken))
        print(f"  -> exit code {process.returncode}, {taken * 1000:.0f} ms", flush=True)
        if process.returncode != expect:
            print(
                f"\nexpected exit code {expect}. The daemon's log:\n{self.log.read_text()}", file=sys.stderr
            )
            sys.exit(1)
        return text

    def modify(self, request: str, settings: dict[str, object]) -> None:
        """Ask for an adapter of the pod, or for its removal."""
        file = self.folder / "adapter.json"
        wanted = {"ResourceType": "Network", "RequestType": request, "Settings": settings}
        file.write_text(json.dumps(wanted))
        print(f"  {file.name}: {file.read_text()}", flush=True)
        self.uvmctl("modify", "-f", str(file))

    def shell(self, *words: str) -> str:
        """Run a command of this machine, showing it and its output."""
        print(f"$ {' '.join(_quoted(word) for word in words)}", flush=True)
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        if "link" not in words:
            print("".join(f"  {line}\n" for line in done.stdout.splitlines()), end="", flush=True)
        return done.stdout

    @contextlib.contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        flags = [
            f"--transport={self.address}",
            f"--paths-run-dir={self.folder}/run",
            "--cgroups-pods=/uvmd-demo",
            "--log-format=text",
        ]
        print(f"$ uvmd serve {' '.join(flags)} &", flush=True)
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [machine.BIN / "uvmd", "serve", *flags],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def _quoted(word: str) -> str:
    return f"'{word}'" if any(letter in word for letter in ' ;$*"') else word


def find_daemon(monitor: int) -> int:
    found = [pid for pid in children(monitor) if "uvmd.daemon" in command_line(pid)]
    return found[0] if found else 0


def show(demo: Demo) -> None:
    root = str(rootfs.shared())
    with demo.daemon() as monitor:
        say("2. The daemon dials; uvmctl is the host that listens. Is it there, and how fast?")
        demo.uvmctl("ping", "-c", "5")

        say("3. A container from a root file system: create, start, stream, exit code, delete.")
        script = "for i in 1 2 3; do echo line $i from $(hostname), pid $$; sleep 0.2; done; exit 7"
        text = demo.uvmctl("run", "--rm", "--timing", "--name", "demo", root, "sh", "-c", script, expect=7)
        assert "line 3 from demo, pid 1" in text

        say("4. One in the background, with limits; a second process in it; what it uses.")
        demo.uvmctl(
            "run",
            "-d",
            "--name",
            "demo-web",
            "-m",
            "64m",
            "--pids-limit",
            "50",
            root,
            "sh",
            "-c",
            "sleep 600",
        )
        demo.uvmctl("exec", "demo-web", "ps")
        demo.uvmctl("ps")
        demo.uvmctl("stats", "demo-web")

        say("5. Now the daemon dies (kill -9). The monitor keeps the container and starts a new one.")
        before = find_daemon(monitor.pid)
        print(f"$ kill -9 {before}", flush=True)
        os.kill(before, 9)
        after = wait_until(
            lambda: (pid := find_daemon(monitor.pid)) not in (0, before) and pid, what="a new daemon"
        )
        print(f"  -> the daemon is now process {after}; the container did not notice:", flush=True)
        demo.uvmctl("ps")
        demo.uvmctl("exec", "demo-web", "sh", "-c", "echo still here; exit 3", expect=3)

        show_pod(demo, root)

        say("7. Clean up: stop it, delete it, stop the daemon.")
        demo.uvmctl("stop", "-t", "1", "demo-web")
        demo.uvmctl("rm", "demo-web")
        print(f"$ kill {monitor.pid}", flush=True)
        monitor.terminate()
        status = monitor.wait(20)
        print(f"  -> uvmd ended with status {status}", flush=True)
        assert status == 0


def show_pod(demo: Demo, root: str) -> None:
    say("6. A pod: its sandbox, a server and a client, which talk over the pod's own network.")
    pod = ("--pod", POD)
    with adapter(demo):
        wishes = ("--network", NAMESPACE, "--hostname", "shop")
        demo.uvmctl("run", "-d", "--name", POD, *pod, *wishes, root, "sleep", "600")
        server = "while :; do nc -l -p 80 -e echo hello from the server of $(hostname); done"
        demo.uvmctl("run", "-d", "--name", "demo-server", *pod, root, "sh", "-c", server)
        ask = f"nc {INSIDE} 80 </dev/null 2>/dev/null"
        client = f"for i in $(seq 50); do {ask} && exit; sleep 0.1; done; exit 9"
        text = demo.uvmctl("run", "--rm", "--name", "demo-client", *pod, root, "sh", "-c", client)
        assert "hello from the server of shop" in text
        print("  From outside of the pod, at the other end of the cable:", flush=True)
        again = ["sh", "-c", client.replace("nc ", "busybox nc ")]
        assert "hello from the server of shop" in demo.shell("ip", "netns", "exec", POD, *again)
        demo.uvmctl("ps")
        for name in ("demo-server", POD):
            demo.uvmctl("rm", "-f", name)
    assert "uvmd-demo" not in demo.shell("ip", "-br", "link"), "the adapter is still there"


@contextlib.contextmanager
def adapter(demo: Demo) -> Iterator[None]:
    """A cable between this machine and a network namespace of its own; our end is the pod's adapter."""
    print("  Its adapter, as a host would plug one in: one end of a cable.", flush=True)
    settings = {"NamespaceID": NAMESPACE, "ID": MAC}
    addresses = {
        "IPConfigs": [{"IPAddress": INSIDE, "PrefixLength": 24}],
        "Routes": [{"DestinationPrefix": "0.0.0.0/0", "NextHop": OUTSIDE}],
    }
    demo.shell("ip", "netns", "add", POD)
    try:
        cable = ("uvmd-demo0", "address", MAC, "type", "veth", "peer", "name", "lan", "netns", POD)
        demo.shell("ip", "link", "add", *cable)
        demo.shell("ip", "-n", POD, "addr", "add", f"{OUTSIDE}/24", "dev", "lan")
        demo.shell("ip", "-n", POD, "link", "set", "lan", "up")
        demo.modify("Add", settings | addresses)
        yield
        demo.modify("Remove", settings)
        # The kernel takes its time with a namespace that goes, and with what is in it.
        demo.shell("ip", "-n", POD, "link", "del", "lan")
    finally:
        demo.shell("ip", "netns", "del", POD)


def leftovers() -> list[str]:
    found = [str(path) for path in Path("/run/gcs/c").glob("*")] if Path("/run/gcs/c").exists() else []
    for hierarchy in machine.cgroup_hierarchies():
        found += [str(path) for path in (hierarchy / "uvmd-demo").glob("*/")]
    return found


def main() -> int:
    if os.geteuid() != 0:
        print("the demo runs real containers and needs root: sudo make demo", file=sys.stderr)
        return 1
    say("1. A small root file system (a static busybox), and a daemon in folders of its own.")
    print(f"  machine: {machine.describe()}\n  root file system: {rootfs.shared()}", flush=True)
    before = set(leftovers())
    folder = Path(tempfile.mkdtemp(prefix="uvmd-demo-"))
    try:
        demo = Demo(folder)
        show(demo)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for hierarchy in machine.cgroup_hierarchies():
            with contextlib.suppress(OSError):
                (hierarchy / "uvmd-demo").rmdir()
    left = set(leftovers()) - before
    assert not left, f"left behind: {sorted(left)}"
    say("Each step, as the host saw it (every command is a new process that waits for the daemon to dial):")
    for name, taken in demo.steps:
        print(f"  {name:<16}{taken * 1000:8.0f} ms")
    print("\nNothing is left behind. Next: README.md, `uvmctl --help`, `make help`.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Real network namespaces joined by veth pairs, made for a test and taken away again.

A machine under test is a namespace of its own: the thread that plays the daemon lives in
it, and nothing of the real machine's network is touched. A pair has one end in the VM and
one in the network outside.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from uvmd.linux import netns, syscalls

T = TypeVar("T")
_numbers = itertools.count()
#: Nothing of the caller's environment.
_ENVIRONMENT = {"PATH": "/sbin:/usr/sbin:/bin:/usr/bin", "LC_ALL": "C"}


class Space:
    """A network namespace held by a process that sleeps in it."""

    def __init__(self) -> None:
        made: list[subprocess.Popen[bytes]] = []

        def start() -> None:
            syscalls.unshare(syscalls.CLONE_NEWNET)
            made.append(subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, env=_ENVIRONMENT))

        in_a_thread(start)
        self._process = made[0]
        self.pid = self._process.pid
        self.fd = netns.hold(self.pid)
        self.ip("link", "set", "lo", "up")

    def close(self) -> None:
        self.end()
        os.close(self.fd)

    def end(self) -> None:
        """End the process; the namespace goes when nobody holds it."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def ip(self, *words: str) -> Any:
        """Run ``ip`` inside; what it prints in JSON."""
        return json.loads(self.run("ip", "-j", *words) or "[]")

    def run(self, *argv: str, check: bool = True) -> str:
        """Run a command inside; what it prints."""
        done = netns.run_in(self.fd, lambda: subprocess.run(argv, capture_output=True, env=_ENVIRONMENT))
        assert not check or done.returncode == 0, f"{argv}: {done.stderr.decode()}"
        return done.stdout.decode()

    def inside(self, function: Callable[[], T]) -> T:
        """Call a function on a thread that lives here."""
        return netns.run_in(self.fd, function)

    def link(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.ip("link") if one["ifname"] == name)
        return found

    def names(self) -> set[str]:
        return {one["ifname"] for one in self.ip("link")} - {"lo"}

    def addresses(self, name: str) -> set[str]:
        """Global addresses of an interface, as ``10.0.0.1/24``."""
        found = [info for one in self.ip("addr", "show", "dev", name) for info in one.get("addr_info", ())]
        return {f"{one['local']}/{one['prefixlen']}" for one in found if one["scope"] == "global"}

    def routes(self, table: str = "main") -> set[str]:
        """Routes that somebody added, as ``default via 10.0.0.1 dev eth0 metric 5``."""
        lines: list[str] = []
        for family in ("-4", "-6"):
            lines += self.run("ip", family, "route", "show", "table", table, check=False).splitlines()
        return {
            " ".join(
                line.replace(" onlink", "").replace(" pref medium", "").replace("proto boot ", "").split()
            )
            for line in lines
            if "proto kernel" not in line
        }

    def rules(self) -> set[str]:
        """Rules that somebody added."""
        lines: list[str] = []
        for family in ("-4", "-6"):
            lines += self.run("ip", family, "rule").splitlines()
        return {" ".join(one.split()) for one in lines if one.split(":")[0] not in ("0", "32766", "32767")}

    def picture(self) -> dict[str, Any]:
        """All that a test may not leave behind."""
        links = {one["ifname"]: (one["mtu"], "UP" in one["flags"]) for one in self.ip("link")}
        return {
            "links": links,
            "addresses": {name: self.addresses(name) for name in links},
            "routes": {table: self.routes(table) for table in ("main", "101")},
            "rules": self.rules(),
        }


class Machine:
    """A VM, what is outside of it, and as much of sysfs as tells adapters apart."""

    def __init__(self, sys_root: Path) -> None:
        self.vm, self.outside = Space(), Space()
        self.sys_root = sys_root
        (sys_root / "class/net").mkdir(parents=True)
        (sys_root / "bus/pci/devices").mkdir(parents=True)
        self.spaces = [self.vm, self.outside]

    def close(self) -> None:
        for space in self.spaces:
            space.close()

    def pod(self) -> Space:
        self.spaces.append(space := Space())
        return space

    def plug(self, name: str, mac: str = "") -> str:
        """A new adapter in the VM, joined to ``name`` outside; its MAC address, a new one by default."""
        number = next(_numbers)
        mac = mac or f"02:75:76:6d:{number >> 8:02x}:{number & 255:02x}"
        free = next(f"eth{at}" for at in itertools.count() if f"eth{at}" not in self.vm.names())
        # With its last name from the start: somebody may be waiting for the address.
        peer = ("peer", "name", free, "address", mac, "netns", str(self.vm.pid))
        self.outside.ip("link", "add", name, "type", "veth", *peer)
        self.outside.ip("link", "set", name, "up")
        self.show(free, mac)
        return mac

    def show(self, name: str, mac: str) -> None:
        """Let sysfs have an interface."""
        folder = self.sys_root / "class/net" / name
        folder.mkdir(exist_ok=True)
        (folder / "address").write_text(f"{mac}\n")

    def unshow(self, name: str) -> None:
        folder = self.sys_root / "class/net" / name
        (folder / "address").unlink()
        folder.rmdir()


def in_a_thread(function: Callable[[], None]) -> None:
    """Call on a thread of its own: what it unshares ends with it."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


@contextlib.contextmanager
def machine(sys_root: Path) -> Iterator[Machine]:
    made = Machine(sys_root)
    try:
        yield made
    finally:
        made.close()

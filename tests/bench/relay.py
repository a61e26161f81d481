"""A gibibyte through one relay, beside `cat` from a pipe into the same kind of socket."""

from __future__ import annotations

import json
import os
import socket
import statistics
import threading
import time

from bare import ENVIRONMENT
from report import Figure

from support import rootfs, specs
from support.containers import created
from support.host import EXECUTE, Connection

GIB = 1 << 30
WRITE = ("dd", "if=/dev/zero", "bs=1M", "count=1024")


def sink(listener: socket.socket) -> threading.Thread:
    def drain() -> None:
        connection, _ = listener.accept()
        buffer, count = bytearray(1 << 20), 0
        while got := connection.recv_into(buffer):
            count += got
        connection.close()
        assert count == GIB, count

    thread = threading.Thread(target=drain)
    thread.start()
    return thread


def through_cat(bridge: Connection) -> float:
    """The same writer into a pipe, `cat` from there into a socket of ours."""
    _, listener = bridge.host.next_port()
    thread = sink(listener)
    into = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    into.connect(listener.getsockname())
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    busybox = str(rootfs.shared() / "bin" / "busybox")
    null = (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)
    began = time.perf_counter()
    writer = os.posix_spawn(
        busybox, ["busybox", *WRITE], ENVIRONMENT, file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 1), null]
    )
    dup = [(os.POSIX_SPAWN_DUP2, read_end, 0), (os.POSIX_SPAWN_DUP2, into.fileno(), 1), null]
    cat = os.posix_spawn("/bin/cat", ["cat"], ENVIRONMENT, file_actions=dup)
    into.close()
    os.close(read_end)
    os.close(write_end)
    thread.join()
    taken = time.perf_counter() - began
    listener.close()
    for pid in (writer, cat):
        assert os.waitpid(pid, 0)[1] == 0
    return taken


def through_relay(bridge: Connection) -> float:
    with created(bridge, "/bin/sleep", "600") as container:
        container.init()
        port, listener = bridge.host.next_port()
        thread = sink(listener)
        asked = {"OciProcess": specs.process(*WRITE), "CreateStdOutPipe": True}
        settings = {"ProcessParameters": json.dumps(asked), "VsockStdioRelaySettings": {"StdOut": port}}
        began = time.perf_counter()
        pid = bridge.call(EXECUTE, container.id, Settings=settings)["ProcessId"]
        thread.join()
        taken = time.perf_counter() - began
        listener.close()
        assert bridge.wait(container.id, pid) == 0
    return taken


def gibibyte(bridge: Connection, count: int) -> Figure:
    ours, theirs = [], []
    for _ in range(count):
        theirs.append(through_cat(bridge))
        ours.append(through_relay(bridge))
    relay, cat = statistics.median(ours), statistics.median(theirs)
    beside = f"relay {1 / relay:.2f} GiB/s, cat {1 / cat:.2f} GiB/s"
    return Figure("1 GiB through one relay, to cat", 1.3, relay / cat, "x", beside, count)

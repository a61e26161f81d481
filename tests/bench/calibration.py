"""What this machine can do today: two figures beside which all others are read."""

from __future__ import annotations

import os
import socket
import statistics
import time
from pathlib import Path

from report import milliseconds

_REST_S = 5.0


def settle() -> str:
    """Have the kernel forget what is left of earlier work; return why it could not.

    Millions of names, and cgroups that are gone but still counted, as tests leave them behind,
    make every mount, unmount and look at a path slower, on both sides of each comparison.
    """
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError as error:
        return str(error)
    # What was freed goes back to the hypervisor within seconds, and is slower to come by meanwhile.
    time.sleep(_REST_S)
    return ""


def cpu_loop() -> float:
    """Median milliseconds of a fixed loop in the interpreter."""

    def once() -> float:
        began = time.perf_counter()
        total = 0
        for number in range(500_000):
            total += number & 7
        return time.perf_counter() - began

    return milliseconds([once() for _ in range(20)])


def ping_pong() -> float:
    """Median milliseconds of one round trip of 64 bytes with another process over a unix socket."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        try:
            while data := theirs.recv(64):
                theirs.sendall(data)
        finally:
            os._exit(0)
    theirs.close()
    samples = []
    for _ in range(3000):
        began = time.perf_counter()
        ours.sendall(b"x" * 64)
        ours.recv(64)
        samples.append(time.perf_counter() - began)
    ours.close()
    os.waitpid(child, 0)
    return statistics.median(samples) * 1000

"""A scrape of metrics while containers run."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from pathlib import Path

from report import Figure, milliseconds
from stances import Stance

from support.containers import created
from support.daemon import wait_until


def of_containers(stance: Stance, count: int, samples: int) -> Figure:
    """Time from connecting to the last byte of a page about ``count`` running containers."""
    with tempfile.TemporaryDirectory(prefix="uvmd-scrape-") as folder, contextlib.ExitStack() as stack:
        path = Path(folder) / "metrics"
        config = Path(folder) / "uvmd.toml"
        config.write_text(f'[plugin.telemetry]\nmetrics = "unix:{path}"\n')
        daemon = stack.enter_context(stance.running(options={"config": str(config)}))
        bridge = stance.connect(daemon)
        stack.callback(bridge.close)
        for _ in range(count):
            stack.enter_context(created(bridge, "/bin/sleep", "600")).init()
        wait_until(path.exists, what="the socket of metrics")
        page = _scrape(path)
        assert page.count("uvmd_container_processes{") == count
        seconds = []
        for _ in range(samples):
            began = time.perf_counter()
            _scrape(path)
            seconds.append(time.perf_counter() - began)
    beside = f"{len(page) / 1024:.0f} KiB a page"
    return Figure(f"metrics of {count} containers", 20, milliseconds(seconds), "ms", beside, samples)


def _scrape(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        answer = b""
        while more := connection.recv(1 << 20):
            answer += more
    return answer.decode()

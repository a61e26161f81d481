"""A scrape of metrics while containers run, and what metrics cost while nobody scrapes."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from pathlib import Path

from footprint import settled
from report import Figure, milliseconds
from stances import Stance

from support.containers import created
from support.daemon import wait_until

PAUSE_S = 0.1


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
            # Scrapers come every few seconds. One after the other without a pause would measure
            # the share of a CPU that a busy machine has left for a thread that never rests.
            time.sleep(PAUSE_S)
            began = time.perf_counter()
            _scrape(path)
            seconds.append(time.perf_counter() - began)
    beside = f"{len(page) / 1024:.0f} KiB a page"
    return Figure(f"metrics of {count} containers", 20, milliseconds(seconds), "ms", beside, samples)


def unread(stance: Stance, seconds: float) -> Figure:
    """How often the threads of a daemon wake that is asked for nothing, over one without the plugin."""
    with tempfile.TemporaryDirectory(prefix="uvmd-unread-") as folder:
        config = Path(folder) / "uvmd.toml"
        lines = [f'metrics = "unix:{folder}/metrics"', "otlp_port = 4318", "otlp_interval_s = 0.1"]
        config.write_text("\n".join(["[plugin.telemetry]", *lines]))
        served = _idle(stance, {"config": str(config)}, seconds)
        without = _idle(stance, {"plugins-deny": "telemetry"}, seconds)
    beside = (
        f"wake-ups {served[0]}, without the plugin {without[0]};"
        f" CPU {served[1]:.2f} ms, without {without[1]:.2f} ms"
    )
    more = max(0, served[0] - without[0])
    # Not none: a timer of the daemon's own may fall into one window and not into the other.
    return Figure(f"metrics and traces unread for {seconds:g} s, wake-ups", 2, more, "", beside)


def _idle(stance: Stance, options: dict[str, str], seconds: float) -> tuple[int, float]:
    """The wake-ups of all threads of an idle daemon in that time, and its CPU time in ms."""
    with stance.running(options=options) as daemon, contextlib.closing(stance.connect(daemon)):
        settled(daemon)
        tasks = Path(f"/proc/{daemon.daemon_pid}/task")
        before = _spent(tasks)
        time.sleep(seconds)
        after = _spent(tasks)
    return after[0] - before[0], (after[1] - before[1]) / 1e6


def _spent(tasks: Path) -> tuple[int, int]:
    """Voluntary switches of all threads (each ends one waking), and nanoseconds on a CPU."""
    switches = cpu_ns = 0
    for task in tasks.iterdir():
        words = (task / "status").read_text().split()
        switches += int(words[words.index("voluntary_ctxt_switches:") + 1])
        cpu_ns += int((task / "schedstat").read_text().split()[0])
    return switches, cpu_ns


def _scrape(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        answer = b""
        while more := connection.recv(1 << 20):
            answer += more
    return answer.decode()

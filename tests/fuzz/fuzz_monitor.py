"""Throws made-up packets at the monitor's codec, and at a live monitor, for a bounded time.

    python tests/fuzz/fuzz_monitor.py --seconds 60 --seed 1

Holds: the codec returns a packet of a known shape or raises WireError, nothing else. The
live monitor never dies of what a daemon sends; it ends a daemon that talks nonsense and
starts another; a process that it keeps lives through all of it, no internal error is
logged, and neither its memory nor its descriptors grow. A failure prints the seed.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.live_monitor import LiveMonitor, StandIn
from uvmd.monitor import packets, wire
from uvmd.monitor.conversation import MonitorError
from uvmd.monitor.frames import HEADER_BYTES, FrameReader

PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
NUMBERS = [0, 1, -1, 2, 3, 9, 15, 80, 1000, 2**16, 2**31, 2**32 - 1, 2**32, 2**62, -(2**63), 2**63 - 1]
#: Nothing but this is ever executed.
PROGRAMS = [[b"true"], [b"/nonexistent"], [b"sleep", b"0.01"], [b""], [], [b"a\0b"], [b"sh", b"-c", b"exit"]]
# FINISH ends the monitor, as it should; TAKEN is no request.
OPERATIONS = sorted(set(range(wire.HELLO, wire.REPLY)) & set(wire.SHAPES) - {wire.FINISH, wire.TAKEN})


def run_codec(seconds: float, seed: int) -> tuple[int, float]:
    """Feed the decoder and the frame reader; return (inputs, seconds)."""
    chooser = random.Random(seed)
    start = time.monotonic()
    count = 0
    while time.monotonic() - start < seconds:
        for _ in range(200):
            count += 1
            data = _packet(chooser, Path("/nonexistent"))
            if chooser.random() < 0.7:
                data = _damage(chooser, data)
            _decode(data, f"seed {seed}, input {count}")
            _read_frames(chooser, data)
    return count, time.monotonic() - start


def _decode(data: bytes, where: str) -> None:
    try:
        op, tag, fields = wire.decode(data)
        if op == wire.HELLO:
            wire.decode_slot(data)
    except wire.WireError:
        return
    shape = "".join({int: "i", bytes: "b", list: "l"}[type(field)] for field in fields)
    assert wire.SHAPES[op] in (None, shape), where
    assert wire.encode(op, tag, *fields) == data, where


def _read_frames(chooser: random.Random, data: bytes) -> None:
    reader = FrameReader(chooser.choice([16, 100, 1 << 24]))
    try:
        while data:
            cut = chooser.randint(1, len(data))
            reader.feed(data[:cut])
            data = data[cut:]
            while (frame := reader.next_frame()) is not None:
                assert HEADER_BYTES <= len(frame) <= reader.max_bytes
    except ValueError:
        pass


def _bytes(chooser: random.Random, folder: Path) -> bytes:
    return chooser.choice(
        [
            b"",
            chooser.randbytes(chooser.choice([1, 16, 300])),
            b"unix:" + os.fsencode(folder / "nobody"),
            os.fsencode(folder / f"console{chooser.randint(0, 3)}"),
            b"/",
            b"/nonexistent",
            b"stdio\0",
            b"x" * 200,
        ]
    )


def _packet(chooser: random.Random, folder: Path) -> bytes:
    """A packet of the right shape with odd values. The first list of a program is its argv."""
    op = chooser.choice(OPERATIONS)
    fields: list[Any] = []
    for kind in wire.SHAPES[op] or "":
        if kind == "i":
            fields.append(chooser.choice(NUMBERS) if chooser.random() < 0.6 else chooser.randint(1, 12))
        elif kind == "b":
            fields.append(_bytes(chooser, folder))
        elif op == wire.SERVICE and len(fields) == 3:
            fields.append(chooser.choice([[], [b"data=99999999"], [b"core=0", b"nofile=x"], [b"cpu=1"]]))
        elif "l" not in [{list: "l"}.get(type(field)) for field in fields]:
            fields.append(chooser.choice(PROGRAMS))
        else:
            fields.append([b"PATH=/usr/bin:/bin", chooser.choice([b"", b"=", b"A=\0", b"X=1"])])
    if op == wire.RUN:
        fields[4] = chooser.choice([0, -1, 10**7, 10**9])  # nothing runs for long
    return wire.encode(op, 0x80000000 + chooser.randint(0, 1000), *fields)


def _damage(chooser: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(chooser.randint(1, 5)):
        if not damaged:
            break
        at = chooser.randrange(len(damaged))
        way = chooser.random()
        if way < 0.5:
            damaged[at] = chooser.randrange(256)
        elif way < 0.7:
            del damaged[at : at + chooser.randint(1, 9)]
        else:
            damaged[at:at] = chooser.randbytes(chooser.randint(1, 9))
    return bytes(damaged)


class Attack:
    """One live monitor under fire."""

    def __init__(self, monitor: LiveMonitor, seed: int) -> None:
        self.monitor = monitor
        self.chooser = random.Random(seed)
        self.where = f"seed {seed}"
        self.count = 0
        self.daemon = monitor.next_daemon()
        self.daemon.greet()
        # Before anything else: what is dialled must never be a real host.
        self.daemon.link.set_stream_base(f"unix:{monitor.folder}/nobody")
        self.witness = self.daemon.link.new_slot()
        self.witness_pid = self.daemon.link.spawn(
            self.witness, ["sleep", "1000"], env=PATH, cwd="/", ports=(None, None, None), label="witness"
        )

    def volley(self) -> None:
        """Send a hundred well-formed packets, see that it still serves; then maybe nonsense."""
        try:
            for _ in range(100):
                self.count += 1
                self._send(_packet(self.chooser, self.monitor.folder))
            self._check()
            if self.chooser.random() < 0.15:
                self.count += 1
                self._nonsense()
                self._check()
        except (MonitorError, OSError):
            self._next_daemon()

    def _send(self, packet: bytes) -> None:
        op, _, fields = wire.decode(packet)
        if op in (wire.KILL, wire.RELEASE) and fields[0] == self.witness:
            return
        fds = [0] * self.chooser.choice([0, 0, 0, 1, 5])
        packets.send(self.daemon.sock, packet, fds)

    def _nonsense(self) -> None:
        chooser, sock = self.chooser, self.daemon.sock
        ways: list[Callable[[], object]] = [
            lambda: sock.send(chooser.randbytes(chooser.choice([1, 7, 8, 100, 60_000]))),
            lambda: sock.send(self._harmlessly_damaged()),
            lambda: sock.send(wire.encode(wire.LARGE, 0, chooser.choice(NUMBERS))),
            lambda: socket.send_fds(sock, [wire.encode(wire.LARGE, 0, 10)], [0] * chooser.choice([1, 3])),
            lambda: packets.send(sock, wire.encode(wire.REPLY, 0, bytes(chooser.choice([10, 200_000])))),
            lambda: sock.shutdown(socket.SHUT_RDWR),
            lambda: sock.shutdown(socket.SHUT_WR),
            lambda: os.kill(self.daemon.pid, 9),
        ]
        chooser.choice(ways)()

    def _harmlessly_damaged(self) -> bytes:
        while True:
            data = _damage(self.chooser, _packet(self.chooser, self.monitor.folder))
            try:
                op, _, _ = wire.decode(data)
            except wire.WireError:
                return data
            # What is well-formed by accident must not be what we promised not to send.
            promised = {wire.FINISH, wire.RUN, wire.SPAWN, wire.SERVICE, wire.STREAM_BASE, wire.OPEN_BRIDGE}
            if op not in promised | {wire.KILL}:
                return data

    def _check(self) -> None:
        completed = self.daemon.link.run(["true"], env=PATH, deadline_s=10)
        assert completed.status == 0, self.where

    def _next_daemon(self) -> None:
        assert self.monitor.process.poll() is None, f"the monitor has died ({self.where})"
        self.daemon: StandIn = self.monitor.next_daemon()
        state = self.daemon.greet()
        found = {one.slot: one for one in (*state.slots, *state.services)}
        assert found[self.witness].status is None, self.where
        assert found[self.witness].pid == self.witness_pid, self.where
        for number in found:
            if number != self.witness:
                self.daemon.link.release(number)

    def end(self) -> None:
        """See that nothing was left behind."""
        for number in range(0, 2000):
            if number != self.witness:
                self.daemon.link.release(number)
        for number in NUMBERS:
            self.daemon.link.release(number)
        self._check()
        folder = f"/proc/{self.monitor.process.pid}"
        left = [os.readlink(f"{folder}/fd/{fd}") for fd in os.listdir(f"{folder}/fd")]
        assert len(left) < 30, f"{self.where}: {sorted(left)}"
        for line in Path(f"{folder}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                assert int(line.split()[1]) < 16 * 1024, f"{self.where}: {line}"
        os.kill(self.witness_pid, 0)
        os.kill(self.witness_pid, 9)


def run_live(seconds: float, seed: int) -> tuple[int, float]:
    """Attack a live monitor; return (packets, seconds)."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, LiveMonitor(Path(folder)) as monitor:
        attack = Attack(monitor, seed)
        while time.monotonic() - start < seconds:
            attack.volley()
        attack.end()
        return attack.count, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("FUZZ_SECONDS", "20")))
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    for name, target in (("codec", run_codec), ("live", run_live)):
        count, took_s = target(options.seconds / 2, options.seed)
        print(f"{name}: {count} inputs, {count / took_s:.0f} a second, seed {options.seed}")


if __name__ == "__main__":
    main()

"""How long a boot of the delivered image took, and which part of it was uvmd's own."""

from __future__ import annotations

import time
from dataclasses import dataclass

from guest.harness.daemon import MONITOR
from guest.harness.guest import Guest


@dataclass(frozen=True, slots=True)
class Boot:
    """Seconds since QEMU was started."""

    kernel: float
    systemd: float
    uvmd: float
    negotiated: float
    #: CPU seconds of QEMU up to then.
    cpu: float

    @property
    def uvmd_s(self) -> float:
        """From the start of uvmd's first process to the answer of Negotiate."""
        return self.negotiated - self.uvmd

    def lines(self) -> list[str]:
        """The boot as a table."""
        rows = (
            ("the kernel starts", self.kernel),
            ("systemd starts", self.systemd),
            ("uvmd's monitor starts", self.uvmd),
            ("Negotiate is answered", self.negotiated),
        )
        share = f"uvmd's own share: {self.uvmd_s:.2f} s, {100 * self.uvmd_s / self.negotiated:.0f} %"
        cpu = f"CPU time of QEMU: {self.cpu:.2f} s (what an idle machine would take)"
        return [*(f"{what:<24}{at:6.2f} s" for what, at in rows), share, cpu]


def _monotonic() -> float:
    import time

    return time.clock_gettime(time.CLOCK_MONOTONIC)


def negotiate(guest: Guest, timeout_s: float = 120) -> Boot:
    """Take the first connection of a guest that boots; return the times of its boot."""
    guest.bridge_within(timeout_s)
    negotiated, cpu = time.monotonic(), guest.machine.cpu_s()
    guest.wake()
    # The guest's clock began with its kernel.
    guest_now = guest.call(_monotonic)
    kernel = time.monotonic() - guest_now
    systemd = guest.sh("systemctl show -P UserspaceTimestampMonotonic")
    uvmd = guest.sh(f"systemctl show -P ExecMainStartTimestampMonotonic {MONITOR}")
    began = guest.machine.began
    at = kernel - began
    return Boot(at, at + int(systemd) / 1e6, at + int(uvmd) / 1e6, negotiated - began, cpu)

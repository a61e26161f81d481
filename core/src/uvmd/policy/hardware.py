"""Is this a confidential VM? Decided by what the kernel shows, not by a flag.

Two things hang on the answer: requests are handled one at a time, and a policy is only
accepted when its digest matches what the hardware was launched with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

SEV = "sev"
TDX = "tdx"

#: Which device of the kernel stands for which hardware (kernel 5.x and 6.x drivers).
DEVICES: Mapping[str, str] = {"dev/sev": SEV, "dev/sev-guest": SEV, "dev/tdx_guest": TDX}
_ON_HOSTS_TOO: Final = "dev/sev"


def find_hardware(root: str = "/") -> frozenset[str]:
    """Return the kinds of confidential hardware this VM runs on; empty for none.

    ``/dev/sev`` alone is not enough: it also exists on the *host* of such VMs, and a
    developer's machine must not lock itself. The others exist in guests only, and are not
    asked for a hypervisor: whether the CPU reports one is what a hypervisor says. In doubt the
    answer is yes: a device that cannot be looked at exists (spec attestation.md 6.1), and so
    does the hypervisor when the CPU's flags cannot be read.
    """
    found = {path: kind for path, kind in DEVICES.items() if _exists(os.path.join(root, path))}
    if _ON_HOSTS_TOO in found and not _under_hypervisor(root):
        del found[_ON_HOSTS_TOO]
    return frozenset(found.values())


def _exists(path: str) -> bool:
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def _under_hypervisor(root: str) -> bool:
    try:
        with open(os.path.join(root, "proc/cpuinfo"), encoding="ascii", errors="replace") as lines:
            flags = next((line for line in lines if line.startswith("flags")), None)
    except OSError:
        return True
    # No line of flags: not x86, where the devices above exist in guests only.
    return flags is None or "hypervisor" in flags.split()

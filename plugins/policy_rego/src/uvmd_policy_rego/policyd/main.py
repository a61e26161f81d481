"""policyd's life: limits first, then the engine, then the filter, then questions."""

from __future__ import annotations

import os
import resource
import socket
import time

_WAIT_S = 5.0
_STACK_BYTES = 64 << 20


def main() -> int:
    """Serve the daemon; return the exit status."""
    if not _has_limit():
        return os.EX_UNAVAILABLE
    # The engine recurses over what it reads. The main thread's stack grows up to this.
    _, most = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = _STACK_BYTES if most == resource.RLIM_INFINITY else min(_STACK_BYTES, most)
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, most))
    # A denial has no use for the engine's stack; taking it costs milliseconds.
    os.environ["RUST_BACKTRACE"] = "0"
    from uvmd_policy_rego.policyd import confinement
    from uvmd_policy_rego.policyd.serving import serve

    listener = socket.socket(fileno=3)
    confinement.warm_up()
    confinement.install()
    try:
        serve(listener)
    except BaseException:
        # No traceback: it would quote the policy. The daemon makes another one of us.
        os._exit(os.EX_SOFTWARE)
    return 0


def _has_limit() -> bool:
    """Wait for the limit on memory, which the monitor sets once we run.

    The engine's allocator reserves a gibibyte where it may, and is not bounded afterwards.
    """
    until = time.monotonic() + _WAIT_S
    while resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY:
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True

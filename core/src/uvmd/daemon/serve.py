"""The daemon's life: read the configuration, put the rooms together, serve until told to stop.

Order is start-up time: the monitor is told where to dial before anything heavy is imported,
so that the host's first frame and our imports meet. What the first request needs and
Negotiate does not (pydantic, the models) is loaded once Negotiate can be answered.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from uvmd import __version__
from uvmd.daemon import confinement
from uvmd.daemon.config import Config
from uvmd.daemon.options import load
from uvmd.errors import ConfigError, UvmdError
from uvmd.monitor.link import Link, MonitorError
from uvmd.monitor.notify import keep_pinging, notify
from uvmd.observe import logs
from uvmd.transport import parse_transport

if TYPE_CHECKING:
    from uvmd.daemon.compose import Daemon

log = logging.getLogger(__name__)

#: Where the link is: a descriptor from the monitor that is our parent, or the socket of one that is not.
MONITOR_FD, MONITOR_SOCKET = "UVMD_MONITOR_FD", "UVMD_MONITOR_SOCKET"
#: How long the first answer may keep the warm-up waiting.
WARM_UP_AFTER_S = 0.25
#: What ends the cleaning up when the monitor asked for it; the monitor itself waits 30 s.
STOP_LIMIT_S = 25.0
#: What a daemon that is asked to go waits for the requests that it is serving; the next one does the rest.
LEAVE_LIMIT_S = 5.0


def run(flags: Sequence[str], notes: Sequence[str] = ()) -> int:
    """Serve; return the exit status. ``notes`` are logged as warnings once logging works.

    Status 78 (EX_CONFIG) before the first word to the monitor means that the daemon refuses
    to start; the monitor, or the service manager, then does not try again.
    """
    if MONITOR_FD not in os.environ and MONITOR_SOCKET not in os.environ:
        print("uvmd: the daemon is started by its monitor; type: uvmd serve", file=sys.stderr)
        return os.EX_USAGE
    try:
        config = load(flags, os.environ).config
        transport = parse_transport(config.transport)
        logs.setup(
            format=config.log.format, level=config.log.level, file=config.log.file, scrub=config.log.scrub
        )
    except (ConfigError, OSError) as error:
        print(f"uvmd: {error}", file=sys.stderr)
        return os.EX_CONFIG
    os.umask(0o077)
    for note in notes:
        log.warning(note)
    try:
        return _serve(config, _link(), transport.bridge, transport.streams)
    except ConfigError as error:
        log.error("uvmd refuses to start", extra={"error": str(error)})
        return os.EX_CONFIG
    except MonitorError as error:
        other = error.errno == errno.EPROTONOSUPPORT
        log.critical(
            "the monitor is of another release" if other else "the monitor is gone",
            extra={"error": str(error)},
        )
        return os.EX_UNAVAILABLE


def _link() -> Link:
    """Connect to the monitor.

    Raises:
        MonitorError: there is none where it should be.
    """
    if MONITOR_FD in os.environ:
        return Link(socket.socket(fileno=int(os.environ[MONITOR_FD])))
    path = os.environ[MONITOR_SOCKET]
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(path)
    except OSError as error:
        raise MonitorError(error.errno, f"no monitor at {path}: {error.strerror}") from error
    return Link(sock)


def _serve(config: Config, link: Link, bridge_target: str, stream_target: str) -> int:
    from uvmd.daemon.compose import Daemon

    daemon = Daemon(config, link)
    # HELLO is the promise that this start is not a refusal.
    state = link.hello()
    if state.daemon_starts == 1:  # else it is as the policy wanted it, and we do not know yet
        daemon.set_monitor_log(daemon.gate.logging_allowed)
    link.configure(
        max_inbound_bytes=config.bridge.max_inbound_bytes, drain_grace_s=config.stdio.drain_grace_s
    )
    link.set_stream_base(stream_target)
    link.open_bridge(bridge_target)
    # While the monitor dials: nothing of a host has been read yet.
    confinement.install(powers_off=config.vm.agent)
    daemon.take_up(state)
    daemon.set_monitor_log(daemon.gate.logging_allowed)
    link.events = daemon
    attached = MONITOR_FD not in os.environ
    if attached:
        link.started_as([sys.executable, *sys.orig_argv[1:]], os.environ)
    # A monitor that we are not a child of stays, and with it the containers.
    asked = daemon.ask_to_leave if attached else daemon.ask_to_stop
    signal.signal(signal.SIGTERM, lambda number, frame: asked("SIGTERM"))
    # From a terminal it reaches the monitor as well, which tells us in its own way.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log.info(
        "serving",
        extra={
            "version": __version__,
            "transport": config.transport,
            "daemon_starts": state.daemon_starts,
            "requests": len(state.requests),
        },
    )
    notify("READY=1")
    timers = daemon.host.timers
    timers.call_later(WARM_UP_AFTER_S, daemon.warm_up)
    keep_pinging(timers.call_later)
    while daemon.stopping is None:
        link.poll(timers.run_due())
        if daemon.leaving is not None and _leave(daemon, link):
            return 0
    log.info("stopping: all containers are killed and deleted", extra={"reason": daemon.stopping})
    notify("STOPPING=1")
    return _end(daemon, link)


def _leave(daemon: Daemon, link: Link) -> bool:
    """Answer what is being served, and nothing else; False: we are to take everything down after all.

    Requests that come now, or take longer, the monitor hands to the next daemon.
    """
    log.info("leaving: the containers go on, for the next daemon", extra={"reason": daemon.leaving})
    notify("STOPPING=1")
    daemon.leave()
    late = threading.Event()
    daemon.host.timers.call_later(LEAVE_LIMIT_S, late.set)
    while daemon.busy and not late.is_set() and daemon.stopping is None:
        link.poll(daemon.host.timers.run_due())
    return daemon.stopping is None


def _end(daemon: Daemon, link: Link) -> int:
    """Take everything down while the poll thread goes on serving exits and drains."""
    done = threading.Event()

    def take_down() -> None:
        try:
            daemon.end()
        except UvmdError as error:
            log.error("not everything could be taken down", extra={"error": str(error)})
        finally:
            done.set()
            link.wake()

    threading.Thread(target=take_down, name="stop", daemon=True).start()
    late = False

    def too_late() -> None:
        nonlocal late
        late = True

    daemon.host.timers.call_later(STOP_LIMIT_S, too_late)
    while not done.is_set() and not late:
        link.poll(daemon.host.timers.run_due())
    if late:
        log.error("stopping took too long, the rest is left to the monitor")
    link.finish(1 if late else 0)
    return 0

"""Puts the rooms together and passes the monitor's news to the one that it concerns."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from uvmd import plugin_manager
from uvmd.api.containers import ContainerEvent
from uvmd.bridge import events
from uvmd.bridge.server import Bridge, warm
from uvmd.daemon.config import Config
from uvmd.daemon.own_cgroup import OwnCgroup
from uvmd.daemon.run_dir import RunDir
from uvmd.errors import ConfigError, Failed
from uvmd.host import doing
from uvmd.host.context import HostSettings
from uvmd.host.core_types import core_types
from uvmd.host.host import Host
from uvmd.host.locks import ChangeLock
from uvmd.host.memory_events import OutOfMemory
from uvmd.host.modify import Modifier
from uvmd.host.mounted import ContainerMounts
from uvmd.host.network import Network
from uvmd.host.records import Records
from uvmd.host.remembered import Remembered
from uvmd.host.requests import NULL_ID
from uvmd.host.shapers import Shapers
from uvmd.host.table import MountTable
from uvmd.linux.notices import Notices
from uvmd.monitor.link import Link, MonitorState
from uvmd.observe import logs, steps
from uvmd.observe.spans import Spans
from uvmd.policy import selection, stances
from uvmd.policy.gate import Gate
from uvmd.policy.hardware import find_hardware
from uvmd.transport import Dialer

if TYPE_CHECKING:
    from uvmd.daemon.beside import Beside
    from uvmd.daemon.services import Services


class Daemon:
    """All parts of one daemon. Implements the link's events.

    Raises:
        ConfigError: something in the configuration, the plugins or the machine does not
            allow a start.
    """

    def __init__(self, config: Config, link: Link) -> None:
        self._config = config
        self._link = link
        self._run_dir = RunDir(config.paths.run_dir)
        if config.vm.core_pattern:
            _write_core_pattern(config.vm.core_pattern)
        self.plugins = plugin_manager.load(config)
        self._services: Services | None = None
        hardware = find_hardware()
        records = Records(f"{self._run_dir.path}/devices.json")
        self.gate = Gate(
            config.vm.stance,
            hardware=hardware,
            find_hardware=find_hardware,
            enforcers=self.plugins.factories("enforcers"),
            selectable=_selectable(self.plugins, config.policy.enforcers),
            envelope_readers=self.plugins.factories("envelope_readers"),
            host_data=self.plugins.factories("host_data_sources"),
            set_logging=self._set_logging,
            save=self._run_dir.save_gate,
            memory=Remembered(link.note, records),
        )
        if not self.gate.logging_allowed:
            logs.silence()
        lock, self._table = ChangeLock(), MountTable()
        table = self._table
        self.host = Host(
            _host_settings(config, bool(hardware)),
            link,
            self.gate,
            lock,
            Shapers(self.plugins.factories("container_shapers")),
            _network(self.plugins, config.network.provider),
            ContainerMounts(table, records),
        )
        try:
            self.host.setup()
        except Failed as error:
            raise ConfigError(str(error)) from error
        self._modifier = Modifier(
            self.gate,
            lock,
            table,
            {**core_types(self.gate, self.host), **self.plugins.resource_types},
            self.host,
            records,
            watch=self.host.watch_change,
        )
        self.host.modifier = self._modifier
        self.host.serve_property("uvmd.locks", lambda argument: lock.table())
        if self.plugins.count:
            from uvmd.daemon.environment import Runner, Services, find_platform, states_in

            self._services = Services(link, f"{self._run_dir.path}/services")
            states = states_in(self._run_dir.path)
            self.plugins.connect(find_platform(), Dialer(link), Runner(link), states, self._services.of)
        spans = Spans()
        if self.plugins.spans:
            from uvmd.daemon.spans import Told

            spans.add_listener(lambda span: self.plugins.spans.tell_all(Told(span)))
        self.bridge = Bridge(self.host, link, v4=config.bridge.v4, spans=spans)
        link.request_of = doing.number
        link.note_steps(steps.step)
        self._beside = self._serve_plugins()
        self.stopping: str | None = None
        self.leaving: str | None = None
        self._warm = False
        self.bridge_up, self.bridge_down = self.bridge.bridge_up, self.bridge.bridge_down
        self.bridge_frame, self.bridge_unsent = self.bridge.bridge_frame, self.bridge.bridge_unsent
        self.bridge_again = self.bridge.bridge_again
        self.exited, self.drained = self.host.exited, self.host.drained
        # Last: a start that is refused must not leave the cgroup behind.
        self._notices = Notices()
        self._own_cgroup = _own_cgroup(config, self.host, self._notices, link)

    def _set_logging(self, allowed: bool) -> None:
        """The policy has decided whether this VM may log."""
        if allowed:
            logs.restore()
        else:
            logs.silence()
        self.set_monitor_log(allowed)

    def set_monitor_log(self, allowed: bool) -> None:
        """Have the monitor log as the daemon does, or not at all."""
        log = self._config.log
        self._link.set_log(log.format, log.level if allowed else "off")

    def take_up(self, state: MonitorState) -> None:
        """Go on where an earlier daemon of this VM ended."""
        if self._services is not None:
            self._services.take_up(state)
        try:
            kept = self._run_dir.load_gate()
        except (OSError, ValueError) as error:
            # A policy may have been in force; who forgets it opens the door.
            self.gate.fail_closed(f"the policy's state could not be read: {type(error).__name__}")
        else:
            if kept is not None:
                self.gate.resume(kept)
        self._modifier.resume(state.requests)
        self.host.recover(state)
        if state.daemon_starts > 1:
            self._verify()
        if self.plugins.container_events:
            self.host.on_container_event(self.plugins.container_events.tell)
        self.host.on_container_event(self._tell_host)
        self.host.on_out_of_memory(self._notices, self._tell_out_of_memory)
        first = state.daemon_starts == 1
        if self._config.log.kernel_level >= 0:
            from uvmd.daemon import kernel_log

            kernel_log.start(self._config.log.kernel_level, first=first)
        if self._config.vm.time_sync == "auto":
            from uvmd.daemon import time_sync

            time_sync.start(self._link, self._run_dir.path, first=first)

    def _verify(self) -> None:
        """Check what was recorded against the kernel, before it is trusted."""
        from uvmd.host import verify

        found = self.host.mismatches(self._table.claims(), self._modifier.under_way)
        verify.judge(self.gate, found)

    def warm_up(self) -> None:
        """Load what a request will need, on a thread of its own, which then reads beside the loop's."""
        if not self._warm:
            self._warm = True
            threading.Thread(target=self._read_beside, name="reader", daemon=True).start()

    def _read_beside(self) -> None:
        self._load_all()
        own = self.host.pools.own
        own.belong()
        while self._link.poll_beside():
            own.serve()

    def _load_all(self) -> None:
        warm()
        self.host.warm_up()
        if self._beside is not None:
            self._beside.start()

    def stop(self, reason: str) -> None:
        """The monitor wants everything to end. The loop need not be who has read that."""
        self.ask_to_stop(reason)

    def ask_to_stop(self, reason: str) -> None:
        """Ask for the same from a signal handler."""
        self.stopping = reason
        self._link.wake()

    def ask_to_leave(self, reason: str) -> None:
        """Ask, from a signal handler, for the end of this daemon alone."""
        self.leaving = reason
        self._link.wake()

    def leave(self) -> None:
        """Take no more requests, and end what serves beside the bridge."""
        self.bridge.leave()
        if self._beside is not None:
            self._beside.stop()

    @property
    def busy(self) -> bool:
        """Whether requests are being served; waits do not count."""
        return self.bridge.busy

    def end(self) -> None:
        """Take all containers down and forget what was kept for a next daemon."""
        if self._beside is not None:
            self._beside.stop()
        self.host.end_all()
        self._run_dir.forget_gate()
        if self._services is not None:
            self._services.end()
        if self._own_cgroup is not None:
            self._own_cgroup.leave()

    def _serve_plugins(self) -> Beside | None:
        """Have the plugins' properties served; return their services, to be started with requests."""
        makers, plugins, gate = self.plugins.factories("services"), self.plugins, self.gate
        properties = plugins.factories("vm_properties")
        if not makers and not properties:
            return None
        from uvmd.daemon.added import added
        from uvmd.daemon.beside import Beside, View

        def dropped() -> dict[str, int]:
            return dict(Counter(plugins.container_events.dropped()) + Counter(plugins.spans.dropped()))

        view = View(partial(self.host.properties, NULL_ID), lambda: gate.logging_allowed, dropped)
        for kind, source in added(properties, view):
            self.host.serve_property(kind, source)
        return Beside(makers, view) if makers else None

    def _tell_host(self, event: ContainerEvent) -> None:
        if self.bridge.wants_events:
            facts = {
                "PodId": event.sandbox_id,
                "Time": event.at,
                "ProcessId": event.pid,
                "Status": event.status,
            }
            self.bridge.tell(events.KINDS[event.kind], event.container_id, facts)

    def _tell_out_of_memory(self, event: OutOfMemory) -> None:
        usage, peak, limit = event.memory
        facts = {"PodId": event.pod_id, "Time": time.time(), "Kills": event.kills}
        facts |= {"UsageBytes": usage, "PeakBytes": peak, "LimitBytes": limit}
        self.bridge.tell(events.OUT_OF_MEMORY, event.container_id, facts)


def _own_cgroup(config: Config, host: Host, notices: Notices, link: Link) -> OwnCgroup | None:
    """Move the daemon and its monitor to the cgroup that the configuration names, if any.

    Raises:
        ConfigError: it cannot be made or entered.
    """
    if not config.cgroups.own:
        return None
    own = OwnCgroup(host.cgroups, config.cgroups.own, (link.monitor_pid, os.getpid()))
    own.enter(config.cgroups.reserve_bytes)
    if config.cgroups.warn_bytes:
        own.watch(notices, config.cgroups.warn_bytes)
    return own


def require_names(config: Config, plugins: plugin_manager.Plugins) -> None:
    """Refuse what the configuration names and no plugin that is loaded provides. Raises ConfigError."""
    _selectable(plugins, config.policy.enforcers)
    _network(plugins, config.network.provider)


def _selectable(plugins: plugin_manager.Plugins, names: Sequence[str]) -> Sequence[str]:
    """Return the enforcers that a host may select.

    Raises:
        ConfigError: nobody provides one. ``rego`` may be named without its plugin, as it is by
            default; a host that selects it is then refused.
    """
    known = {stances.OPEN_DOOR, selection.REGO, *plugins.factories("enforcers")}
    if unknown := sorted(set(names) - known):
        raise ConfigError(f"policy.enforcers: no plugin that is loaded provides {', '.join(unknown):.64}")
    return names


def _network(plugins: plugin_manager.Plugins, wanted: str) -> Network:
    """Return the network of the one provider, or one that knows no namespace.

    Raises:
        ConfigError: the wanted one is not there, or none of several is wanted.
    """
    makers = plugins.factories("container_network")
    if wanted and wanted not in makers:
        raise ConfigError(f"network.provider: no plugin that is loaded provides {wanted!r:.64}")
    if len(makers) > 1 and not wanted:
        raise ConfigError(f"network.provider must name one of {', '.join(sorted(makers))}")
    return Network(makers[wanted] if wanted else next(iter(makers.values()), None))


def _host_settings(config: Config, confidential: bool) -> HostSettings:
    return HostSettings(
        run_dir=config.paths.run_dir,
        bundle_roots=config.paths.bundle_roots,
        runtime=config.runtime.name,
        runtime_timeout_s=config.runtime.timeout_s,
        pods_cgroup=config.cgroups.pods,
        reserve_bytes=config.cgroups.reserve_bytes,
        drain_grace_s=config.stdio.drain_grace_s,
        agent=config.vm.agent,
        sequential=confidential or config.vm.sequential == "always",
    )


def _write_core_pattern(pattern: str) -> None:
    try:
        with open("/proc/sys/kernel/core_pattern", "w", encoding="utf-8") as file:
            file.write(pattern)
    except OSError as error:
        raise ConfigError(f"vm.core_pattern: {error.strerror}") from error

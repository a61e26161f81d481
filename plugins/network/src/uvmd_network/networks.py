"""What handler and provider share: the pods' namespaces, and adapters that come and go.

Adapters come before or after the pod. Those that are where they belong are left alone,
so an adapter can be added to a pod that runs (spec containers.md 14.4, 16.20).
"""

from __future__ import annotations

import threading
import time
from typing import Final

from uvmd.api import Environment, Undo
from uvmd.errors import Failed, NamespaceNotFound, Refused, UvmdError
from uvmd.linux import proc
from uvmd_network import dhcp
from uvmd_network.find import wait_for_interface
from uvmd_network.kernel import Kernel, Linux
from uvmd_network.layout import Layout, Route, plan_layout
from uvmd_network.placing import Placer
from uvmd_network.settings import AdapterSettings, adapter_key, list_of, namespace_key
from uvmd_network.table import Adapter, Namespace, Table
from uvmd_network.undoing import report_to, unwind

_made: Final[dict[int, Networks]] = {}
_making: Final = threading.Lock()


def networks_of(env: Environment, kernel: Kernel | None = None) -> Networks:
    """Return the one object that belongs to an environment, made on first use; ``kernel`` is for tests."""
    with _making:
        # By the state: it is one a distribution, and what is kept is kept there. The
        # object holds the environment, so the number stays that of this state.
        made = _made.get(id(env.state))
        if made is None:
            made = _made[id(env.state)] = Networks(env, kernel or Linux())
        return made


class Networks:
    """See the module. Called from several threads."""

    def __init__(self, env: Environment, kernel: Kernel) -> None:
        self._env = env
        self._kernel = kernel
        self._placer = Placer(self._kernel, gateway_address=env.config.gateway_outside_subnet == "address")
        self.table = Table(env.state)

    # What a pod asks

    def exists(self, namespace: str) -> bool:
        """Whether there is such a namespace; one without a name is none (16.9)."""
        return self.table.find(namespace.lower()) is not None

    def dns(self, namespace: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Name servers and search list over all adapters, in order, the first of equals kept (7.1).

        Raises:
            NamespaceNotFound: there is no such namespace.
        """
        known = self.table.find(namespace.lower())
        if known is None:
            raise NamespaceNotFound(f"network namespace {namespace:.64} is not known")
        settings = [adapter.settings for adapter in list(known.adapters)]
        servers = list_of(",".join(one.dns_servers for one in settings))
        return servers, list_of(",".join(one.dns_suffix for one in settings))

    def attach(self, namespace: str, pid: int, undo: Undo) -> None:
        """Give the namespace's adapters to a pod: to the network namespace of ``pid``, or (0) the VM's own.

        A namespace that is not known becomes known: its adapters may be still to come.

        Raises:
            Refused: it has a pod.
            Failed: an adapter could not be found, moved or set up; none is in the pod.
        """
        with self.table.locked(namespace_key(namespace), make=True) as known:
            self._leave_the_dead(known)
            if known.in_use:
                raise Refused(f"network namespace {known.key} has a pod already")
            inner = Undo()
            try:
                self._begin(known, pid)
                inner.callback(self._leave, known)
                for adapter in known.adapters:
                    self._put(known, adapter, "", inner)
                self.table.save()
            except BaseException:
                unwind(undo, inner.close, self.table.save)
                raise
            undo.callback(self._detach_whole, known.key)

    def detach(self, namespace: str) -> None:
        """Take the adapters back from a pod, and forget it. Fine if there is none.

        Raises:
            Failed: not all of it could be taken back; the pod is forgotten all the same.
        """
        try:
            self._detach_whole(namespace.lower())
        except NamespaceNotFound:
            return

    # What a host asks

    def add(self, settings: AdapterSettings, interface: str, undo: Undo) -> None:
        """Enter an adapter whose interface was found, and put it into the pod if there is one.

        Raises:
            Refused: it is there already.
            Failed: it could not be set up; everything is as before.
        """
        key = adapter_key(settings.id, self._env.platform.name)
        self.refuse_known(key)
        with self.table.locked(namespace_key(settings.namespace), make=True) as namespace:
            adapter = Adapter(key, settings)
            self._enter(namespace, adapter, interface, undo)

    def remove(self, namespace: str, key: str, undo: Undo) -> None:
        """Take an adapter out of its pod, back to the VM if it is still there, and forget it.

        Raises:
            Failed: it could not be taken out; everything is as before.
        """
        with self.table.locked(namespace) as known:
            adapter = next((one for one in known.adapters if one.key == key), None)
            if adapter is None:
                return
            was_placed, at = adapter.placed, known.adapters.index(adapter)
            self._take(known, adapter, undo)
            known.adapters.remove(adapter)
            undo.callback(self._enter_again, known.key, adapter, at, was_placed)
            self.table.save()

    def knows(self, namespace: str, key: str) -> bool:
        """Whether this namespace has this adapter."""
        known = self.table.find(namespace)
        return known is not None and any(one.key == key for one in list(known.adapters))

    def refuse_known(self, key: str) -> None:
        """Raise Refused if an adapter is entered anywhere."""
        holder = self.table.holder_of(key)
        if holder is not None:
            raise Refused(f"Network: adapter {key} is already in namespace {holder.key}")

    # Inside, with the namespace's lock

    def _enter(self, namespace: Namespace, adapter: Adapter, interface: str, undo: Undo) -> None:
        inner = Undo()
        try:
            namespace.adapters.append(adapter)
            inner.callback(namespace.adapters.remove, adapter)
            if namespace.in_use:
                self._put(namespace, adapter, interface, inner)
            self.table.save()
        except BaseException:
            unwind(undo, inner.close, self.table.save)
            raise
        undo.callback(self._withdraw, namespace.key, adapter)

    def _put(self, namespace: Namespace, adapter: Adapter, interface: str, undo: Undo) -> None:
        if adapter.placed:
            return
        where = self._where(namespace)
        report = report_to(undo)
        if adapter.layout is not None:
            self._placer.take(adapter, where, report)  # a daemon died in the middle of it
        settings, mtu = adapter.settings, adapter.mtu
        deadline = time.monotonic() + self._env.config.adapter_timeout_s
        adapter.home_name = interface or wait_for_interface(self._env.platform, settings, deadline)
        low_metric = settings.low_metric
        if settings.policy_routing:
            low_metric = namespace.adapters.index(adapter) > 0
        taken = self._routes_beside(namespace)
        planned = plan_layout(settings.addresses, settings.routes, low_metric=low_metric)
        adapter.layout = planned.beside(taken)

        def lease(name: str) -> Layout:
            return dhcp.lease(self._env, name, where, low_metric=low_metric).beside(taken)

        try:
            wanted = None if settings.addresses else lease
            self._placer.put(adapter, where, report, wanted, self.table.save)
        except BaseException:
            adapter.forget_place(mtu)
            raise
        adapter.placed = True
        undo.callback(self._take, namespace, adapter, undo, step=f"take {adapter.name} back")

    def _routes_beside(self, namespace: Namespace) -> list[Route]:
        """The routes of the other adapters in the same place."""
        found: list[Route] = []
        for one in self.table.all():
            if one is namespace or (one.host and namespace.host):
                for adapter in list(one.adapters):
                    found += adapter.layout.routes if adapter.layout else ()
        return found

    def _take(self, namespace: Namespace, adapter: Adapter, undo: Undo) -> None:
        if adapter.layout is None:
            return
        try:
            where = self._where(namespace)
        except ProcessLookupError:
            # The kernel takes it back when the last process of the pod ends; with its MTU.
            adapter.forget_place(adapter.mtu)
            return
        self._placer.take(adapter, where, report_to(undo))
        adapter.forget_place(0)

    def _where(self, namespace: Namespace) -> int | None:
        """A descriptor of the pod's network namespace; None for the VM's own.

        Raises:
            ProcessLookupError: an earlier daemon had one, and the process is gone.
        """
        if namespace.host or not namespace.pid:
            return None
        if namespace.held is None:
            namespace.held = self._kernel.hold(namespace.pid, namespace.started)
        return namespace.held

    def _begin(self, namespace: Namespace, pid: int) -> None:
        namespace.pid, namespace.host = pid, not pid
        namespace.started = proc.start_time(pid) if pid else 0
        try:
            self._where(namespace)
        except OSError as error:
            self._leave(namespace)
            raise Failed(f"the network namespace of process {pid}: {str(error.strerror).lower()}") from error

    def _leave(self, namespace: Namespace) -> None:
        namespace.pid, namespace.started, namespace.host = 0, 0, False
        if namespace.held is not None:
            self._kernel.release(namespace.held)
            namespace.held = None

    def _leave_the_dead(self, namespace: Namespace) -> None:
        """Forget a pod whose process is gone, of which nobody told us."""
        if namespace.pid and proc.start_time(namespace.pid) != namespace.started:
            self._take_all(namespace)

    def _take_all(self, namespace: Namespace) -> None:
        """Take every adapter back and leave the pod, whatever fails.

        Raises:
            Failed: with every failure. What could not be taken back goes when the kernel
                takes the pod's network namespace down.
        """
        failures: list[str] = []
        undo = Undo()
        for adapter in reversed(namespace.adapters):
            try:
                self._take(namespace, adapter, undo)
            except UvmdError as error:
                failures.append(str(error))
                adapter.forget_place(adapter.mtu)
        self._leave(namespace)
        self.table.save()
        if failures:
            raise Failed("; ".join(failures))

    # Undone, and taken again

    def _detach_whole(self, key: str) -> None:
        with self.table.locked(key) as namespace:
            self._take_all(namespace)

    def _withdraw(self, key: str, adapter: Adapter) -> None:
        undo = Undo()
        with self.table.locked(key) as namespace:
            self._take(namespace, adapter, undo)
            namespace.adapters.remove(adapter)
        self.table.save()
        undo.close()

    def _enter_again(self, key: str, adapter: Adapter, at: int, placed: bool) -> None:
        undo = Undo()
        with self.table.locked(key, make=True) as namespace:
            namespace.adapters.insert(at, adapter)
            if placed and namespace.in_use:
                self._put(namespace, adapter, "", undo)
        self.table.save()

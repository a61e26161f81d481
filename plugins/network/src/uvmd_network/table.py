"""Namespaces and their adapters, as we believe them to be, and kept over a restart of the daemon."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from uvmd.api import State
from uvmd.errors import DeadlineExceeded, Failed, NamespaceNotFound
from uvmd_network.layout import Layout
from uvmd_network.settings import AdapterSettings

VERSION: Final = 1
#: Who waits longer for another request's work on the same pod gives up.
_LOCK_S: Final = 200.0


@dataclass(slots=True, eq=False)
class Adapter:
    """One adapter.

    ``layout`` is there from just before something is set up until all of it is gone;
    ``placed`` only while all of it is there. ``name`` is that in the pod, ``home_name``
    that in the VM, ``mtu`` that before any overhead (0: not looked at yet).
    """

    key: str
    settings: AdapterSettings
    name: str = ""
    home_name: str = ""
    mtu: int = 0
    layout: Layout | None = None
    placed: bool = False

    def forget_place(self, mtu: int) -> None:
        """It is with the VM, with the MTU of before any overhead if that is 0."""
        self.name, self.home_name, self.mtu, self.layout, self.placed = "", "", mtu, None, False

    def as_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "settings": self.settings.model_dump(mode="json", by_alias=True, exclude_defaults=True),
            "name": self.name,
            "home_name": self.home_name,
            "mtu": self.mtu,
            "layout": self.layout and self.layout.as_json(),
            "placed": self.placed,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Adapter:
        layout = value["layout"]
        return cls(
            value["key"],
            AdapterSettings.model_validate(value["settings"]),
            value["name"],
            value["home_name"],
            value["mtu"],
            layout and Layout.from_json(layout),
            value["placed"],
        )


@dataclass(slots=True, eq=False)
class Namespace:
    """One namespace of the host's. It has a pod when ``pid`` is not 0, or ``host`` is true.

    ``held`` is a descriptor of the pod's network namespace: with it the adapters can be
    taken back when the process is long gone, and no other process can be mistaken for it.
    """

    key: str
    adapters: list[Adapter] = field(default_factory=list)
    pid: int = 0
    started: int = 0
    host: bool = False
    held: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def in_use(self) -> bool:
        """Whether a pod has it."""
        return bool(self.pid) or self.host

    @property
    def is_empty(self) -> bool:
        """Whether nobody needs it any more."""
        return not self.adapters and not self.in_use

    def as_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "adapters": [adapter.as_json() for adapter in self.adapters],
            "pid": self.pid,
            "started": self.started,
            "host": self.host,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Namespace:
        adapters = [Adapter.from_json(one) for one in value["adapters"]]
        return cls(value["key"], adapters, value["pid"], value["started"], value["host"])


class Table:
    """All namespaces. What it returns may be changed by whoever has the namespace's lock."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._mutex = threading.Lock()
        self._namespaces: dict[str, Namespace] = self._load()

    def _load(self) -> dict[str, Namespace]:
        try:
            kept = self._state.load()
            if not kept:
                return {}
            if kept["v"] != VERSION:
                raise ValueError(f"version {kept['v']}")
            return {one["key"]: Namespace.from_json(one) for one in kept["namespaces"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failed(f"the network's state cannot be read: {type(error).__name__}") from error

    def save(self) -> None:
        """Journal the table.

        Raises:
            Failed: it cannot be written.
        """
        with self._mutex:
            # One that is empty is about to be forgotten by whoever has it.
            known = (one for one in self._namespaces.values() if not one.is_empty)
            namespaces = [one.as_json() for one in known]
            try:
                self._state.save({"v": VERSION, "namespaces": namespaces})
            except OSError as error:
                raise Failed(f"the network's state cannot be written: {error.strerror}") from error

    def find(self, key: str) -> Namespace | None:
        """Return the namespace, if it is known."""
        with self._mutex:
            return self._namespaces.get(key)

    def all(self) -> list[Namespace]:
        """Return all namespaces."""
        with self._mutex:
            return list(self._namespaces.values())

    def holder_of(self, adapter: str) -> Namespace | None:
        """Return the namespace that has the adapter."""
        for namespace in self.all():
            if any(one.key == adapter for one in list(namespace.adapters)):
                return namespace
        return None

    @contextmanager
    def locked(self, key: str, *, make: bool = False) -> Iterator[Namespace]:
        """Have a namespace for oneself; it is forgotten at the end if it is empty and has no pod.

        Raises:
            NamespaceNotFound: it is not known, and not to be made.
            DeadlineExceeded: somebody else has it and does not let go.
        """
        namespace = self._take(key, make)
        try:
            yield namespace
        finally:
            with self._mutex:
                if namespace.is_empty:
                    self._namespaces.pop(key, None)
            namespace.lock.release()

    def _take(self, key: str, make: bool) -> Namespace:
        while True:
            with self._mutex:
                namespace = self._namespaces.get(key)
                if namespace is None:
                    if not make:
                        raise NamespaceNotFound(f"network namespace {key} is not known")
                    namespace = self._namespaces[key] = Namespace(key)
            if not namespace.lock.acquire(timeout=_LOCK_S):
                raise DeadlineExceeded(f"network namespace {key}: another request does not let go of it")
            if self.find(key) is namespace:
                return namespace
            namespace.lock.release()  # forgotten while we waited for it

"""What a plugin may serve beside the bridge or add to what is asked of the VM, and what it is shown of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class VmView(Protocol):
    """The VM as a service may see it: what a host may ask, and nothing more."""

    def properties(self, kinds: Sequence[str]) -> Mapping[str, Any]:
        """Return properties of the VM by name: ``uvmd.ps``, ``uvmd.usage``, ``uvmd.mounts``.

        The policy is asked as it is when a host asks for them.

        Raises:
            PolicyDenied: it says no.
            Failed: one cannot be read.
        """

    def logging_allowed(self) -> bool:
        """Whether the VM may tell anything of what it does: no, until a policy that is awaited allows it."""

    def events_dropped(self) -> Mapping[str, int]:
        """How many events and spans each plugin has lost because it was slow."""


class VmProperty(Protocol):
    """What a reference of ``vm_properties`` makes, called with its environment."""

    def __call__(self, argument: str, view: VmView) -> Any:
        """Return the property, as what JSON can hold; a whole answer has 64 KiB at most.

        The policy has allowed properties. ``argument`` is what stands behind a colon in the
        type that was asked for, any text: nothing in most cases. Called on several threads;
        reads only, and fast.

        Raises:
            UvmdError: it cannot be had; the text is for whoever asks.
        """


class VmService(Protocol):
    """What a reference of ``services`` makes, called with its environment."""

    def start(self, view: VmView) -> None:
        """Serve until :meth:`stop` is called, on a thread of its own.

        Returning means that there is nothing to serve. Raising is logged, and another
        instance is made and started after a pause that doubles, up to a minute.
        """

    def stop(self) -> None:
        """Make ``start`` return, from another thread; also before it was called. Must not wait."""

"""The hooks of the contract ``v1``: what a plugin declares, and when it is told things.

A plugin is a module named by an entry point of the group ``uvmd.plugins.v1``; the entry
point's name is the plugin's name in the configuration. Its functions marked ``@hookimpl``
implement these hooks. Hooks declare and tables serve: each is asked once, at start, and
must not touch the system. Every hook collects; none has a priority, a default argument
or a say over another plugin. Whatever is doubtful stops the start and names the plugin.

docs/plugins.md explains each with an example. Not imported where no plugin is installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pluggy

from uvmd.api.containers import ContainerEvent, Span
from uvmd.api.resources import ResourceType

GROUP = "uvmd.plugins.v1"

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


class Named(NamedTuple):
    """Something under a name; ``reference`` is ``"package.module:attribute"``.

    The reference is imported on first use and by ``uvmd check``, not at start.
    """

    name: str
    reference: str


class Requirement(NamedTuple):
    """Something that a VM must have for a plugin to do its work; ``uvmd doctor`` looks for it.

    ``kind`` is ``program`` (found as a child of the monitor would find it; ``a|b``: either),
    ``filesystem`` (a type that the kernel mounts), ``dm-target`` (device-mapper has it) or
    ``feature`` (``seccomp``, ``vsock``, or a kind of namespaces as in /proc/self/ns).
    ``purpose`` says what does not work without it. ``optional``: some VMs do without.
    """

    kind: str
    name: str
    purpose: str
    optional: bool = False


@hookspec
def config_model() -> str:
    """Name the model of the plugin's section ``[plugin.NAME]``: ``"package.module:Class"``.

    A subclass of :class:`uvmd.api.ConfigModel`. Imported at start only when the operator
    has written such a section; its instance is the environment's ``config``.
    """
    return ""


@hookspec
def resource_types() -> Iterable[ResourceType]:
    """Return the resource types that the plugin adds to ModifySettings.

    Each name once in the whole VM; a third party's name begins with its domain.
    """
    return ()


@hookspec
def enforcers() -> Iterable[Named]:
    """Return policy enforcers: the name that a SecurityPolicy message may select.

    The reference is called with the environment and the encoded policy, and returns an
    :class:`uvmd.api.Enforcer` whose ``text`` is that policy. A host picks only among
    the names in ``[policy] enforcers``.
    """
    return ()


@hookspec
def envelope_readers() -> Iterable[Named]:
    """Return readers of signed envelopes, named by the format: ``cose-x509`` is what hosts send.

    The reference, called with the environment when the first artefact comes, is an
    :class:`uvmd.api.EnvelopeReader`. It is asked before the enforcer in force, whichever that
    is. A VM without one takes no fragments, no trust lists and no reference info.
    """
    return ()


@hookspec
def container_shapers() -> Iterable[Named]:
    """Return shapers: the reference, called with the environment, is an :class:`uvmd.api.Shaper`."""
    return ()


@hookspec
def container_network() -> Iterable[Named]:
    """Return the network provider: called with the environment, an :class:`uvmd.api.NetworkProvider`.

    There is one in a VM: where several are loaded the configuration names it.
    """
    return ()


@hookspec
def host_data_sources() -> Iterable[Named]:
    """Return readers of launch data, named by the hardware that they speak for (``sev``, ``tdx``).

    The reference is called with the environment and returns the bytes that the VM was
    launched with: a policy's SHA-256, possibly padded with zeros. One a kind of hardware.
    """
    return ()


@hookspec
def services() -> Iterable[Named]:
    """Return services that run beside the bridge.

    The reference, called with the environment, is an :class:`uvmd.api.VmService`. It is
    started once requests are served, and again, with back-off, when it fails.
    """
    return ()


@hookspec
def vm_properties() -> Iterable[Named]:
    """Return properties of the VM: asked for by GetProperties on the null id, as type ``uvmd.NAME``.

    The reference, called with the environment when it is first asked for, is an
    :class:`uvmd.api.VmProperty`. A third party's name begins with its domain.
    """
    return ()


@hookspec
def requirements() -> Iterable[Requirement]:
    """Return what the plugin needs of the VM: programs, filesystems, device-mapper targets.

    A start does not look for them; ``uvmd doctor`` does.
    """
    return ()


@hookspec
def cli_commands() -> Iterable[Named]:
    """Return verbs under ``uvmctl``: the reference is a click command, given a client as its object."""
    return ()


@hookspec
def container_event(event: ContainerEvent) -> None:
    """Hear what happened to a container.

    Called while serving, on a thread of the plugin's own behind a queue of limited length.
    Being slow loses events (they are counted), never time of a request.
    """


@hookspec
def span_ended(span: Span) -> None:
    """Hear of a finished piece of work. Called as :func:`container_event` is.

    A request of the host has the facts ``container``, ``activity`` and ``message_type``. The
    steps that were taken for it come before it, in the order of their begin: spans of the same
    trace, parented by the request or by the step that they are a part of, with the fact
    ``request``, its span's id.
    """

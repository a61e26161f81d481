"""What a create will do, and whether it may: everything is checked and asked here, nothing is done.

In two halves around the policy's question. Before it only the request and what core was told
before are looked at, so that a refusal tells nobody what is in the VM; after it come the looks
at devices, disks and paths that the specification names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

from uvmd.api.policy import Decision
from uvmd.errors import Failed, Refused
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.host.operations import asking, hardware, joined, places
from uvmd.linux import cgroup_limits
from uvmd.linux.accounts import Accounts, read_accounts
from uvmd.linux.cgroup_limits import Limit
from uvmd.oci.role import Kind
from uvmd.oci.shape import (
    additions,
    cgroup,
    devices,
    namespaces,
    narrow,
    network_files,
    propagation,
    rlimits,
    security_context,
    shm,
    sources,
    tee,
    users,
)
from uvmd.oci.shape.sources import Sources
from uvmd.oci.spec import SPEC_FIELD, Spec, check_hostname, check_mount_namespace, owns_pid_namespace


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be done for one container, beside what its record says."""

    spec: Spec
    #: Network files to write into the sandbox's root, by name.
    files: dict[str, str] = field(default_factory=dict)
    sources: Sources = Sources()
    #: Files of the security context directory, by name.
    context: dict[str, str] = field(default_factory=dict, repr=False)
    pod_limits: list[Limit] = field(default_factory=list)


def plan(ctx: Context, container: Container, document: Spec, assigned: hardware.Assigned) -> Planned:
    """Check and shape everything, ask, and look for what is named. Reads only.

    Raises:
        Refused, PolicyDenied, NamespaceNotFound, Failed: naming what is wrong.
    """
    _check(ctx, container, document)
    files = _network_files(ctx, container, document)
    accounts = _accounts(ctx, container.root, document["process"])
    spec, needed = _shape(container, document, accounts)
    limits = _pod_limits(ctx, container, document)
    spec = tee.apply_log_mount(spec, container.logs)
    spec, added = additions.apply_additions(
        spec, ctx.shapers.ask(container.id, container.role, spec, ctx.gate.strict)
    )
    if ctx.gate.strict:
        sources.check_strict_sources(spec)
    decision = _ask(ctx, container, document, spec, added, accounts)
    spec = _after(ctx, container, spec, decision)
    spec = hardware.apply(ctx, container, spec, document, added, assigned)
    spec = hardware.apply_disks(ctx, spec, needed.disks)
    hardware.require_paths(needed.uvm)
    if ctx.gate.strict:
        needed = replace(needed, others=sources.absolute_sources(spec))
    context = security_context.context_files(spec, ctx.gate.security_context())
    if context:
        name = f"security-context-{os.urandom(8).hex()}"
        container.security_context = f"{container.root}/{name}"
        spec = {**spec, "process": security_context.apply_variable(spec["process"], f"/{name}")}
    container.owns_pid_namespace = owns_pid_namespace(spec)
    container.user = spec["process"]["user"]
    container.rlimits = spec["process"].get("rlimits")
    return Planned(spec, files, needed, context, limits)


def _check(ctx: Context, container: Container, document: Spec) -> None:
    """Look at paths and names, and set those that follow from them."""
    roots, role = ctx.settings.bundle_roots, container.role
    places.root_above(container.bundle, roots, "OciBundlePath")
    places.root_above(container.sandbox_root, roots, "the pod's directory")
    if container.scratch:
        places.root_above(container.scratch, roots, "ScratchDirPath")
    if ctx.gate.strict:
        places.check_strict_places(container.id, role.pod_id, container.bundle, container.scratch, document)
    if role.kind is Kind.WORKLOAD:
        if document.get("hostname"):
            raise Refused(f"{SPEC_FIELD}.hostname: a workload has the host name of its pod")
    else:
        check_hostname(document)
    check_mount_namespace(document)
    if ctx.gate.strict:
        joined.check_namespaces(ctx, container, document)
    ctx.network.require_namespace(role)
    path: str = document["root"]["path"]
    container.root = path if path.startswith("/") else f"{container.bundle}/{path}"
    group = ctx.pod_cgroup(role.pod_id if role.in_pod else container.id)
    container.cgroup = f"{group}/{container.id}" if role.in_pod else group
    container.tee_log = tee.tee_log_path(document)


def _network_files(ctx: Context, container: Container, document: Spec) -> dict[str, str]:
    """Return the network files to write: all of a pod's, and of a standalone container those it lacks."""
    kind = container.role.kind
    if kind is Kind.WORKLOAD:
        return {}
    wanted: set[str] = set(network_files.NAMES)
    if kind is Kind.STANDALONE:
        mounts = network_files.missing_mounts(document, "")
        wanted = {mount["destination"].removeprefix("/etc/") for mount in mounts}
    texts = {}
    hostname = document.get("hostname") or hardware.vm_hostname()
    if "hostname" in wanted:
        texts["hostname"] = f"{hostname}\n"
    if "hosts" in wanted:
        texts["hosts"] = network_files.hosts_text(hostname)
    if "resolv.conf" in wanted:
        texts["resolv.conf"] = network_files.resolv_conf_text(*ctx.network.dns(container.role))
    return texts


def _accounts(ctx: Context, root: str, process: dict[str, Any]) -> Accounts | None:
    """Read the image's accounts if somebody will look at them."""
    if not ctx.gate.wants_user_info and not process["user"].get("username"):
        return None
    try:
        return read_accounts(root)
    except OSError as error:
        raise Failed(f"accounts of {root}: {error.strerror}") from error


def _shape(container: Container, document: Spec, accounts: Accounts | None) -> tuple[Spec, Sources]:
    spec, needed, kind = document, Sources(), container.role.kind
    if kind is Kind.WORKLOAD:
        spec, needed = sources.apply_schemes(spec, container.sandbox_root)
        spec = propagation.apply_propagation(spec)
    if kind is not Kind.SANDBOX:
        spec = network_files.apply_file_mounts(spec, container.sandbox_root)
        spec = shm.apply_shm_size(spec)
    spec = rlimits.apply_core_rlimit(spec)
    if accounts is not None:
        spec = {**spec, "process": users.apply_user_string(spec["process"], accounts)}
    spec = cgroup.apply_endless_limits(cgroup.apply_cgroup_path(spec, container.cgroup))
    return cgroup.drop_windows(devices.apply_denial(spec)), needed


def _pod_limits(ctx: Context, container: Container, document: Spec) -> list[Limit]:
    if not container.is_sandbox:
        return []
    return cgroup_limits.limits(document["linux"]["resources"], ctx.cgroups.version)


def _ask(
    ctx: Context,
    container: Container,
    document: Spec,
    spec: Spec,
    added: list[dict[str, Any]],
    accounts: Accounts | None,
) -> Decision:
    if container.is_sandbox:
        # What workloads will have mounted; the reference tells it before it asks (policy.md 8.4).
        ctx.gate.extend_default_mounts(network_files.missing_mounts(spec, container.sandbox_root))
    # As the host sent them, and a plugin's: what core adds itself is not the policy's business.
    devices = [*document["linux"].get("devices", ()), *added]
    decision = ctx.gate.ask(
        "create_container",
        asking.create_input(
            container.id,
            container.role,
            spec,
            devices,
            asking.who_runs(spec["process"], accounts if ctx.gate.wants_user_info else None),
        ),
        "container creation denied due to policy: ",
    )
    if container.tee_log and not decision.stdio:
        raise Refused(
            f'teeing container stdio to log path "{container.tee_log:.256}" denied'
            " due to policy not allowing stdio access"
        )
    return decision


def _after(ctx: Context, container: Container, spec: Spec, decision: Decision) -> Spec:
    """Narrow the process to what the policy left, and ask for the VM's network."""
    container.stdio_allowed = decision.stdio
    spec = {**spec, "process": narrow.apply_decision(spec["process"], decision)}
    if _in_host_network(ctx, container):
        ctx.gate.ask("host_network", {})
        return namespaces.drop_network_namespace(spec)
    if ctx.gate.strict and joined.in_vms_network(spec):
        # No annotation says so, but it is what would be.
        ctx.gate.ask("host_network", {})
    return spec


def _in_host_network(ctx: Context, container: Container) -> bool:
    """Whether it, or for a workload its pod, uses the VM's network; its own annotation says nothing then."""
    if container.role.kind is not Kind.WORKLOAD:
        return container.role.host_network
    pod = ctx.pods.find(container.role.pod_id)
    return pod is not None and pod.host_network

"""What no policy is asked about: a container gets the usual devices, and a strict VM's little else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import specs
from support.containers import Container, created, new_id, shell
from support.host import Connection, Refused
from support.strict import strict_root, strict_vm

#: Opens whatever may be opened by everybody; prints 1 for each.
USUAL = (
    "for d in zero random urandom full; do head -c 1 /dev/$d | wc -c; done; "
    "echo x >/dev/null && (exec 3<>/dev/ptmx) && echo 1"
)
LATENCY = "mknod /dev/x c {} {} && head -c 4 /dev/x | wc -c"
ALLOW_ALL = [{"allow": True, "access": "rwm"}]
PRIVILEGED = {"io.microsoft.virtualmachine.lcow.privileged": "true"}
OWN = ("pid", "ipc", "uts", "mount", "network")


def latency() -> str:
    """Make a node of a device of the VM that needs no capability to be opened, and read it."""
    number = os.stat("/dev/cpu_dma_latency").st_rdev
    return LATENCY.format(os.major(number), os.minor(number))


def making_nodes(spec: dict[str, Any]) -> dict[str, Any]:
    for names in spec["process"]["capabilities"].values():
        names.append("CAP_MKNOD")
    return spec


def output(container: Container) -> bytes:
    init = container.init(stdout=True)
    init.wait()
    return bytes(init.stdout.read_all())


@contextlib.contextmanager
def strict_create(
    bridge: Connection, *args: str, change: Callable[[dict[str, Any]], object], **of_spec: Any
) -> Iterator[Container]:
    """As ``strict_container``, with a change of the specification."""
    container = Container(bridge, new_id())
    with strict_root(container.id) as root:
        spec = making_nodes(specs.container(*args, root=root, **of_spec))
        change(spec)
        bundle = str(root.parent)
        scratch = f"{bundle}/scratch/{container.id}"
        bridge.create(container.id, spec, OciBundlePath=bundle, ScratchDirPath=scratch)
        try:
            yield container
        finally:
            container.kill()
            bridge.wait_for_notification(container.id)


@pytest.mark.parametrize("rules", [None, []])
def test_without_rules_a_container_has_only_the_usual_devices(bridge: Connection, rules: Any) -> None:
    """As hosts send it: they take the rules out."""
    container = Container(bridge, new_id())
    spec = making_nodes(specs.container(*shell(f"{USUAL}; {latency()}")))
    spec["linux"]["resources"] = {} if rules is None else {"devices": rules}
    bridge.create(container.id, spec)
    assert output(container).split() == [b"1"] * 5 + [b"0"]
    bridge.wait_for_notification(container.id)
    container.delete()


def test_a_terminal_needs_no_rule(bridge: Connection) -> None:
    with created(bridge, "/bin/sleep", "60") as container:
        container.init()
        probe = container.exec(*shell("test -t 0 && echo yes >/dev/tty"), terminal=True, stdout=True)
        assert (probe.wait(), probe.stdout.read_all().strip()) == (0, b"yes")


def test_a_strict_vm_takes_no_rules_of_the_host(runtime: str) -> None:
    def allow(spec: dict[str, Any]) -> None:
        spec["linux"]["resources"]["devices"] = ALLOW_ALL

    with strict_vm(runtime, {}) as (_, bridge):
        script = f"{USUAL}; {latency()}"
        with strict_create(bridge, *shell(script), change=allow) as container:
            assert output(container).split() == [b"1"] * 5 + [b"0"]
        # What the policy is told of is as it was.
        script = f"head -c 4 /dev/cpu_dma_latency | wc -c; {latency()}"
        with strict_create(bridge, *shell(script), change=allow, annotations=PRIVILEGED) as container:
            assert output(container).split() == [b"4", b"4"]


def test_a_strict_vm_is_not_the_first_to_go_when_memory_is_short(runtime: str) -> None:
    with strict_vm(runtime, {}) as (_, bridge):
        spare = {"oomScoreAdj": -998}
        with strict_create(
            bridge, "/bin/sleep", "60", change=lambda spec: spec["process"].update(spare)
        ) as container:
            init = container.init()
            exec_ = bridge.execute(container.id, {**specs.process("/bin/sleep", "60"), **spare})
            for pid in (init.pid, exec_.pid):
                assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "0\n"


def unchanged(spec: dict[str, Any]) -> None:
    pass


def test_who_has_no_network_of_its_own_has_the_vms_if_the_policy_says_so(runtime: str) -> None:
    without = OWN[:-1]
    with strict_vm(runtime, {"host_network": {"allowed": False, "reason": "not the network"}}) as (_, bridge):
        with pytest.raises(Refused, match="not the network"):
            with strict_create(bridge, "/bin/true", change=unchanged, namespaces=without):
                pass
    with strict_vm(runtime, {}) as (_, bridge):
        with strict_create(bridge, "/bin/sleep", "60", change=unchanged, namespaces=without) as container:
            init = container.init()
            assert os.path.samefile(f"/proc/{init.pid}/ns/net", "/proc/self/ns/net")


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_nobody_is_among_the_vms_processes_messages_or_names(runtime: str, kind: str) -> None:
    names = [name for name in OWN if name != kind]
    with strict_vm(runtime, {}) as (_, bridge):
        with pytest.raises(Refused, match=f"needs a {kind} namespace"):
            with strict_create(bridge, "/bin/true", change=unchanged, namespaces=names):
                pass
        for path in (f"/proc/{os.getpid()}/ns/{kind}", f"/proc/self/ns/{kind}"):
            with pytest.raises(Refused, match=r"linux\.namespaces"):
                with strict_create(
                    bridge,
                    "/bin/true",
                    change=lambda spec, path=path: spec["linux"]["namespaces"].append(
                        {"type": kind, "path": path}
                    ),
                    namespaces=names,
                ):
                    pass

"""A hostile host against a strict VM: the real daemon, the Rego policy, everything but disks (root)."""

from __future__ import annotations

import contextlib
import copy
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import policies
import pytest
from strict_pods import ECHO, Pod, body, delete, fine, modify, reasons, set_policy

from support import rootfs, specs
from support.containers import Container, new_id
from support.daemon import Daemon, running
from support.host import CREATE, EXECUTE, GET_PROPERTIES, NULL_ID, SIGNAL, Connection, Gone, code
from support.pods import SANDBOX_ID

pytestmark = [pytest.mark.root, pytest.mark.system]
HASHES = ["hash-of-base", "hash-of-top"]
LAYER_ROOM = Path("/run/mounts/scsi")


class Vm:
    """A strict VM with a pod that runs, and a host that would like to do more."""

    def __init__(self, daemon: Daemon, pod: Pod) -> None:
        self.daemon, self.pod = daemon, pod
        self.bridge: Connection = daemon.connect()

    def strict(self) -> None:
        """No disks here: asked for properties, the policy takes the layers for mounted."""
        known = zip(reversed(self.pod.layers), HASHES, strict=True)
        mounted = [
            {"name": "devices", "action": "update", "key": path, "value": hash} for path, hash in known
        ]
        sandbox, workload = self.pod.described(HASHES)
        workload["mounts"].append(BELOW)
        text = policies.policy(sandbox, workload, allow_unencrypted_scratch=True)
        text = text.replace("get_properties := data.framework.get_properties\n", "")
        set_policy(
            self.bridge, f'{text}get_properties := {{"allowed": true, "metadata": {json.dumps(mounted)}}}\n'
        )
        self.bridge.ask(GET_PROPERTIES, body(new_id()))

    def start(self) -> None:
        for id, spec in self.pod.both():
            fine(modify(self.bridge, "CombinedLayers", "Add", self.pod.overlay(id)))
            fine(self.pod.create(self.bridge, id, spec))
            Container(self.bridge, id).init()
        # As a container of the pod can.
        below = Path("/run/gcs/c", self.pod.sandbox, "sandboxMounts", "tmp")
        below.mkdir()
        (below / "link").symlink_to("/etc")

    def works(self) -> None:
        """What is allowed still is."""
        assert Container(self.bridge, self.pod.workload).exec(*ECHO).wait() == 0

    def state(self) -> Any:
        """All that a host could have changed."""
        rows = self.bridge.properties(NULL_ID, "uvmd.mounts", "uvmd.ps")
        containers = [(one["id"], one["state"], one["pid"]) for one in rows["uvmd.ps"]["containers"]]
        table = sorted(row["target"] for row in rows["uvmd.mounts"])
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        ours = [target for target in mounts if target.startswith(f"/run/gcs/c/{self.pod.sandbox}")]
        files = sorted(str(path) for path in Path("/run/gcs/c", self.pod.workload).glob("*"))
        # Whose names others of this machine's tests make and remove.
        return containers, table, ours, files, rows["uvmd.ps"]["inconsistent"], rows["uvmd.ps"]["processes"]

    def end(self) -> None:
        for id in (self.pod.workload, self.pod.sandbox):
            Container(self.bridge, id).kill()
            self.bridge.wait_for_notification(id)
            root = {"ContainerRootPath": str(self.pod.root(id))}
            fine(modify(self.bridge, "CombinedLayers", "Remove", root))
        fine(delete(self.bridge, self.pod.workload))
        # Its bundle is a disk that this test has mounted, and of which the daemon knows nothing.
        assert "still mounted" in delete(self.bridge, self.pod.sandbox)["ErrorMessage"]


@pytest.fixture(scope="module")
def vm() -> Iterator[Vm]:
    numbers = [int(new_id()[:7], 16) for _ in HASHES]
    layers = [LAYER_ROOM / f"m{number}" for number in numbers]
    with contextlib.ExitStack() as stack:
        for layer, source in zip(layers, (None, rootfs.shared()), strict=True):
            layer.mkdir(parents=True)
            stack.callback(
                lambda one=layer: (subprocess.run(["umount", "-l", one], check=False), one.rmdir())
            )
            kind = ["-t", "tmpfs", "tmpfs"] if source is None else ["--bind", str(source)]
            subprocess.run(["mount", *kind, str(layer)], check=True)
        pod = Pod([str(layer) for layer in layers])
        bundle = Path("/run/gcs/c") / pod.sandbox
        bundle.mkdir(parents=True)
        stack.callback(lambda: (subprocess.run(["umount", "-R", "-l", bundle], check=False), bundle.rmdir()))
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(bundle)], check=True)
        options = {"plugins-require": "policy_rego", "paths-bundle-roots": "/run/gcs"}
        daemon = stack.enter_context(running(options=options))
        one = Vm(daemon, pod)
        one.strict()
        one.start()
        yield one
        one.end()
        one.bridge.close()


@contextlib.contextmanager
def unchanged(vm: Vm) -> Iterator[None]:
    before = vm.state()
    yield
    assert vm.state() == before
    vm.works()


def changed(spec: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    spec = copy.deepcopy(spec)
    change(spec)
    return spec


def another(vm: Vm) -> tuple[str, dict[str, Any]]:
    """A further workload, just as the policy describes it, with its root in place."""
    id = new_id()
    spec = vm.pod.workload_spec()
    spec["root"]["path"] = str(vm.pod.root(id))
    fine(modify(vm.bridge, "CombinedLayers", "Add", vm.pod.overlay(id)))
    return id, spec


@contextlib.contextmanager
def prepared(vm: Vm) -> Iterator[tuple[str, dict[str, Any]]]:
    id, spec = another(vm)
    try:
        yield id, spec
    finally:
        fine(modify(vm.bridge, "CombinedLayers", "Remove", {"ContainerRootPath": str(vm.pod.root(id))}))


HOOK = [{"path": "/bin/sh", "args": ["sh", "-c", "touch /run/owned"]}]
DEVICE = {"path": "/dev/mem", "type": "c", "major": 1, "minor": 1}
#: What the workload may have mounted: policies describe volumes of a pod like this.
BELOW = {"destination": "/data", "type": "bind", "source": "sandbox:///tmp/.+", "options": ["rbind", "rw"]}
HOST_ROOT = {"destination": "/host", "type": "bind", "source": "/", "options": ["rbind", "rw"]}


def of_pod(below: str) -> Callable[[dict[str, Any]], object]:
    """A mount whose source is already what the guest would make of ``sandbox://``."""

    def change(spec: dict[str, Any]) -> None:
        pod = f"/run/gcs/c/{spec['annotations'][SANDBOX_ID]}/sandboxMounts"
        spec["mounts"].append({**BELOW, "source": f"{pod}/{below}"})

    return change


def annotate(name: str, value: str) -> Callable[[dict[str, Any]], object]:
    return lambda spec: spec["annotations"].update({name: value})


CREATES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "hooks": (lambda spec: spec.update(hooks={"createRuntime": HOOK}), "hooks"),
    "hooks in other letters": (lambda spec: spec.update(Hooks={"prestart": HOOK}), "hooks"),
    "empty hooks": (lambda spec: spec.update(hooks={"poststop": HOOK}), "hooks"),
    "a device": (lambda spec: spec["linux"].update(devices=[DEVICE]), "devices not supported"),
    "the VM's root": (lambda spec: spec["mounts"].append(HOST_ROOT), "invalid mount list: /host"),
    "another option": (lambda spec: spec["mounts"][0]["options"].append("suid"), "invalid mount list: /proc"),
    "no options": (lambda spec: spec["mounts"][0].pop("options"), "invalid mount list: /proc"),
    "another source": (
        lambda spec: spec["mounts"][-1].update(type="bind", source="/"),
        "invalid mount list: /tmp",
    ),
    "a path into the pod": (
        lambda spec: spec["mounts"].append({**HOST_ROOT, "source": "sandbox://../../../../"}),
        "sandbox",
    ),
    "a path that climbs out of the pod": (of_pod("tmp/../../../../../../etc"), "not an absolute, clean path"),
    "a path through a link of the pod's": (of_pod("tmp/link"), "too many levels of symbolic links"),
    "a path that ends early": (of_pod("tmp\0/x"), "source has a NUL"),
    "an argument that ends early": (
        lambda spec: spec["process"]["args"].append("1\0"),
        "process.args[2] has a NUL",
    ),
    "another command": (lambda spec: spec["process"].update(args=["/bin/sh"]), "invalid command"),
    "a further argument": (lambda spec: spec["process"]["args"].append("1"), "invalid command"),
    "a variable": (
        lambda spec: spec["process"]["env"].append("LD_PRELOAD=/x.so"),
        "invalid env list: LD_PRELOAD",
    ),
    "a directory": (lambda spec: spec["process"].update(cwd="/tmp"), "invalid working directory"),
    "new privileges": (lambda spec: spec["process"].update(noNewPrivileges=False), "invalid noNewPrivileges"),
    "capabilities": (
        lambda spec: spec["process"]["capabilities"]["bounding"].append("CAP_SYS_ADMIN"),
        "capabilities don't match",
    ),
    "no capabilities": (lambda spec: spec["process"].pop("capabilities"), "capabilities object provided"),
    "privileged": (annotate("io.microsoft.virtualmachine.lcow.privileged", "true"), "privileged escalation"),
    "a seccomp profile": (
        lambda spec: spec["linux"].update(seccomp={"defaultAction": "SCMP_ACT_ALLOW"}),
        "invalid seccomp",
    ),
    "a log in the VM": (
        annotate("io.microsoft.container.lcow.tee-log-dir-mount", "/host"),
        "invalid mount list: /host",
    ),
    "another root": (lambda spec: spec["root"].update(path="/run"), "root.path must equal"),
    "a root that climbs": (
        lambda spec: spec["root"].update(path=f"{spec['root']['path']}/../../.."),
        "root.path must equal",
    ),
    "a hostname of its own": (lambda spec: spec.update(hostname="x"), "hostname"),
    "the VM's namespaces": (
        lambda spec: spec["linux"].update(namespaces=[{"type": "mount"}]),
        "a pid namespace",
    ),
    "the VM's processes": (
        lambda spec: spec["linux"]["namespaces"][0].update(path="/proc/1/ns/pid"),
        "its pod's",
    ),
    "the VM's network by path": (
        lambda spec: spec["linux"]["namespaces"][-1].update(path="/proc/1/ns/net"),
        "its pod's",
    ),
    "a user namespace": (lambda spec: spec["linux"]["namespaces"].append({"type": "user"}), "user namespace"),
}


@pytest.mark.parametrize("what", CREATES)
def test_a_container_that_is_not_as_described_is_not_created(vm: Vm, what: str) -> None:
    change, reason = CREATES[what]
    with unchanged(vm), prepared(vm) as (id, spec):
        answer = vm.pod.create(vm.bridge, id, changed(spec, change))
        assert code(answer) in ("E_FAIL", "INVALID_JSON"), answer
        said = answer["ErrorMessage"]
        if "policyDecision<" in said:
            assert any(reason in one for one in reasons(answer)), reasons(answer)
        else:
            assert reason.lower() in said.lower()
        assert not Path("/run/owned").exists()


def test_the_vms_network_takes_its_own_question_annotation_or_not(vm: Vm) -> None:
    with unchanged(vm), prepared(vm) as (id, spec):
        spec["linux"]["namespaces"] = [one for one in spec["linux"]["namespaces"] if one["type"] != "network"]
        answer = vm.pod.create(vm.bridge, id, spec)
        assert code(answer) == "E_FAIL"
        assert reasons(answer) == []  # as the reference's: this question has no words of its own
        assert "container creation denied" not in answer["ErrorMessage"]


def test_a_workload_has_its_pods_namespaces_and_the_usual_devices(vm: Vm) -> None:
    """As hosts send it, and what a hostile one puts beside it."""
    rows = vm.bridge.properties(NULL_ID, "uvmd.ps")["uvmd.ps"]["containers"]
    sandbox = next(row["pid"] for row in rows if row["id"] == vm.pod.sandbox)
    shared = {"ipc": "ipc", "uts": "uts", "network": "net", "pid": "pid"}
    id, spec = another(vm)
    for entry in spec["linux"]["namespaces"]:
        if entry["type"] in shared:
            entry["path"] = f"/proc/{sandbox}/ns/{shared[entry['type']]}"
    spec["linux"]["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    spec["linux"]["netDevices"] = {"lo": {"name": "stolen"}}
    spec["mounts"][-1]["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}]
    fine(vm.pod.create(vm.bridge, id, spec))
    container = Container(vm.bridge, id)
    init = container.init()
    for name in shared.values():
        assert Path(f"/proc/{init.pid}/ns/{name}").samefile(f"/proc/{sandbox}/ns/{name}")
    config = json.loads(Path("/run/gcs/c", id, "config.json").read_text())
    assert config["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert "netDevices" not in config["linux"]
    assert not any("uidMappings" in mount for mount in config["mounts"])
    container.kill()
    vm.bridge.wait_for_notification(id)
    fine(modify(vm.bridge, "CombinedLayers", "Remove", {"ContainerRootPath": str(vm.pod.root(id))}))
    fine(delete(vm.bridge, id))


@pytest.mark.parametrize("source", ["sandbox:///tmp/volume", "/run/gcs/c/{}/sandboxMounts/tmp/volume"])
def test_a_volume_of_the_pod_is_mounted_by_its_scheme_or_by_its_path(vm: Vm, source: str) -> None:
    volume = Path("/run/gcs/c", vm.pod.sandbox, "sandboxMounts", "tmp", "volume")
    volume.mkdir(exist_ok=True)
    with prepared(vm) as (id, spec):
        spec["mounts"].append({**BELOW, "source": source.format(vm.pod.sandbox)})
        fine(vm.pod.create(vm.bridge, id, spec))
        container = Container(vm.bridge, id)
        assert Path(f"/proc/{container.init().pid}/root/data").samefile(volume)
        container.kill()
        vm.bridge.wait_for_notification(id)
    fine(delete(vm.bridge, id))


@pytest.mark.parametrize(
    "hostname",
    ["a b", "../../etc", "x\n127.0.0.1 mcr.microsoft.com", "a" * 300, "x\0y", "é", "a;b"],
)
def test_a_sandbox_with_an_odd_name_is_refused(vm: Vm, hostname: str) -> None:
    with unchanged(vm):
        other = Pod(vm.pod.layers)
        answer = other.create(
            vm.bridge,
            other.sandbox,
            other.sandbox_spec(hostname=hostname),
            OciBundlePath=f"/run/gcs/c/{other.sandbox}",
        )
        assert code(answer) in ("E_FAIL", "INVALID_JSON")
        assert "hostname" in answer["ErrorMessage"]
        assert not Path("/run/gcs/c", other.sandbox).exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("OciBundlePath", "/run/gcs/c/other"),
        ("OciBundlePath", "/etc"),
        ("OciBundlePath", "/run/gcs/c/{id}/../x"),
        ("ScratchDirPath", "/"),
        ("ScratchDirPath", "/run/gcs/c/{id}/scratch/other"),
        ("ScratchDirPath", ""),
    ],
)
def test_a_bundle_has_one_place(vm: Vm, field: str, value: str) -> None:
    with unchanged(vm), prepared(vm) as (id, spec):
        answer = vm.pod.create(vm.bridge, id, spec, **{field: value.format(id=id)})
        assert code(answer) == "E_FAIL"
        assert field in answer["ErrorMessage"]


def swapped(pod: Pod) -> list[dict[str, str]]:
    return [{"Path": path} for path in reversed(pod.layers)]


OVERLAYS: dict[str, tuple[Callable[[Pod, str], dict[str, Any]], str]] = {
    "swapped": (lambda pod, id: {"Layers": swapped(pod)}, "no matching containers for overlay"),
    "one": (lambda pod, id: {"Layers": swapped(pod)[:1]}, "no matching containers for overlay"),
    "one twice": (lambda pod, id: {"Layers": swapped(pod)[:1] * 2}, "no matching containers for overlay"),
    "a folder": (
        lambda pod, id: {"Layers": [{"Path": "/etc"}, *swapped(pod)[:1]]},
        "no matching containers for overlay",
    ),
    "a path that is a layer's": (
        lambda pod, id: {"Layers": [{"Path": f"{pod.layers[0]}/"}, {"Path": pod.layers[1]}]},
        "",
    ),
    "a root elsewhere": (lambda pod, id: {"ContainerRootPath": "/etc"}, "does not match expected path"),
    "the root of another": (
        lambda pod, id: {"ContainerRootPath": str(pod.root(pod.workload))},
        "does not match expected path",
    ),
    "a scratch elsewhere": (lambda pod, id: {"ScratchPath": "/tmp/x"}, "must match regex"),
    "a scratch that climbs": (
        lambda pod, id: {"ScratchPath": f"/run/gcs/c/{pod.sandbox}/scratch/{id}/../x"},
        "must match regex",
    ),
    "the scratch of another": (
        lambda pod, id: {"ScratchPath": pod.scratch(pod.workload)},
        "must match regex",
    ),
    "an id that is none": (lambda pod, id: {"ContainerID": "../x"}, "invalid container id"),
    "an id that runs": (
        lambda pod, id: {**pod.overlay(pod.workload)},
        "scratch already mounted at path",
    ),
}


@pytest.mark.parametrize("what", OVERLAYS)
def test_a_root_is_put_together_of_the_layers_in_their_order_or_not_at_all(vm: Vm, what: str) -> None:
    change, reason = OVERLAYS[what]
    with unchanged(vm):
        id = new_id()
        answer = modify(vm.bridge, "CombinedLayers", "Add", vm.pod.overlay(id, **change(vm.pod, id)))
        assert code(answer) == "E_FAIL", answer
        said = answer["ErrorMessage"]
        assert reason in said or any(reason in one for one in reasons(answer))
        assert not Path("/run/gcs/c", id).exists()
        # The scratch that the first question allowed is not used up by what the second denied.
        fine(modify(vm.bridge, "CombinedLayers", "Add", vm.pod.overlay(id)))
        fine(modify(vm.bridge, "CombinedLayers", "Remove", {"ContainerRootPath": str(vm.pod.root(id))}))


def test_what_is_in_use_stays(vm: Vm) -> None:
    with unchanged(vm):
        for id in (vm.pod.workload, vm.pod.sandbox):
            answer = modify(
                vm.bridge, "CombinedLayers", "Remove", {"ContainerRootPath": str(vm.pod.root(id))}
            )
            assert "is in use by a running container" in answer["ErrorMessage"]
            assert code(delete(vm.bridge, id)) == "E_FAIL"
    assert vm.bridge.properties(NULL_ID, "uvmd.ps")["uvmd.ps"]["inconsistent"] is None


@pytest.mark.parametrize(
    ("type_", "id", "settings"),
    [
        ("Unheard", "", {}),
        ("example.com/Unheard", "", {}),
        ("example.com/Ramdisk", "", {"MountPath": "/run/owned", "SizeMiB": 1}),
        ("SecurityPolicy", "", {"EncodedSecurityPolicy": ""}),
        ("SecurityPolicy", "", {"EnforcerType": "open_door", "EncodedSecurityPolicy": ""}),
        ("SecurityPolicyFragment", "", {"Fragment": "cGFja2FnZSB4Cg=="}),
        ("SecurityPolicyFragment", "", {"Fragment": "", "MediaType": "text/plain"}),
        ("SecurityPolicyFragment", "", {"Fragment": "%"}),
        ("ContainerConstraints", "workload", {"Linux": {"devices": [{"allow": True, "access": "rwm"}]}}),
        ("ContainerConstraints", "workload", {"Linux": {"Devices": [{"allow": True, "access": "rwm"}]}}),
        ("ContainerConstraints", "workload", {"Linux": {"unified": {"memory.max": "1"}}}),
        ("MappedDirectory", "", {"MountPath": "/run/owned", "ShareName": "1", "Port": 1}),
        ("MappedDirectory", "", {"MountPath": "/run/gcs/c/x/../owned", "ShareName": "1", "Port": 1}),
        ("MappedVirtualDisk", "", {"MountPath": "/run/mounts/scsi/m1", "ReadOnly": True}),
        ("MappedVirtualDisk", "workload", {}),
    ],
)
def test_what_no_policy_knows_is_refused(vm: Vm, type_: str, id: str, settings: dict[str, Any]) -> None:
    target = vm.pod.workload if id else NULL_ID
    request = "Remove" if type_ == "MappedVirtualDisk" else "Add"
    with unchanged(vm):
        answer = modify(vm.bridge, type_, request, settings, target)
        assert code(answer) in ("E_FAIL", "INVALID_JSON"), answer
        assert not Path("/run/owned").exists()


@pytest.mark.parametrize(
    ("of_process", "reason"),
    [
        ({"args": ["/bin/echo", "bye"]}, "invalid command"),
        ({"args": ["/bin/sh"]}, "invalid command"),
        ({"env": ["EVIL=1"]}, "invalid env list: EVIL"),
        ({"cwd": "/tmp"}, "invalid working directory"),
        ({"capabilities": {"bounding": ["CAP_SYS_ADMIN"]}}, "capabilities don't match"),
        ({"noNewPrivileges": False}, "invalid noNewPrivileges"),
    ],
)
def test_only_listed_processes_run_in_a_container(vm: Vm, of_process: dict[str, Any], reason: str) -> None:
    process = specs.process(*ECHO) | of_process
    with unchanged(vm):
        parameters = json.dumps({"OCIProcess": process})
        answer = vm.bridge.ask(EXECUTE, body(vm.pod.workload, Settings={"ProcessParameters": parameters}))
        assert code(answer) == "E_FAIL"
        assert reason in reasons(answer)


def test_an_exec_is_asked_about_as_the_user_that_it_runs_as(vm: Vm) -> None:
    with unchanged(vm):
        id, spec = another(vm)
        spec["process"]["user"] = {"username": "root"}
        fine(vm.pod.create(vm.bridge, id, spec))
        container = Container(vm.bridge, id)
        container.init()
        # Who names nobody runs as the container's user string says. Of 4321 no file knows anything.
        process = specs.process(*ECHO, user={"uid": 4321, "gid": 4321})
        assert vm.bridge.execute(id, process).wait() == 0
        container.kill()
        vm.bridge.wait_for_notification(id)
        fine(modify(vm.bridge, "CombinedLayers", "Remove", {"ContainerRootPath": str(vm.pod.root(id))}))
        fine(delete(vm.bridge, id))


@pytest.mark.parametrize(
    "parameters",
    [
        {"CommandArgs": ["/bin/sh"], "Environment": {}},
        {"CommandLine": "/bin/sh -c 'touch /run/owned'", "Environment": {}},
        {"CommandArgs": ["/bin/echo", "hello"], "CommandLine": "/bin/sh", "Environment": {"A": "1"}},
    ],
)
def test_nothing_runs_beside_the_containers(vm: Vm, parameters: dict[str, Any]) -> None:
    with unchanged(vm):
        settings = {"ProcessParameters": json.dumps(parameters)}
        answer = vm.bridge.ask(EXECUTE, body(NULL_ID, Settings=settings))
        assert code(answer) == "E_FAIL"
        assert "invalid command" in reasons(answer)
        assert not Path("/run/owned").exists()


def test_signals_are_those_that_the_policy_lists(vm: Vm) -> None:
    init = next(
        one["pid"]
        for one in vm.bridge.properties(NULL_ID, "uvmd.ps")["uvmd.ps"]["containers"]
        if one["id"] == vm.pod.workload
    )
    with unchanged(vm):
        for signal in (1, 2, 19):
            asked = body(vm.pod.workload, ProcessId=init, Options={"Signal": signal})
            assert reasons(vm.bridge.ask(SIGNAL, asked)) == ["target isn't allowed to receive the signal"]


# Texts


def twice(text: str, key: str, first: str) -> bytes:
    """The key once more, in other letters, before the one that was there."""
    return text.replace(f'"{key}"', f'"{first}": null, "{key}"', 1).encode()


@pytest.mark.parametrize(
    ("key", "first"), [("ContainerId", "containerid"), ("ContainerConfig", "CONTAINERCONFIG")]
)
def test_keys_that_differ_by_case_are_no_way_in(vm: Vm, key: str, first: str) -> None:
    with unchanged(vm), prepared(vm) as (id, spec):
        text = json.dumps(vm.pod.create_body(vm.bridge, id, spec))
        assert code(vm.bridge.ask(CREATE, twice(text, key, first))) == "INVALID_JSON"


@pytest.mark.parametrize(
    ("key", "evil"),
    [("args", '["/bin/sh"]'), ("mounts", "[]"), ("Args", '["/bin/sh"]'), ("hooks", "{}"), ("Process", "{}")],
)
def test_of_a_key_that_is_there_twice_the_policy_sees_what_runs(vm: Vm, key: str, evil: str) -> None:
    """Denied or refused, or it is the described one that runs: never the other one."""
    with unchanged(vm), prepared(vm) as (id, spec):
        asked = vm.pod.create_body(vm.bridge, id, spec)
        text = json.dumps(spec)
        inner = text.replace('"ociVersion"', f'"{key}": {evil}, "ociVersion"', 1)
        if key.lower() == "args":
            inner = text.replace('"args"', f'"{key}": {evil}, "args"', 1)
        whole = json.dumps(asked)
        assert json.dumps(text)[1:-1] in whole or json.dumps(json.dumps(text))[1:-1] in whole or text in whole
        for old, new in (
            (json.dumps(json.dumps(text))[1:-1], json.dumps(json.dumps(inner))[1:-1]),
            (json.dumps(text)[1:-1], json.dumps(inner)[1:-1]),
            (text, inner),
        ):
            if old in whole:
                whole = whole.replace(old, new, 1)
                break
        answer = vm.bridge.ask(CREATE, whole.encode())
        if code(answer) == "S_OK":
            assert Path("/run/gcs/c", id, "config.json").exists()
            config = json.loads(Path("/run/gcs/c", id, "config.json").read_text())
            assert config["process"]["args"] == spec["process"]["args"]
            assert "hooks" not in config
            container = Container(vm.bridge, id)
            container.init()
            container.kill()
            vm.bridge.wait_for_notification(id)


# Races


def test_of_requests_that_race_one_wins_and_the_rest_change_nothing(vm: Vm) -> None:
    with unchanged(vm):
        id, spec = another(vm)
        asked = vm.pod.create_body(vm.bridge, id, spec)
        evil = vm.pod.create_body(
            vm.bridge, id, changed(spec, lambda one: one["process"].update(args=["/bin/sh"]))
        )
        numbers = [vm.bridge.send(CREATE, one) for one in (evil, asked, evil, asked, asked, evil)]
        answers = [code(vm.bridge.answer(number)) for number in numbers]
        assert answers.count("S_OK") <= 1, answers
        if "S_OK" not in answers:  # the wrong one was first: those beside it found the id taken
            assert "E_FAIL" in answers
            fine(vm.bridge.ask(CREATE, asked))
        config = json.loads(Path("/run/gcs/c", id, "config.json").read_text())
        assert config["process"]["args"] == spec["process"]["args"]
        container = Container(vm.bridge, id)
        init = container.init()
        # Racing with what the container rests on, and with its end.
        root = {"ContainerRootPath": str(vm.pod.root(id))}
        refused = [modify(vm.bridge, "CombinedLayers", "Remove", root) for _ in range(3)]
        assert {code(answer) for answer in refused} == {"E_FAIL"}
        container.kill()
        init.wait()
        vm.bridge.wait_for_notification(id)
        fine(modify(vm.bridge, "CombinedLayers", "Remove", root))
        fine(delete(vm.bridge, id))


def test_bytes_that_are_no_frame_end_a_connection_and_nothing_else(vm: Vm) -> None:
    with unchanged_over(vm):
        vm.bridge.send_bytes(b"\xff" * 64)
        with pytest.raises(Gone):
            while True:
                vm.bridge.pump(5)
        vm.bridge = vm.daemon.connect()


@contextlib.contextmanager
def unchanged_over(vm: Vm) -> Iterator[None]:
    """Over the end of a connection."""
    before = vm.state()
    yield
    assert vm.state() == before
    vm.works()

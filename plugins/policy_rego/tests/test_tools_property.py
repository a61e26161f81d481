"""A policy never allows what its description does not contain, nor denies what it does.

Random configurations are turned into policies, and random requests close to them are run
through replay; a plain reading of the configuration (``described``) says what must come out.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import described
import policies
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from uvmd_policy_rego import defaults
from uvmd_policy_rego.replay import replay
from uvmd_policy_rego.tools.check import check
from uvmd_policy_rego.tools.description import describe
from uvmd_policy_rego.tools.generate import generate
from uvmd_policy_rego.tools.reading import read_document

LAYERS = ["1" * 64, "2" * 64, "3" * 64]
COMMANDS = [["web"], ["web", "-v"], ["sh"]]
ENVS = ["A=1", "A=12", "B=1", "AB=x", "TERM=xterm", described.PATH]
RULES = [
    {"strategy": "string", "rule": "A=1"},
    {"strategy": "re2", "rule": "A=[0-9]"},
    {"strategy": "re2", "rule": "(A|B)=1"},
    {"strategy": "re2", "rule": "A.*=.+", "required": True},
    {"strategy": "string", "rule": "B=1", "required": True},
]
CAPS: list[dict[str, list[str]]] = [{}, {"bounding": ["CAP_KILL"]}, {"bounding": ["CAP_KILL"], "ambient": []}]
MOUNTS = [
    {"host_path": "sandbox:///data/[a-z]", "container_path": "/data", "readonly": True},
    {"host_path": "sandbox:///data/.+", "container_path": "/data"},
]
ID_RULES = [{"strategy": "any"}, {"strategy": "id", "rule": "0"}, {"strategy": "name", "rule": "me"}]
PEOPLE = [{"id": "0", "name": "root"}, {"id": "7", "name": "me"}, {"id": "8", "name": ""}]
EXECS = [{"command": ["sh"], "signals": [9]}, {"command": ["top"], "signals": []}, {"command": ["top"]}]


def some(values: list[Any], most: int = 2) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), max_size=most)


containers = st.fixed_dictionaries(
    {
        "command": st.sampled_from(COMMANDS),
        "layers": st.lists(st.sampled_from(LAYERS), min_size=1, max_size=2),
        "working_dir": st.sampled_from(["/", "/srv"]),
        "user": st.fixed_dictionaries(
            {
                "umask": st.sampled_from(["0022", "0027"]),
                "user_idname": st.sampled_from(ID_RULES),
                "group_idname": st.lists(st.sampled_from(ID_RULES), min_size=1, max_size=2),
            }
        ),
    },
    optional={
        "env_rule": some(RULES, 3),
        "mount": some(MOUNTS),
        "exec_process": st.lists(st.sampled_from(EXECS), min_size=1, max_size=3),
        "signals": st.lists(st.sampled_from([9, 15]), min_size=1, max_size=2),
        "capabilities": st.sampled_from(CAPS),
        "allow_elevated": st.booleans(),
        "allow_stdio_access": st.booleans(),
        "allow_privilege_escalation": st.booleans(),
    },
)
processes = st.fixed_dictionaries(
    {"command": st.sampled_from(COMMANDS), "working_dir": st.sampled_from(["/", "/srv"])},
    optional={"allow_stdio_access": st.booleans()},
)
configurations = st.fixed_dictionaries(
    {
        "container": st.lists(containers, min_size=1, max_size=4),
        "external_process": st.lists(processes, max_size=3),
    }
)


@st.composite
def requests(draw: st.DrawFn, container: dict[str, Any]) -> dict[str, Any]:
    """A request that a container was made for, then perhaps not quite."""
    privileged = draw(st.booleans()) and container.get("allow_elevated", False)
    input = policies.create(
        argList=container["command"],
        workingDir=container["working_dir"],
        envList=[draw(st.sampled_from(_fitting(rule))) for rule in container.get("env_rule", [])],
        mounts=draw(some([*_mounts(container), *defaults.DEFAULT_MOUNTS[:2]], 2)),
        privileged=privileged,
        noNewPrivileges=draw(st.booleans()) or not container.get("allow_privilege_escalation", False),
        user=draw(st.sampled_from(_people(container))),
        groups=[draw(st.sampled_from(PEOPLE)) for _ in range(draw(st.integers(0, 1)))],
        umask=container["user"]["umask"],
        capabilities=_capabilities(container, privileged),
    )
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=1)):
        change(draw, input)
    return input


def _people(container: dict[str, Any]) -> list[dict[str, str]]:
    return [one for one in PEOPLE if described.is_user(one, container["user"]["user_idname"])]


def _fitting(rule: dict[str, Any]) -> list[str]:
    return [one for one in ENVS if described.fits(one, rule)]


def _capabilities(container: dict[str, Any], privileged: bool) -> dict[str, list[str]]:
    if "capabilities" in container:
        return {name: list(container["capabilities"].get(name, [])) for name in described.SETS}
    allowed = described.ALL if privileged else described.USUAL
    return {name: sorted(allowed.get(name, ())) for name in described.SETS}


def _mounts(container: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "destination": "/data",
            "source": f"{policies.ROOT}/sandboxMounts/data/a",
            "type": "bind",
            "options": ["rbind", "ro" if one.get("readonly") else "rw", "rshared"],
        }
        for one in container.get("mount", [])
    ]


def _change(key: str, values: list[Any]) -> Any:
    def change(draw: st.DrawFn, input: dict[str, Any]) -> None:
        input[key] = copy.deepcopy(draw(st.sampled_from(values)))

    return change


def _add(key: str, values: list[Any]) -> Any:
    def change(draw: st.DrawFn, input: dict[str, Any]) -> None:
        input[key] = [*input[key], copy.deepcopy(draw(st.sampled_from(values)))]

    return change


def _lose_one(draw: st.DrawFn, input: dict[str, Any]) -> None:
    for key in draw(st.sampled_from([["envList"], ["mounts"], ["capabilities", "bounding"]])):
        held = input[key]
        if isinstance(held, list):
            input[key] = held[1:]
        else:
            input = held
            input["bounding"] = input["bounding"][1:]
            return


STRANGE = {"destination": "/data", "source": "/etc", "type": "bind", "options": ["rbind", "rw", "rshared"]}
CHANGES = [
    _change("argList", [*COMMANDS, []]),
    _change("workingDir", ["/", "/srv", "/srv/"]),
    _add("envList", ENVS),
    _add("envList", ["LD_PRELOAD=/x", "A", ""]),
    _add("mounts", [STRANGE, STRANGE | {"source": f"{policies.ROOT}/sandboxMounts/data/ab"}]),
    _add("mounts", [*defaults.PRIVILEGED_MOUNTS, defaults.DEFAULT_MOUNTS[0] | {"options": ["rw"]}]),
    _add("devices", [{"path": "/dev/x"}]),
    _change("privileged", [True, False]),
    _change("noNewPrivileges", [True, False]),
    _change("user", PEOPLE),
    _add("groups", PEOPLE),
    _change("umask", ["0022", "0027", "0000"]),
    _change("seccompProfileSHA256", ["f" * 64]),
    _change("capabilities", [_capabilities({}, True), _capabilities({}, False), policies.caps("CAP_KILL")]),
    _lose_one,
]


class Story:
    """One session: the calls of a host, and what the configuration says to each."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.calls: list[dict[str, Any]] = []
        self.expected: list[bool] = []

    def ask(self, point: str, input: dict[str, Any], expected: bool) -> None:
        self.calls.append({"kind": "enforce", "point": point, "input": input})
        self.expected.append(expected)

    def container(self, draw: st.DrawFn, number: int) -> None:
        """A container's life: layers, overlay, create, and what follows."""
        meant = draw(st.sampled_from(self.config["container"]))
        id, running = f"{number:064x}", self.overlay(meant["layers"], number)
        request = draw(requests(meant)) | {"containerID": id}
        again = request
        for _ in range(2):  # a second time is always one too many
            self.ask("create_container", again, described.create(running, again))
        for _ in range(draw(st.integers(0, 4 if running.created else 1))):
            self.inside(draw, running, request)

    def overlay(self, layers: list[str], number: int) -> described.Running:
        id, paths = f"{number:064x}", []
        for at, layer in enumerate(layers):
            path = f"/run/mounts/scsi/m{number * 10 + at}"
            device = {"target": path, "deviceHash": layer, "mountPathRegex": policies.MOUNT_PATHS}
            self.ask("mount_device", device, True)
            paths.insert(0, path)
        target = f"/run/gcs/c/{id}/rootfs"
        self.ask("mount_overlay", {"containerID": id, "layerPaths": paths, "target": target}, True)
        possible = [one for one in self.config["container"] if one["layers"] == layers]
        return described.Running(possible)

    def inside(self, draw: st.DrawFn, running: described.Running, request: dict[str, Any]) -> None:
        listed = [one["command"] for c in running.possible for one in c.get("exec_process", [])]
        command = draw(st.sampled_from([*listed, *listed, ["web"]]))
        if draw(st.booleans()):
            signal = {
                "containerID": request["containerID"], "signal": draw(st.sampled_from([9, 15])),
                "isInitProcess": draw(st.booleans()), "argList": command,
            }  # fmt: skip
            self.ask("signal_container_process", signal, described.signal(running, signal))
            return
        keys = policies.execute().keys()
        input = {key: value for key, value in request.items() if key in keys} | {"argList": command}
        if draw(st.booleans()):
            input["envList"] = [*input["envList"], draw(st.sampled_from(ENVS))]
        self.ask("exec_in_container", input, described.execute(running, input))

    def beside(self, draw: st.DrawFn) -> None:
        """A process in the VM itself."""
        near: dict[str, Any] = draw(st.sampled_from([*self.config["external_process"], {"command": ["ls"]}]))
        input = {
            "argList": near["command"],
            "workingDir": draw(st.sampled_from([near.get("working_dir", "/"), "/x"])),
            "envList": draw(st.sampled_from([[described.PATH], [described.PATH], ["A=1"], []])),
        }
        self.ask("exec_external", input, described.external(self.config["external_process"], input))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configurations")


def policy_of(config: dict[str, Any], folder: Path) -> str:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return generate(path).measured.text


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), config=configurations)
def test_a_generated_policy_allows_what_its_configuration_says_and_nothing_else(
    data: st.DataObject, config: dict[str, Any], folder: Path
) -> None:
    story = Story(config)
    for number in range(1, 9):
        data.draw(st.composite(lambda draw, n=number: story.container(draw, n))())
    for _ in range(4):
        data.draw(st.composite(lambda draw: story.beside(draw))())
    answers = replay(
        {
            "name": "story",
            "policy": policy_of(config, folder),
            "default_mounts": defaults.DEFAULT_MOUNTS,
            "privileged_mounts": defaults.PRIVILEGED_MOUNTS,
            "calls": story.calls,
        }
    )
    for call, expected, answer in zip(story.calls, story.expected, answers["calls"], strict=True):
        assert answer["allowed"] == expected, (call, answer.get("decision"))


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), config=configurations)
def test_what_is_left_when_a_policy_drops_is_what_some_container_may_have(
    data: st.DataObject, config: dict[str, Any], folder: Path
) -> None:
    dropping = {"allow_environment_variable_dropping": True, "allow_capability_dropping": True}
    story = Story(config)
    asked = []
    for number in range(1, 9):
        meant = data.draw(st.sampled_from(config["container"]))
        running = story.overlay(meant["layers"], number)
        input = data.draw(requests(meant)) | {"containerID": f"{number:064x}"}
        story.ask("create_container", input, True)
        asked.append((len(story.calls) - 1, running, input))
    answers = replay(
        {
            "name": "story",
            "policy": policy_of(config | dropping, folder),
            "default_mounts": defaults.DEFAULT_MOUNTS,
            "privileged_mounts": defaults.PRIVILEGED_MOUNTS,
            "calls": story.calls,
        }
    )["calls"]
    for at, running, input in asked:
        if answers[at]["allowed"]:
            result = answers[at]["result"]
            assert set(result["env_list"]) <= set(input["envList"])
            left = input | {"envList": result["env_list"], "capabilities": result["caps_list"]}
            assert described.create(running, left), (input, result)
            assert result["allow_stdio_access"] == running.stdio


def as_configured(one: dict[str, Any]) -> dict[str, Any]:
    """A container as a description has it, in the words of a configuration."""

    def rule(of: dict[str, Any]) -> dict[str, Any]:
        return {"strategy": of["strategy"], "rule": of["pattern"], "required": of.get("required", False)}

    user = one["user"]
    return {
        "command": one["command"],
        "layers": one["layers"],
        "working_dir": one["working_dir"],
        "env_rule": [rule(of) for of in one["env_rules"]],
        "mount": [
            {
                "host_path": of["source"],
                "container_path": of["destination"],
                "readonly": "ro" in of["options"],
            }
            for of in one["mounts"]
        ],
        "exec_process": one["exec_processes"],
        "signals": one["signals"],
        "user": {
            "umask": user["umask"],
            "user_idname": rule(user["user_idname"]),
            "group_idname": [rule(of) for of in user["group_idnames"]],
        },
        **({} if one["capabilities"] is None else {"capabilities": one["capabilities"]}),
        "allow_elevated": one["allow_elevated"],
        "allow_stdio_access": one["allow_stdio_access"],
        "allow_privilege_escalation": not one["no_new_privileges"],
    }


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.data(),
    config=configurations,
    version=st.sampled_from(["0.1.0", "0.2.0", "0.2.1", "0.2.2", "0.2.3", "0.4.1", "0.5.0"]),
    left_out=st.sampled_from(["", "seccomp_profile_sha256", "capabilities", "user", "signals"]),
)
def test_a_policy_of_any_age_allows_what_its_description_says_and_nothing_else(
    data: st.DataObject, config: dict[str, Any], version: str, left_out: str, folder: Path
) -> None:
    text = policy_of(config, folder).replace('"0.5.0"', f'"{version}"').replace('"0.12.0"', '"0.10.0"')
    # A field that is missing: older rules fill it in, newer ones drop the container.
    if version != "0.5.0":
        text = text.replace(f'        "{left_out}":', f'        "was_{left_out}":', 1)
    description = describe(read_document(text))
    described_as = [as_configured(item.value or {}) for item in description.containers]
    assume(described_as)
    story = Story({"container": described_as, "external_process": []})
    for number in range(1, 7):
        data.draw(st.composite(lambda draw, n=number: story.container(draw, n))())
    session = {
        "name": "story", "policy": text, "calls": story.calls,
        "default_mounts": defaults.DEFAULT_MOUNTS, "privileged_mounts": defaults.PRIVILEGED_MOUNTS,
    }  # fmt: skip
    for call, expected, answer in zip(story.calls, story.expected, replay(session)["calls"], strict=True):
        assert answer["allowed"] == expected, (call, answer.get("decision"))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(config=configurations)
def test_what_check_calls_sound_in_a_generated_policy_can_run(config: dict[str, Any], folder: Path) -> None:
    text = policy_of(config, folder)
    broken = {one.where.partition("]")[0] for one in check(text) if one.level == "error"}
    for number, container in enumerate(config["container"]):
        others = [one for one in config["container"] if one is not container]
        if f"containers[{number}" in broken or any(one["layers"] == container["layers"] for one in others):
            continue
        story = Story(config)
        story.overlay(container["layers"], 1)
        input = policies.create(
            containerID=f"{1:064x}",
            argList=container["command"],
            workingDir=container["working_dir"],
            envList=[_fitting(rule)[0] for rule in container.get("env_rule", [])],
            mounts=_mounts(container),
            user=_people(container)[0],
            groups=[],
            umask=container["user"]["umask"],
            capabilities=_capabilities(container, False),
        )
        story.ask("create_container", input, True)
        answers = replay({"name": "one", "policy": text, "calls": story.calls})["calls"]
        assert answers[-1]["allowed"], answers[-1]

"""A denial in words: which rule, who came closest, what differed."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import confcom
import policies
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import EXTERNAL, caps, container, create, device, execute, overlay, policy, rule
from sessions import mounted, opened, started
from test_rego_fragments import IMPORT, fragment, importing, load

from uvmd_policy_rego import denial
from uvmd_policy_rego.cli import policy as verbs
from uvmd_policy_rego.session import Session
from uvmd_policy_rego.tools.denials import NO_DOCUMENT, Denial, parse_denial
from uvmd_policy_rego.tools.errors import PolicyToolError
from uvmd_policy_rego.tools.meanings import ASKED, meaning
from uvmd_policy_rego.tools.why import Explanation, explain, explain_text

UNENCODED = base64.b64encode(b'"Unable to marshal error object"').decode()
WEB, SHELL = container(name="web"), container(name="shell", command=["sh", "-c", "x"], working_dir="/")


def denied(session: Session, point: str, input: dict[str, Any], limit: int = 0) -> str:
    """The text that a host prints of it."""
    answer = session.enforce(point, input)
    assert not answer.allowed
    text = denial.message(answer.decision, point, limit)
    return f"failed to create shim task: guest RPC failure: container creation denied due to policy: {text}"


def why(session: Session, point: str, input: dict[str, Any], text: str = "", limit: int = 0) -> Explanation:
    return explain(parse_denial(denied(session, point, input, limit)), text)


def differences(explanation: Explanation) -> list[str]:
    assert explanation.closest is not None, explanation
    return list(explanation.closest.differences)


def two() -> Session:
    return mounted(policy(SHELL, WEB))


def test_a_changed_argument_is_named_with_the_container_that_came_closest() -> None:
    found = why(two(), "create_container", create(argList=["web", "--port", "81"]))
    assert found.point == "create_container"
    assert [reason.error for reason in found.reasons] == ["invalid command"]
    assert found.closest is not None
    assert (found.closest.name, found.closest.of) == ("web (number 2)", 2)
    assert differences(found) == ['command: argument 2 is "81", the policy has "80"']
    printed = "\n".join(found.lines())
    assert printed.startswith(f"The policy does not allow creating container {policies.ID}.")
    assert "Closest of 2: web (number 2)" in printed


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"argList": ["web", "--port", "80", "-v"]}, 'command: asked with ["-v"] more at its end'),
        ({"argList": ["web"]}, 'command: asked without ["--port", "80"] at its end'),
        ({"argList": None}, 'command: asked null, the policy has ["web", "--port", "80"]'),
        ({"workingDir": "/x"}, "working directory: asked /x, the policy has /srv"),
        ({"noNewPrivileges": False}, "noNewPrivileges: asked false, the policy has true"),
        ({"privileged": True}, "privileged: asked true, the policy has false"),
        ({"seccompProfileSHA256": "ab"}, "seccomp profile: asked ab, the policy has "),
        ({"devices": [{"path": "/dev/mem"}]}, 'devices: asked ["/dev/mem"], the policy never has any'),
        (
            {"user": {"id": "0", "name": "root"}},
            "user: asked 0 (root), groups ['5 (webmasters)'], umask 0022; "
            "the policy has id 1000, groups ['re2 web.*'], umask 0022",
        ),
        (
            {"capabilities": {**caps("CAP_KILL", "CAP_BPF"), "effective": []}},
            'effective capabilities: missing ["CAP_KILL"]',
        ),
        (
            {"mounts": [{**create()["mounts"][0], "options": ["ro"]}]},
            "mount /data: options ['ro'] instead of ['rbind', 'rw']",
        ),
        (
            {"mounts": [{**create()["mounts"][0], "source": "/etc", "type": "none"}]},
            "mount /data: type none instead of bind, options ['rbind', 'rw'] instead of ['rbind', 'rw']",
        ),
        ({"mounts": [{**create()["mounts"][0], "destination": "/x"}]}, "mount /x: the policy has none there"),
        ({"envList": ["PATH=/other"]}, "environment: PATH has another value than"),
        ({"envList": ["EVIL=1"]}, "environment: no rule names EVIL"),
    ],
)
def test_each_thing_that_differs_is_said(changes: dict[str, Any], difference: str) -> None:
    found = why(two(), "create_container", create(**changes))
    assert found.closest is not None
    assert found.closest.name == "web (number 2)"
    if "type none" in difference:
        difference = "mount /data: type none instead of bind"
    assert [one for one in differences(found) if one.startswith(difference)], differences(found)
    assert all(reason.meaning for reason in found.reasons)


def test_the_pods_own_files_are_no_difference() -> None:
    session = two()
    hosts = {"destination": "/etc/hosts", "type": "bind", "source": "/pod/hosts", "options": ["bind"]}
    session.documents.extend_default_mounts([hosts])
    found = why(session, "create_container", create(mounts=[hosts], workingDir="/x"))
    assert differences(found) == ["working directory: asked /x, the policy has /srv"]


def test_what_would_have_been_dropped_is_no_difference() -> None:
    session = mounted(policy(WEB, allow_capability_dropping=True))
    asked = create(capabilities=caps("CAP_KILL", "CAP_BPF"), workingDir="/x")
    assert differences(why(session, "create_container", asked)) == [
        "working directory: asked /x, the policy has /srv"
    ]


def test_a_required_variable_is_named() -> None:
    session = mounted(policy(container(env_rules=[rule("A=1", required=True), rule("B=2", required=True)])))
    found = why(session, "create_container", create(envList=["B=9"]))
    assert "environment: A is required and is missing" in differences(found)
    assert "environment: B is required and has another value" in differences(found)


def test_no_value_of_a_variable_is_known_to_the_tool() -> None:
    found = why(two(), "create_container", create(envList=["TOKEN=hunter2", "EVIL=hunter2"]))
    assert "hunter2" not in json.dumps(found.to_json())


def test_default_capabilities_are_read_back_from_their_name() -> None:
    names = confcom.create(confcom.PAUSE)["capabilities"]
    text = policy(container(capabilities=names))
    found = why(mounted(text), "create_container", create(capabilities=names, workingDir="/x"))
    assert differences(found) == ["working directory: asked /x, the policy has /srv"]
    found = why(mounted(policy(container(capabilities=None))), "create_container", create())
    assert any("missing" in one for one in differences(found))


def test_a_process_in_a_container_and_one_beside_it() -> None:
    text = policy(external_processes=[EXTERNAL])
    session = started(text)
    found = why(session, "exec_in_container", execute(argList=["sh", "-i"]))
    assert differences(found) == ['command: asked with ["-i"] more at its end']
    with_policy = why(session, "exec_in_container", execute(argList=["sh", "-i"]), text)
    assert differences(with_policy)[0].endswith("(the closest of 1 listed processes)")
    found = why(session, "exec_external", {"argList": ["ls", "-l"], "envList": ["A=1"], "workingDir": "/x"})
    assert differences(found) == [
        'command: asked with ["-l"] more at its end', "working directory: asked /x, the policy has /"
    ]  # fmt: skip
    assert found.asked == 'starting a process in the VM: ["ls", "-l"]'


def test_a_signal_is_compared_where_the_policy_is_given() -> None:
    signal = {"containerID": policies.ID, "signal": 9, "isInitProcess": True, "argList": None}
    found = why(started(), "signal_container_process", signal, policy())
    assert differences(found) == ["signal 9: init of this container takes [15]"]
    process = {**signal, "isInitProcess": False, "argList": ["sh"]}
    found = why(started(), "signal_container_process", process, policy())
    assert differences(found) == ['signal 9: ["sh"] takes [2]']


def test_a_fragment_and_what_was_expected_of_it() -> None:
    answer = load(importing({**IMPORT, "minimum_svn": "9"}), fragment(), feed="g")
    text = denial.message(answer.decision, "load_fragment", 0)
    found = explain(parse_denial(text))
    assert differences(found) == ["feed: the fragment's is g, the policy has f"]
    answer = load(importing({**IMPORT, "minimum_svn": "9"}), fragment(None), 2)
    found = explain(parse_denial(denial.message(answer.decision, "load_fragment", 0)))
    assert found.reasons[0].meaning.startswith("With a version in the envelope")
    assert differences(found) == ["minimum_svn: the policy wants 9 (its envelope says 2)"]


def test_a_cut_message_says_what_is_gone_and_the_policy_brings_it_back() -> None:
    text = policy(SHELL, WEB)
    wrong = create(argList=["web", "x" * 40])
    whole = len(denied(mounted(text), "create_container", wrong)) - 200
    found = why(mounted(text), "create_container", wrong, limit=whole - 200)
    assert found.closest is None
    assert any("without the candidates" in note for note in found.notes)
    found = why(mounted(text), "create_container", wrong, text, limit=whole - 200)
    assert found.closest is not None
    assert found.closest.name == "web (number 2)"
    bare = explain(parse_denial(denied(mounted(text), "create_container", wrong, limit=300)), text)
    # Nothing of the document is left, and the VM's own sentence says it all the same.
    assert bare.point == "create_container"
    assert 'argument 1 is "xxxxx' in bare.said
    assert bare.lines()[0] == "The policy does not allow creating a container."
    assert any(line.startswith("  the VM says: invalid command (argument 1") for line in bare.lines())
    nothing = explain(parse_denial(json.dumps({"decision": "deny", "truncated": ["input", "reason"]})))
    assert "a request that the message no longer names" in nothing.lines()[0]


def spec_of(**of_process: Any) -> dict[str, Any]:
    """A host's specification of the container that `create` asks for."""
    asked = create()
    process = {
        "args": asked["argList"],
        "env": asked["envList"],
        "cwd": asked["workingDir"],
        "user": {"uid": 1000, "gid": 5},
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        "noNewPrivileges": True,
    }
    mounts = [{**asked["mounts"][0], "source": "sandbox:///data/one"}]
    return {"process": process | of_process, "mounts": mounts, "annotations": {}, "linux": {}}


@pytest.mark.parametrize(
    ("of_process", "difference"),
    [
        ({"args": ["web", "--port", "81"]}, 'command: argument 2 is "81", the policy has "80"'),
        ({"cwd": "/"}, "working directory: asked /, the policy has /srv"),
        ({"capabilities": {}}, 'bounding capabilities: missing ["CAP_KILL"]'),
    ],
)
def test_a_specification_stands_in_for_a_request_that_was_cut(
    of_process: dict[str, Any], difference: str
) -> None:
    text = policy(SHELL, WEB)
    session = mounted(text)
    changes = {"args": "argList", "cwd": "workingDir"}
    asked = create(**{changes[key]: value for key, value in of_process.items() if key in changes})
    cut = parse_denial(denied(session, "create_container", asked | {"umask": "0077"}, limit=300))
    found = explain(cut, text, json.dumps(spec_of(**of_process)))
    assert found.point == "create_container"
    assert difference in differences(found)
    assert any("compared is the specification" in note for note in found.notes)


@pytest.mark.parametrize("spec", ["", "[]", "{}", '{"process": 1}', "{"])
def test_what_is_no_specification_is_said_to_be_none(spec: str) -> None:
    cut = parse_denial(json.dumps({"decision": "deny", "truncated": ["input", "reason"]}))
    if spec:
        with pytest.raises(PolicyToolError, match="specification"):
            explain(cut, policy(), spec)
    else:
        assert explain(cut, policy(), spec).closest is None


def test_azures_template_shows_no_candidates_but_its_policy_does() -> None:
    text = confcom.policy(confcom.container("web", ["run"], ["base"]))
    session = opened(text)
    session.enforce("mount_device", device("base", 0))
    session.enforce("mount_overlay", overlay(0))
    wrong = {**confcom.create(confcom.container("web", ["run"], ["base"])), "argList": ["walk"]}
    found = why(session, "create_container", wrong)
    assert found.closest is None
    assert any("--policy" in note for note in found.notes)
    encoded = base64.b64encode(text.encode()).decode()
    assert differences(why(session, "create_container", wrong, encoded)) == [
        'command: argument 0 is "walk", the policy has "run"'
    ]


def test_a_container_without_an_overlay_was_nothing_that_it_could_be() -> None:
    found = why(opened(), "create_container", create())
    assert found.closest is None
    assert any("compared" in note or "nothing was left" in note for note in found.notes)


def test_a_policy_that_could_not_answer_is_said_to() -> None:
    text = 'package policy\nget_properties := {"allowed": true}\n'
    found = why(opened(text), "get_properties", {})
    assert found.reasons[0].error == "policy does not define api_version"
    assert found.reasons[0].meaning == "Without api_version a policy denies everything."


def test_a_flag_that_is_off_has_no_reason_but_a_meaning() -> None:
    found = why(opened(), "get_properties", {})
    assert found.reasons[0].meaning == "The policy has allow_properties_access off."


def test_a_policys_own_reason_is_shown_as_it_is() -> None:
    head = 'package policy\napi_version := "0.12.0"\nget_properties := {"allowed": false}\n'
    found = why(opened(head + 'reason := {"why": "closed on Sundays"}\n'), "get_properties", {})
    assert found.reasons[0].error == "why: closed on Sundays"
    found = why(opened(head), "get_properties", {})
    assert "did not provide a reason" in found.reasons[0].error


# Texts


def test_the_decision_is_found_in_whatever_a_host_made_of_it() -> None:
    text = denied(two(), "create_container", create(argList=["x"]))
    inner = text[text.index("policyDecision<") :]
    body = inner.split()[1]
    for shape in (
        text,
        json.dumps({"ErrorMessage": text, "Result": -1}),
        f'level=error msg="{text}"',
        f"policyDecision< {body[:60]}\n{body[60:]} >policyDecision",
        f"policyDecision< {body[:60]}\\n{body[60:]} >policyDecision",
        base64.b64decode(body).decode(),
        json.dumps(f'level=error msg="{text}"').replace("<", "\\u003c").replace(">", "\\u003e"),
        text.replace("<", "&lt;").replace(">", "&gt;"),
        f"before {inner} and after",
    ):
        assert parse_denial(shape).errors == ("invalid command",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", NO_DOCUMENT),
        ("some other error", NO_DOCUMENT),
        ("policyDecision< AAAA", "ends too early"),
        ("policyDecision< A >policyDecision", "not base64 any more"),
        ("policyDecision< AAAA >policyDecision", "is not JSON"),
        ("policyDecision< W10= >policyDecision", "no JSON object"),
        ("policyDecision< e30= >policyDecision", "no decision that denies"),
        ('{"decision": "allow"}', "no decision that denies"),
        ("{", "is not JSON"),
        (f"policyDecision< {UNENCODED} >policyDecision", "could not be encoded"),
    ],
)
def test_what_carries_no_decision_is_said_to(text: str, problem: str) -> None:
    with pytest.raises(PolicyToolError) as caught:
        parse_denial(text)
    assert problem in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    input=st.dictionaries(st.sampled_from([*create(), "rule", "x"]), json_values, max_size=5),
    reason=json_values | st.fixed_dictionaries({"errors": json_values, "error_objects": json_values}),
    truncated=json_values,
    point=st.sampled_from([*ASKED, ""]),
)
def test_no_document_makes_it_raise(input: Any, reason: Any, truncated: Any, point: str) -> None:
    document = {
        "decision": "deny",
        "input": {**input, "rule": point},
        "reason": reason,
        "truncated": truncated,
    }
    found = explain(parse_denial(json.dumps(document)))
    assert isinstance(found, Explanation)
    assert all(line.isprintable() for line in found.lines())


odd = json_values | st.just(["/data"]) | st.just([{"destination": "/data"}])


@settings(deadline=None)
@given(
    asked=st.dictionaries(st.sampled_from(sorted(create())), odd, max_size=4),
    shown=st.dictionaries(st.sampled_from(sorted(container())), odd, max_size=4),
    point=st.sampled_from(["create_container", "exec_in_container", "exec_external", "load_fragment"]),
)
def test_no_candidate_makes_it_raise(asked: Any, shown: Any, point: str) -> None:
    said = ["invalid command", "invalid mount list: /data,/x", "invalid user", "invalid env list: A"]
    reason = {"errors": said, "error_objects": [container() | shown]}
    document = {"decision": "deny", "input": {**create(), **asked, "rule": point}, "reason": reason}
    assert explain(parse_denial(json.dumps(document))).lines()
    assert denial.sentence(document, point)


@given(st.text())
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    try:
        assert isinstance(parse_denial(text), Denial)
    except PolicyToolError:
        pass


def test_what_a_host_sent_does_not_reach_the_terminal_as_it_is() -> None:
    found = why(two(), "create_container", create(argList=["\x1b[2J\x07"]))
    assert "\x1b" not in "".join(found.lines())


def test_refusals_without_a_document_are_known_too() -> None:
    found = explain_text("container creation denied due to policy: running commands is denied by policy")
    assert found is not None
    assert "no policy yet" in found.reasons[0].meaning
    assert explain_text("no such file") is None


def test_every_reason_of_the_rules_has_a_meaning() -> None:
    import re
    from importlib.resources import files

    rego = files("uvmd_policy_rego") / "rego"
    text = (rego / "reasons.rego").read_text() + (rego / "reasons_fragments.rego").read_text()
    said = re.findall(r'errors contains (?:sprintf\(|concat\("[^"]*", \[\s*)?"([^"]+)"', text)
    assert len(said) > 40
    assert [one for one in said if not meaning("", one)] == []


# The verb


def run(*args: str, input: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(verbs, ["why", *args], input=input)
    return result.exit_code, result.output


def test_the_verb_takes_a_text_a_file_and_standard_input(tmp_path: Path) -> None:
    text = denied(two(), "create_container", create(argList=["web", "--port", "81"]))
    file = tmp_path / "error.txt"
    file.write_text(text)
    for code, output in (run(text), run(str(file)), run("-", input=text), run(input=text)):
        assert code == 0
        assert 'argument 2 is "81", the policy has "80"' in output
    code, output = run("--json", text)
    assert json.loads(output)["closest"]["differences"] == [
        'command: argument 2 is "81", the policy has "80"'
    ]
    rego = tmp_path / "policy.rego"
    rego.write_text(policy(SHELL, WEB))
    assert run("--policy", str(rego), text)[0] == 0


def test_the_verb_knows_refusals_and_refuses_the_rest() -> None:
    code, output = run("mounting is denied by policy")
    assert (code, "no policy yet" in output) == (0, True)
    assert run("something else")[0] != 0

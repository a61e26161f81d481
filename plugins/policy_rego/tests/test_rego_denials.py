"""What a host is told of a denial, and what it is never told."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from uvmd_policy_rego import defaults, denial


def decoded(text: str) -> dict[str, Any]:
    found = re.search(r"policyDecision< (.*) >policyDecision", text)
    assert found
    document: dict[str, Any] = json.loads(base64.b64decode(found.group(1), validate=True))
    return document


def document(**changes: Any) -> dict[str, Any]:
    reason = {"errors": ["invalid command"], "error_objects": [{"command": ["y"]}]}
    return (
        denial.by_reason({"envList": ["A=secret", "B"], "argList": ["x"]}, "create_container", reason)
        | changes
    )


def test_a_denial_is_a_sentence_and_the_document() -> None:
    text = denial.message(document(), "create_container")
    assert text.startswith(
        'The security policy does not allow create_container: invalid command (argument 0 is "x", '
        'the policy has "y"). policyDecision< '
    )
    found = decoded(text)
    assert found["decision"] == "deny"
    assert found["input"] == {
        "argList": ["x"],
        "envList": ["A=<<redacted>>", "B=<<redacted>>"],
        "rule": "create_container",
    }
    assert found["reason"]["error_objects"] == [{"command": ["y"]}]


def sentence(errors: list[str], input: dict[str, Any], *candidates: Any) -> str:
    reason = {"errors": errors, "error_objects": list(candidates)}
    return denial.sentence(denial.by_reason(input, "create_container", reason), "create_container")


def test_the_sentence_says_what_differed_from_the_closest() -> None:
    web, shell = {"command": ["web", "-p", "80"]}, {"command": ["sh"], "working_dir": "/"}
    said = sentence(["invalid command"], {"argList": ["web", "-p", "81"]}, shell, web)
    assert said.endswith('invalid command (argument 2 is "81", the policy has "80").')
    said = sentence(["invalid command"], {"argList": ["web"]}, shell, web)
    assert said.endswith('(asked without ["-p", "80"] at its end).')
    said = sentence(["invalid working directory"], {"workingDir": "/x"}, shell)
    assert said.endswith('(asked "/x", the policy has "/").')
    names = {"bounding": ["A", "B"], "effective": []}
    said = sentence(
        ["capabilities don't match"], {"capabilities": names}, {"capabilities": {"bounding": ["A"]}}
    )
    assert said.endswith('(bounding: too many ["B"]).')
    assert sentence(["invalid user"], {}, web).endswith("invalid user.")
    rule = {"user": {"user_idname": {"strategy": "id", "pattern": "7"}, "umask": "0022"}}
    root = {"user": {"id": "0", "name": "root"}, "umask": "0022"}
    said = sentence(["invalid user"], root, rule)
    assert said.endswith('(asked 0 root, umask 0022, the policy has id "7", umask 0022).')
    named = {**web, "name": "shop"}
    assert sentence(["invalid command"], {"argList": ["sh"]}, named).endswith('for "shop").')


def test_the_sentence_says_what_is_wrong_with_a_mount() -> None:
    rule = {"destination": "/d", "type": "bind", "options": ["ro"], "source": "/s"}
    for changes, words in (
        ({"options": ["rw"]}, 'options is ["rw"], the policy has ["ro"]'),
        ({"type": "none"}, 'type is "none", the policy has "bind"'),
        ({"source": "/x"}, 'source is "/x", the policy has "/s"'),
        ({"destination": "/e"}, "the policy has no mount there"),
    ):
        asked = rule | changes
        error = f"invalid mount list: {asked['destination']},/other"
        said = sentence([error], {"mounts": [asked]}, {"mounts": [rule]})
        assert said.endswith(f"({json.dumps(asked['destination'])}: {words}).")


@given(
    st.lists(st.text(max_size=300) | st.just("policyDecision< e30= >policyDecision"), max_size=3),
    st.lists(st.none() | st.dictionaries(st.just("command"), st.lists(st.text(max_size=300))), max_size=3),
)
def test_no_argument_makes_the_sentence_long_or_look_like_a_document(
    arguments: list[str], candidates: list[Any]
) -> None:
    input = {
        "argList": arguments,
        "workingDir": arguments,
        "capabilities": arguments,
        "user": {"id": arguments, "name": " ".join(arguments)},
    }
    errors = ["invalid command", "invalid working directory", "capabilities don't match", "invalid user"]
    text = sentence(errors, input, *candidates)
    assert len(text) < 1024
    assert "policyDecision" not in text
    assert text.isprintable()


@given(st.lists(st.text(alphabet="ab<=>", max_size=6), max_size=4))
def test_no_value_of_a_variable_is_shown(names: list[str]) -> None:
    envs = [f"{name}=s3cr3t" for name in names]
    text = denial.message(denial.by_reason({"envList": envs}, "exec_external", None), "exec_external")
    assert "s3cr3t" not in json.dumps(decoded(text)) + text


def test_no_list_of_variables_is_an_empty_one() -> None:
    assert denial.cleaned({"envList": None}) == {"envList": []}


def test_default_capabilities_go_by_their_name() -> None:
    names = defaults.UNPRIVILEGED_CAPABILITIES
    caps = {"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": []}
    assert denial.cleaned({"capabilities": caps})["capabilities"] == "[unprivileged]"
    other = caps | {"bounding": list(reversed(names))}
    assert denial.cleaned({"capabilities": other})["capabilities"] == other
    found = denial.by_reason({}, "x", {"error_objects": [{"capabilities": caps}]})
    assert found["reason"]["error_objects"] == [{"capabilities": "[unprivileged]"}]


def test_what_is_too_long_loses_candidates_then_the_request_then_the_reason() -> None:
    reason = {"errors": ["invalid command"], "error_objects": [{"command": ["x" * 200]}]}
    whole = document(reason=reason)
    lengths = {}
    for limit in range(len(denial.wrapped(whole, 0)), 0, -1):
        text = denial.wrapped(whole, limit)
        lengths[tuple(decoded(text).get("truncated", ()))] = len(text)
    steps = ["reason.error_objects", "input", "reason"]
    assert list(lengths) == [tuple(steps[:n]) for n in range(4)]
    # With nothing left to cut it is sent whatever its length.
    assert set(decoded(denial.wrapped(whole, 1))) == {"decision", "truncated"}


def test_the_error_of_a_policy_is_never_cut() -> None:
    found = decoded(denial.wrapped(denial.by_error({"x": "y" * 9000}, "e" * 5000), 3072))
    assert found["policyError"] == "e" * 5000
    assert found["truncated"] == ["input", "reason"]


def test_a_policys_words_cannot_pass_for_a_document() -> None:
    sly = document(reason={"errors": ["policyDecision< e30= >policyDecision"]})
    text = denial.message(sly, "create_container")
    assert text.count("policyDecision<") == 1
    assert decoded(text)["decision"] == "deny"


def test_html_is_escaped_as_go_does() -> None:
    text = denial.wrapped({"a": "<&>"}, 0)
    assert base64.b64decode(text.split()[1]) == b'{"a":"\\u003c\\u0026\\u003e"}'

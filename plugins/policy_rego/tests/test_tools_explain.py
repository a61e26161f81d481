"""A policy in plain words: as text, as JSON, and as the page for reviewers."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import policies
from test_tools_check import HASHES, container

from uvmd_policy_rego.tools.explain import Explanation, as_json, as_text, explain
from uvmd_policy_rego.tools.page import page
from uvmd_policy_rego.tools.reading import read_document

SIGNER = "did:x509:0:sha256:I__iuL25::eku:1.3.6.1.4.1.311.76.59.1.3::subject:CN:Contoso:O:Inc"
IMPORT = {"issuer": SIGNER, "feed": "contoso/infra", "minimum_svn": "7", "includes": ["containers"]}


def explained(*containers: Any, **more: Any) -> Explanation:
    return explain(read_document(policies.policy(*(containers or (container(),)), **more)))


def said(found: Explanation) -> str:
    return " ".join(as_text(found).split())


def test_a_container_is_told_in_sentences() -> None:
    one = container(
        name="web",
        env_rules=[policies.rule("PATH=/bin", required=True), policies.rule("TOKEN=.+", "re2")],
        mounts=policies.container()["mounts"],
    )
    text = said(explained(one))
    for sentence in (
        "web: web --port 80",
        "Directory: /srv",
        "Runs as: the user with the id 1000; groups: any group whose name fits the pattern web.*; umask 0022",
        "Capabilities: exactly these, no more and no fewer bounding: KILL",
        "New rights: programs can gain none (no_new_privileges)",
        "Input and output: the host reads what it prints and writes what it reads",
        "PATH=/bin (must be there; exactly this)",
        "TOKEN=.+ (may be there; whatever fits the pattern, 'TOKEN=a' for one)",
        "/data (a directory that the pod shares, whose path fits the pattern /data/.+; writable",
        "top -b (signals: SIGKILL (9))",
        "Signals: SIGTERM (15)",
        HASHES[0],
    ):
        assert sentence in text, sentence


def test_what_an_older_document_means_is_told_and_not_what_it_says() -> None:
    plain = container()
    for key in ("user", "capabilities", "no_new_privileges", "seccomp_profile_sha256"):
        del plain[key]
    text = said(explained(plain, framework="0.1.0", api="0.10.0"))
    assert "Signals: SIGTERM (15), SIGKILL (9)" in text
    assert "Runs as: any user; groups: any group; umask 0022" in text
    assert "programs may gain some (setuid)" in text


def test_containers_that_the_rules_drop_are_not_promised() -> None:
    plain = container()
    del plain["layers"]
    found = explained(plain, framework="0.3.0", api="0.10.0")
    assert found.headline.startswith("It allows no containers")
    assert any(risk.code == "missing-field" for risk in found.risks)


def test_signers_are_told_by_what_their_name_says() -> None:
    text = said(explained(fragments=[IMPORT | {"required_receipts": ["*"], "parameters": {"a": 1}}]))
    assert "below the authority whose certificate has the fingerprint I__iuL25 (sha256)" in text
    assert "that of Azure's infrastructure fragments" in text
    assert "issued to CN=Contoso, O=Inc" in text
    assert "contoso/infra, version (SVN) 7 or later" in text
    assert "needed from: *" in text


def test_everything_else_that_a_policy_declares_is_told() -> None:
    found = explained(
        external_processes=[policies.EXTERNAL],
        platform_rules=[{"env_rules": [policies.rule("Y=1")], "mounts": []}],
        transparency_trust_lists=[
            {"issuer": "i", "subject": "s", "minimum_svn": "1", "allowed_ledgers": ["*"]}
        ],
        allow_properties_access=True,
    )
    titles = [chapter.anchor for chapter in found.chapters]
    assert titles == ["containers", "processes", "ledgers", "platform", "host"]
    text = said(found)
    assert "root, in the VM itself" in text
    assert "May: list processes and read statistics" in text
    assert "May not: read the agent's stacks" in text


def test_what_is_risky_comes_first_and_once() -> None:
    both = [container(command=[name], allow_elevated=True) for name in ("a", "b")]
    found = explained(*both, external_processes=[policies.EXTERNAL])
    assert [risk.code for risk in found.risks] == ["external-process", "elevated"]
    assert len(found.risks[1].places) == 2
    assert as_text(found).index("LOOK AT THIS FIRST") < as_text(found).index("CONTAINERS THAT MAY RUN")


def test_what_cannot_be_told_is_named() -> None:
    own = policies.policy(container()).replace(
        "create_container := data.framework.create_container", "create_container := data.policy.mine"
    )
    found = explain(read_document(own + 'mine := {"allowed": input.x == 1}\n'))
    assert "a rule that is meant for something else" in said(found)
    lists = policies.policy().replace("containers := ", "x := ")
    lists += "containers := [y | some y in x; input.z]\n"
    found = explain(read_document(lists))
    assert found.untold == ["The containers are computed by a rule; what they hold cannot be told."]
    assert "WHAT CANNOT BE TOLD FROM THE TEXT" in as_text(found)


def test_lists_that_are_put_together_are_told_where_nothing_outside_takes_part() -> None:
    text = policies.policy(container(name="web"))
    text = text.replace("containers := [", "web := [", 1) + "containers := web\n"
    found = explain(read_document(text))
    assert found.untold == []
    assert "web: web --port 80" in said(found)


def test_a_policy_without_a_version_allows_nothing() -> None:
    text = policies.policy(container()).replace('api_version := "0.12.0"\n', "")
    assert explain(read_document(text)).headline == "No container may run."


def test_open_doors_and_legacy_json_are_called_that() -> None:
    legacy = {"allow_all": True}
    found = explain(read_document(json.dumps(legacy)))
    assert found.headline.startswith("An open door")
    assert as_json(found)["legacy_json"] is True
    container_json = {
        "command": {"length": 1, "elements": {"0": "sh"}},
        "layers": {"length": 1, "elements": {"0": HASHES[0]}},
        "env_rules": {"length": 0, "elements": {}}, "mounts": {"length": 0, "elements": {}},
        "working_dir": "/", "allow_elevated": False,
    }  # fmt: skip
    legacy = {"allow_all": False, "containers": {"length": 1, "elements": {"0": container_json}}}
    text = said(explain(read_document(json.dumps(legacy))))
    assert "container 1: sh" in text
    assert "Runs as: any user" in text


def test_fragments_are_told_with_their_blanks() -> None:
    one = json.dumps([container()]).replace('["web", "--port", "80"]', 'parameter("command")')
    text = f'package infra\nsvn := "3"\nframework_version := "0.5.0"\ncontainers := {one}\n'
    found = explain(read_document(text))
    assert "A fragment named infra" in found.headline
    assert "‹parameter command›" in as_text(found)
    assert as_json(found)["svn"] == "3"


def test_the_json_holds_what_the_rules_take() -> None:
    found = as_json(explained(framework="0.2.0", api="0.10.0"))
    assert found["containers"][0]["signals"] == [15, 9, 15]
    assert found["points"]["create_container"] == "framework"
    json.dumps(found)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        for key, value in attrs:
            self.attributes.append((key, value or ""))
            if key == "id":
                assert value not in self.anchors
                self.anchors.add(value or "")
            if key == "href":
                self.links.add((value or "").removeprefix("#"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(content: str) -> _Reader:
    reader = _Reader()
    reader.feed(content)
    reader.close()
    assert reader.open == []
    return reader


def full() -> Explanation:
    return explained(
        container(name="web", allow_elevated=True),
        container(command=["/pause"], env_rules=[policies.rule(".+", "re2")]),
        fragments=[IMPORT],
        external_processes=[policies.EXTERNAL],
        allow_dump_stacks=True,
    )


def test_the_page_is_whole_and_its_links_lead_somewhere() -> None:
    reader = read_page(page(full(), "web.rego"))
    assert reader.links <= reader.anchors
    assert {"risks", "containers", "container-0", "container-1", "signer-0", "process-0"} <= reader.anchors


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    content = page(full(), "web.rego")
    assert "default-src 'none'" in content
    assert not re.search(r"<(script|link|img|iframe|object)|https?:|@import|url\(", content)
    assert {key for key, _ in read_page(content).attributes} <= {
        "lang", "charset", "http-equiv", "content", "name", "class", "href", "id", "aria-label",
    }  # fmt: skip


def test_a_policy_cannot_write_into_the_page() -> None:
    evil = "</code><script>alert(1)</script><img src=x onerror=alert(1)>"
    one = container(
        name=evil, command=[evil], working_dir=evil, env_rules=[policies.rule(evil, "re2")],
        mounts=[{"source": evil, "destination": evil, "type": evil, "options": [evil]}],
        user={"umask": evil, "user_idname": {"pattern": evil, "strategy": "name"}, "group_idnames": []},
    )  # fmt: skip
    content = page(explained(one, fragments=[IMPORT | {"issuer": evil, "feed": evil}]), evil)
    assert "<script" not in content
    assert "<img" not in content
    read_page(content)


def test_a_policy_cannot_hide_or_turn_round_what_it_says() -> None:
    # Written backwards from the override on, and a terminal's order to clear the screen.
    sly = container(command=["run\u202emoor-on", "\x1b[2J", "a\u200bb", "line\nbreak"])
    found = explained(sly)
    assert "hidden-character" in {risk.code for risk in found.risks}
    for text in (as_text(found), page(found, "x")):
        assert not re.search("[\u202e\x1b\u200b]", text)
        assert "run‹U+202E›moor-on" in text
        assert "line‹U+000A›break" in text
    raw = policies.policy(container()).replace('"web"', '"we\u200bb"')
    assert "hidden-character" in {risk.code for risk in explain(read_document(raw)).risks}

"""The gate fails closed: questions, latches, metadata, fragments."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.gates import BROKEN, HELLO, READERS, Panic, gate_with
from uvmd.api.envelopes import Fragment, TrustList
from uvmd.api.policy import Decision, Enforcer
from uvmd.api.testing import POLICY, PlainReader, ScriptedEnforcer
from uvmd.errors import DeadlineExceeded, Failed, Inconsistent, PolicyDenied, Refused
from uvmd.observe.steps import Trace, follow, steps_of
from uvmd.policy.gate import Gate
from uvmd.policy.selection import PolicySettings
from uvmd.policy.stances import CLOSED

# Before a policy


def test_an_open_door_allows_everything_and_narrows_nothing() -> None:
    decision = Gate().ask("create_container", {"envList": ["A=1"]})
    assert (decision.allowed, decision.env, decision.capabilities, decision.stdio) == (True, None, None, True)
    assert not Gate().strict


@pytest.mark.parametrize(("point", "text"), sorted(CLOSED.items()))
def test_a_closed_door_denies_with_the_text_of_the_point(point: str, text: str) -> None:
    gate = Gate("deny")
    with pytest.raises(PolicyDenied, match=f"^refused: {text}$"):
        gate.ask(point, {}, "refused: ")
    assert not gate.strict


def test_a_closed_door_denies_a_point_it_has_never_heard_of() -> None:
    with pytest.raises(PolicyDenied, match="brew_coffee is denied"):
        Gate("deny").ask("brew_coffee", {})


def test_confidential_hardware_closes_the_door_whatever_the_stance_says() -> None:
    gate = Gate("allow", hardware=["sev"])
    assert not gate.logging_allowed
    with pytest.raises(PolicyDenied):
        gate.ask("create_container", {})


def test_an_operator_may_open_nothing_by_a_stance_that_does_not_exist() -> None:
    with pytest.raises(PolicyDenied):
        Gate("Allow").ask("create_container", {})


# Answers


def test_a_yes_is_a_decision_whose_allowed_is_true() -> None:
    gate, enforcer = gate_with(Decision(True, extra={"key": 1}))
    assert gate.strict
    assert gate.ask("mount_device", {}).extra == {"key": 1}
    assert enforcer.points == ["runtime_logging", "mount_device"]


class Lookalike:
    allowed = True


@pytest.mark.parametrize(
    "answer",
    [
        Decision(False),
        Decision(1),  # type: ignore[arg-type]
        Decision("true"),  # type: ignore[arg-type]
        Decision(None),  # type: ignore[arg-type]
        Decision(True, stdio=1),  # type: ignore[arg-type]
        Decision(True, env="PATH=/bin"),
        Decision(True, env=[1]),  # type: ignore[list-item]
        Decision(True, env={"A": "1"}),  # type: ignore[arg-type]
        Decision(True, capabilities=[]),  # type: ignore[arg-type]
        Decision(True, capabilities={"bounding": ["CAP_KILL"]}),
        Decision(True, extra=[]),  # type: ignore[arg-type]
        lambda input: True,
        {"allowed": True},
        "yes",
        Lookalike(),
        type("Sub", (Decision,), {})(True),
        RuntimeError("boom"),
        DeadlineExceeded("late"),
        TimeoutError(),
        PolicyDenied("no"),
        SystemExit(0),
        MemoryError(),
        RecursionError(),
    ],
    ids=repr,
)
def test_everything_else_is_a_no(answer: object) -> None:
    gate, _ = gate_with(answer)
    with pytest.raises(PolicyDenied, match=r"^creation denied: .+"):
        gate.ask("create_container", {"envList": ["A=1"], "capabilities": {}}, "creation denied: ")


def test_a_question_is_a_step_of_the_request_that_asks_it() -> None:
    gate, _ = gate_with(False)
    trace = Trace(0)
    follow(trace)
    with pytest.raises(PolicyDenied):
        gate.ask("create_container", {"envList": ["SECRET=1"]})
    follow(None)
    assert [one.name for one in steps_of(trace.take(), 1 << 62)] == ["policy create_container"]


def test_the_reason_of_a_denial_is_shown() -> None:
    gate, _ = gate_with(Decision(False, reason="policyDecision< e30= >policyDecision"))
    with pytest.raises(PolicyDenied, match=r"^mounting: policyDecision< e30= >policyDecision$"):
        gate.ask("mount_device", {}, "mounting: ")


def test_what_an_exception_says_is_shown_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    gate, _ = gate_with(ValueError("SECRET=hunter2"))
    with caplog.at_level(logging.DEBUG), pytest.raises(PolicyDenied) as caught:
        gate.ask("create_container", {"envList": ["SECRET=hunter2"]})
    assert "hunter2" not in f"{caught.value}{caught.value.__cause__}{caplog.text}"
    assert "ValueError" in str(caught.value)


names = st.lists(st.sampled_from("ABCDEF"), max_size=8)


@given(asked=names, kept=names)
def test_environment_is_kept_in_request_order_and_never_more_than_asked(
    asked: list[str], kept: list[str]
) -> None:
    gate, _ = gate_with(Decision(True, env=kept))
    env = gate.ask("create_container", {"envList": asked}).env
    assert env is not None
    assert set(env) == set(asked) & set(kept)
    assert list(env) == sorted(set(env), key=asked.index)


@given(asked=names, kept=names)
def test_capabilities_are_kept_set_by_set(asked: list[str], kept: list[str]) -> None:
    sets = ("bounding", "effective", "inheritable", "permitted", "ambient")
    gate, _ = gate_with(Decision(True, capabilities={**dict.fromkeys(sets, kept), "more": ["X"]}))
    request = {"capabilities": {**dict.fromkeys(sets, asked), "ambient": []}}
    narrowed = gate.ask("exec_in_container", request).capabilities
    assert narrowed is not None
    assert set(narrowed) == set(sets)
    assert narrowed["ambient"] == ()
    assert set(narrowed["bounding"]) == set(asked) & set(kept)


def test_an_environment_that_was_not_asked_for_stays_empty() -> None:
    gate, _ = gate_with(Decision(True, env=["LD_PRELOAD=/evil"]))
    assert gate.ask("exec_in_container", {"envList": None}).env == ()


# Closing the door, latches


def test_a_closed_door_keeps_the_first_cause_and_the_strictness_and_takes_no_policy() -> None:
    gate, enforcer = gate_with()
    gate.close_door("the policy engine disagrees with its log")
    gate.close_door("second")
    asked = len(enforcer.asked)
    with pytest.raises(PolicyDenied, match=r"^creation: the policy engine disagrees with its log$"):
        gate.ask("create_container", {}, "creation: ")
    assert len(enforcer.asked) == asked
    assert gate.strict
    with pytest.raises(Refused):
        gate.set_policy(PolicySettings())
    with pytest.raises(PolicyDenied, match="disagrees"):
        gate.load_fragment("", "")


def test_a_door_closed_before_a_policy_leaves_the_vm_not_strict() -> None:
    gate = Gate()
    gate.close_door("cause")
    assert not gate.strict
    with pytest.raises(Refused, match="can no longer be changed: cause"):
        gate.set_policy(PolicySettings())


def test_a_failed_undo_ends_changes_in_a_strict_vm() -> None:
    gate, _ = gate_with()
    gate.require_consistent()
    gate.mark("umount /run/mounts/scsi/m1: device or resource busy")
    gate.mark("second")
    with pytest.raises(Inconsistent, match="due to a previous error: umount /run/mounts/scsi/m1"):
        gate.require_consistent()
    assert gate.degraded is None


def test_a_failed_undo_degrades_any_other_vm_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    gate.mark("first")
    gate.mark("second")
    gate.require_consistent()
    assert (gate.degraded, gate.inconsistent) == ("first", None)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


# Metadata


def test_metadata_come_back_when_the_change_fails_and_stay_when_it_does_not() -> None:
    gate, enforcer = gate_with()
    with gate.metadata_transaction():
        enforcer.metadata["kept"] = 1
    with pytest.raises(ValueError, match="boom"), gate.metadata_transaction():
        enforcer.metadata["lost"] = 1
        raise ValueError("boom")
    assert enforcer.metadata == {"kept": 1}


def test_metadata_that_cannot_be_put_back_close_the_door() -> None:
    gate, enforcer = gate_with()

    def fail(snapshot: object) -> None:
        raise OSError(32, "broken pipe")

    enforcer.restore = fail  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="boom"), gate.metadata_transaction():
        raise ValueError("boom")
    with pytest.raises(PolicyDenied, match="metadata could not be put back"):
        gate.ask("get_properties", {})


def test_without_a_snapshot_nothing_is_tried() -> None:
    gate, enforcer = gate_with()

    def fail() -> object:
        raise OSError(32, "broken pipe")

    enforcer.snapshot = fail  # type: ignore[method-assign]
    with pytest.raises(Failed, match="snapshot"), gate.metadata_transaction():
        pytest.fail("the body ran")


# Fragments


KINDS = {
    "": "error loading security policy fragment: ",
    "application/cose-x509+rego": "error loading security policy fragment: ",
    "application/vnd.transparency-trust-list.v1+cose": "error loading transparency trust list: ",
}
TCB = "application/vnd.tcb-reference-info.v1+cose"
INFOS = [TCB, "application/vnd.platform-reference-info.v1+cose"]


@pytest.mark.parametrize("media_type", KINDS)
def test_fragments_pass_an_open_door_silently_and_a_closed_one_not(media_type: str) -> None:
    Gate(envelope_readers=READERS).load_fragment(HELLO, media_type)
    closed = f"^{KINDS[media_type]}loading .* is denied by policy$"
    with pytest.raises(PolicyDenied, match=closed):
        Gate("deny", envelope_readers=READERS).load_fragment(HELLO, media_type)


@pytest.mark.parametrize("media_type", [*KINDS, *INFOS])
@pytest.mark.parametrize("stance", ["allow", "deny", "policy"])
def test_the_envelope_is_read_before_anybody_is_asked(media_type: str, stance: str) -> None:
    if stance == "policy":
        gate, enforcer = gate_with(envelope_readers=READERS)
    else:
        gate, enforcer = Gate(stance, envelope_readers=READERS), ScriptedEnforcer()
    with pytest.raises(Refused, match=r"^not valid$") as caught:
        gate.load_fragment(BROKEN, media_type)
    assert type(caught.value) is Refused
    assert enforcer.fragments == []
    assert "tcb-reference-info-base64" not in gate.security_context()


@pytest.mark.parametrize("media_type", [*KINDS, *INFOS])
@pytest.mark.parametrize("stance", ["allow", "deny", "policy"])
def test_without_a_reader_nothing_that_is_signed_is_taken(media_type: str, stance: str) -> None:
    gate = gate_with()[0] if stance == "policy" else Gate(stance)
    with pytest.raises(Refused, match=r"^no plugin reads signed envelopes \(cose-x509\)"):
        gate.load_fragment(HELLO, media_type)
    other = Gate(stance if stance != "policy" else "allow", envelope_readers={"other": PlainReader})
    with pytest.raises(Refused, match="no plugin reads"):
        other.load_fragment(HELLO, media_type)


def test_the_reader_is_made_when_the_first_artefact_comes_and_once() -> None:
    made: list[PlainReader] = []

    def make() -> PlainReader:
        made.append(PlainReader())
        return made[-1]

    gate = Gate(envelope_readers={"cose-x509": make})
    assert made == []
    for media_type in (*KINDS, *INFOS):
        gate.load_fragment(HELLO, media_type)
    assert len(made) == 1


@pytest.mark.parametrize(
    "answer", [None, "hello", TrustList("did:x", "s", 1, {}), ValueError("SECRET"), Panic()]
)
def test_a_reader_that_is_broken_refuses(answer: object) -> None:
    class Odd(PlainReader):
        def fragment(self, blob: bytes, keys: object) -> Any:
            if isinstance(answer, BaseException):
                raise answer
            return answer

    gate, enforcer = gate_with(envelope_readers={"cose-x509": Odd})
    with pytest.raises(Refused, match=r"^the envelope") as caught:
        gate.load_fragment(HELLO, "")
    assert "SECRET" not in str(caught.value)
    assert enforcer.fragments == []


def test_receipts_are_validated_with_the_keys_that_the_enforcer_has() -> None:
    known = {"ledger": {"kid": ("AA==", ("subject",))}}
    seen: list[object] = []

    class Looking(PlainReader):
        def fragment(self, blob: bytes, keys: object) -> Any:
            seen.append(keys)
            return super().fragment(blob, {})

    gate, enforcer = gate_with(envelope_readers={"cose-x509": Looking})
    enforcer.ledger_keys = lambda: known  # type: ignore[method-assign]
    gate.load_fragment(HELLO, "")
    assert seen == [known]


@pytest.mark.parametrize(
    ("fragment", "media_type", "text"),
    [
        ("aGVsbG8=", "text/html", 'unsupported media type "text/html"'),
        ("not base64", "", "failed to decode fragment"),
    ],
)
def test_a_fragment_that_is_none_is_refused(fragment: str, media_type: str, text: str) -> None:
    with pytest.raises(Refused, match=text):
        Gate(envelope_readers=READERS).load_fragment(fragment, media_type)


class WithoutFragments(ScriptedEnforcer):
    load_fragment = Enforcer.load_fragment
    load_trust_list = Enforcer.load_trust_list


@pytest.mark.parametrize("media_type", KINDS)
def test_an_enforcer_that_takes_no_fragments_says_so(media_type: str) -> None:
    gate = Gate(enforcers={"scripted": WithoutFragments}, selectable=["scripted"], envelope_readers=READERS)
    gate.set_policy(PolicySettings("scripted", POLICY))
    with pytest.raises(PolicyDenied, match=f"^{KINDS[media_type]}this enforcer takes no"):
        gate.load_fragment(HELLO, media_type)


@pytest.mark.parametrize("error", [ValueError("SECRET"), SystemExit(1), MemoryError()], ids=repr)
def test_an_enforcer_that_breaks_over_a_fragment_denies_it(error: BaseException) -> None:
    gate, enforcer = gate_with(envelope_readers=READERS)

    def load(fragment: Fragment) -> None:
        raise error

    enforcer.load_fragment = load  # type: ignore[method-assign]
    with pytest.raises(PolicyDenied, match=f"^error loading .*: {type(error).__name__}$"):
        gate.load_fragment(HELLO, "")


def test_reference_info_is_shown_to_the_containers_to_come_the_newest_wins() -> None:
    gate = Gate("deny", envelope_readers=READERS)
    for blob in (b"old", b"new"):
        gate.load_fragment(base64.b64encode(blob).decode(), TCB)
    with pytest.raises(Refused, match="not valid"):
        gate.load_fragment(BROKEN, TCB)
    assert gate.security_context() == {"tcb-reference-info-base64": base64.b64encode(b"new").decode()}


def test_containers_see_the_policy_and_the_references_as_received() -> None:
    gate = Gate(enforcers={"scripted": ScriptedEnforcer}, selectable=["scripted"])
    gate.set_policy(PolicySettings("scripted", POLICY, "uvm", "envelope"))
    assert gate.security_context() == {
        "security-policy-base64": POLICY,
        "reference-info-base64": "uvm",
        "transparent-reference-info-base64": "envelope",
    }


# A native engine's panic is no Exception, and must be a no all the same.


def test_a_policy_that_cannot_be_told_of_mounts_ends_the_request() -> None:
    gate, enforcer = gate_with()

    def fail(mounts: object) -> None:
        raise Panic

    enforcer.extend_default_mounts = fail  # type: ignore[method-assign]
    with pytest.raises(PolicyDenied, match="could not be told of the pod's mounts: Panic"):
        gate.extend_default_mounts([])
    gate.close_door("cause")
    with pytest.raises(PolicyDenied, match=r"^cause$"):
        gate.extend_default_mounts([])


def test_a_panic_in_a_snapshot_ends_the_request_before_it_began() -> None:
    gate, enforcer = gate_with()

    def fail() -> object:
        raise Panic

    enforcer.snapshot = fail  # type: ignore[method-assign]
    with pytest.raises(Failed, match="Panic"), gate.metadata_transaction():
        pytest.fail("the body ran")


def test_a_panic_over_a_policy_refuses_it() -> None:
    def make(text: str) -> Enforcer:
        raise Panic

    gate = Gate(enforcers={"scripted": make}, selectable=["scripted"])
    with pytest.raises(Refused, match=r"Panic$"):
        gate.set_policy(PolicySettings("scripted", POLICY))
    assert not gate.strict

"""A policy is set once, for the VM that was launched for it, and outlives the daemon."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.gates import gate_with
from uvmd.api.policy import Decision, Enforcer
from uvmd.api.testing import POLICY, ScriptedEnforcer
from uvmd.errors import Failed, PolicyDenied, Refused
from uvmd.policy.gate import Gate
from uvmd.policy.selection import PolicySettings, decode_base64

DIGEST = hashlib.sha256(b"package policy\n").digest()
EMPTY_DIGEST = hashlib.sha256(b"").digest()


# Setting the policy


def test_an_empty_policy_leaves_the_door_open_and_cannot_be_set_again() -> None:
    gate = Gate("deny")
    gate.set_policy(PolicySettings())
    assert gate.ask("create_container", {}).allowed
    assert not gate.strict
    with pytest.raises(Refused, match="security policy has already been set"):
        gate.set_policy(PolicySettings("open_door"))


def test_a_policy_cannot_be_set_twice() -> None:
    gate, enforcer = gate_with()
    with pytest.raises(Refused, match="already been set"):
        gate.set_policy(PolicySettings())
    gate.ask("dump_stacks", {})
    assert enforcer.points[-1] == "dump_stacks"


def test_of_two_policies_prepared_at_once_only_the_first_comes_into_force() -> None:
    made: list[ScriptedEnforcer] = []

    def make(text: str) -> Enforcer:
        made.append(ScriptedEnforcer(text))
        return made[-1]

    gate = Gate(enforcers={"scripted": make}, selectable=["scripted"])
    settings = PolicySettings("scripted", POLICY)
    first, second = gate.prepare(settings), gate.prepare(settings)
    gate.adopt(settings, first)
    with pytest.raises(Refused, match="already been set"):
        gate.adopt(settings, second)
    assert [enforcer.closed for enforcer in made] == [False, True]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (PolicySettings("open_door", POLICY), "Invalid policy for open-door enforcer"),
        (PolicySettings("standard", POLICY), '^error creating .* enforcer: unknown enforcer: "standard"$'),
        (PolicySettings("", POLICY), 'enforcer: unknown enforcer: "rego" is not installed'),
        (PolicySettings("scripted", POLICY), 'enforcer: "scripted" is not among those'),
        (PolicySettings("", "%%%"), "failed to decode base64 security policy"),
        (PolicySettings("", POLICY.rstrip("=")[:-1]), "failed to decode base64 security policy"),
    ],
)
def test_a_refused_policy_changes_nothing_and_may_be_tried_again(settings: PolicySettings, text: str) -> None:
    gate = Gate("deny", enforcers={"scripted": ScriptedEnforcer})
    with pytest.raises(Refused, match=text):
        gate.set_policy(settings)
    with pytest.raises(PolicyDenied):
        gate.ask("create_container", {})
    gate.set_policy(PolicySettings())
    assert gate.ask("create_container", {}).allowed


def test_line_breaks_inside_the_base64_are_tolerated_and_kept() -> None:
    text = POLICY[:4] + "\r\n" + POLICY[4:]
    gate = Gate(enforcers={"scripted": ScriptedEnforcer}, selectable=["scripted"])
    gate.set_policy(PolicySettings("scripted", text))
    assert gate.security_context()["security-policy-base64"] == text


def test_an_enforcer_that_hides_its_policy_is_refused_and_closed() -> None:
    hidden = ScriptedEnforcer()
    hidden.text = ""
    gate = Gate(enforcers={"scripted": lambda text: hidden}, selectable=["scripted"])
    with pytest.raises(Refused, match="does not stand for the policy"):
        gate.set_policy(PolicySettings("scripted", POLICY))
    assert hidden.closed
    assert not gate.strict


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (ValueError("package polici"), "ValueError$"),
        (Refused("rego compilation failed"), "rego compilation failed"),
        (object(), "no enforcer"),
    ],
)
def test_an_enforcer_that_cannot_be_made_is_refused(outcome: object, text: str) -> None:
    def make(policy: str) -> Enforcer:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[return-value]

    gate = Gate(enforcers={"scripted": make}, selectable=["scripted"])
    with pytest.raises(Refused, match=f"error creating security policy enforcer: .*{text}"):
        gate.set_policy(PolicySettings("scripted", POLICY))
    assert gate.ask("create_container", {}).allowed


@pytest.mark.parametrize("answer", [Decision(True), Decision(False), RuntimeError("boom")], ids=repr)
def test_the_policy_decides_whether_the_daemon_may_log(answer: object) -> None:
    told: list[bool] = []
    gate, _ = gate_with(answer, set_logging=told.append)
    allowed = isinstance(answer, Decision) and answer.allowed
    assert told == [allowed]
    assert gate.logging_allowed is allowed


# Confidential hardware


@pytest.mark.parametrize("padding", [0, 16])
def test_a_policy_that_the_vm_was_launched_for_is_accepted(padding: int) -> None:
    gate, _ = gate_with(hardware=["tdx"], host_data={"tdx": lambda: DIGEST + bytes(padding)})
    assert gate.strict


@pytest.mark.parametrize(
    ("launched", "text"),
    [
        (hashlib.sha256(b"another").digest(), "doesn't match HostData"),
        (DIGEST + b"\0" * 15 + b"\1", "doesn't match HostData"),
        (DIGEST[:-1], "not 32 bytes"),
        (b"", "not 32 bytes"),
        (DIGEST.hex(), "not 32 bytes"),
        (OSError(5, "ioctl"), "cannot be read"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("policy", [POLICY, ""], ids=["policy", "empty"])
def test_host_data_fail_closed(launched: object, text: str, policy: str) -> None:
    def read() -> bytes:
        if isinstance(launched, Exception):
            raise launched
        return launched  # type: ignore[return-value]

    gate = Gate("allow", hardware=["sev"], host_data={"sev": read}, enforcers={"scripted": ScriptedEnforcer})
    with pytest.raises(Refused, match=text):
        gate.set_policy(PolicySettings("scripted" if policy else "", policy))
    with pytest.raises(PolicyDenied):
        gate.ask("create_container", {})


def test_on_hardware_that_no_source_claims_even_the_empty_policy_is_refused() -> None:
    gate = Gate(hardware=["sev"], host_data={"tdx": lambda: EMPTY_DIGEST})
    with pytest.raises(Refused, match="no plugin reads the launch data of this VM's sev hardware"):
        gate.set_policy(PolicySettings())


def test_the_empty_policy_is_accepted_where_the_vm_was_launched_for_it() -> None:
    gate = Gate(hardware=["sev"], host_data={"sev": lambda: EMPTY_DIGEST})
    gate.set_policy(PolicySettings())
    assert gate.ask("create_container", {}).allowed


def test_hardware_whose_driver_comes_after_the_start_counts_when_a_policy_comes() -> None:
    seen: list[str] = []
    gate = Gate("deny", find_hardware=lambda: frozenset(seen), host_data={"sev": lambda: bytes(32)})
    seen.append("sev")
    with pytest.raises(Refused, match="doesn't match"):
        gate.set_policy(PolicySettings())
    seen.clear()
    with pytest.raises(Refused, match="doesn't match"):
        gate.set_policy(PolicySettings())


def test_every_kind_of_hardware_that_is_there_must_agree() -> None:
    gate = Gate(hardware=["sev", "tdx"], host_data={"sev": lambda: EMPTY_DIGEST, "tdx": lambda: bytes(48)})
    with pytest.raises(Refused, match="doesn't match"):
        gate.set_policy(PolicySettings())


# A restarted daemon


def restarted(state: Mapping[str, Any], **more: Any) -> Gate:
    gate = Gate(enforcers={"scripted": ScriptedEnforcer}, selectable=["scripted", "open_door"], **more)
    gate.resume(state)
    return gate


def test_a_restarted_daemon_knows_the_policy_the_latches_and_the_references() -> None:
    saved: list[Mapping[str, Any]] = []
    gate, _ = gate_with(save=saved.append)
    gate.mark("umount failed")
    after = restarted(saved[-1])
    assert after.strict
    assert after.inconsistent == "umount failed"
    assert after.security_context() == gate.security_context()
    with pytest.raises(Refused, match="already been set"):
        after.set_policy(PolicySettings())


def test_a_closed_door_stays_closed_after_a_restart() -> None:
    saved: list[Mapping[str, Any]] = []
    gate, _ = gate_with(save=saved.append)
    gate.close_door("cause")
    after = restarted(saved[-1])
    assert after.strict
    with pytest.raises(PolicyDenied, match="cause"):
        after.ask("create_container", {})


BROKEN = [{}, {"v": 2}, {"v": 1, "settings": None}, {"v": 1, "settings": [1, 2, 3, 4, 5]}]


@pytest.mark.parametrize("state", BROKEN)
def test_a_state_that_cannot_be_read_closes_the_door_of_a_strict_vm(state: Mapping[str, Any]) -> None:
    gate = restarted(state)
    assert gate.strict or state.get("settings", 0) is None
    with pytest.raises(PolicyDenied, match="could not be taken up again"):
        gate.ask("create_container", {})


def test_a_policy_whose_plugin_is_gone_after_a_restart_closes_the_door() -> None:
    saved: list[Mapping[str, Any]] = []
    gate_with(save=saved.append)
    gate = Gate()
    gate.resume(saved[-1])
    assert gate.strict
    with pytest.raises(PolicyDenied, match="could not be taken up again"):
        gate.ask("create_container", {})


def test_what_a_daemon_cannot_take_up_is_there_for_the_next_one() -> None:
    saved: list[Mapping[str, Any]] = []
    gate, _ = gate_with(save=saved.append)
    gate.mark("umount failed")
    before = dict(saved[-1])
    # Whose plugin does not load for the one in the middle, and then does.
    Gate(save=saved.append).resume(before)
    assert saved[-1] == {**before, "door_closed": saved[-1]["door_closed"]}
    after = restarted(saved[-1])
    assert after.strict
    assert after.inconsistent == "umount failed"
    assert after.security_context() == gate.security_context()
    with pytest.raises(PolicyDenied, match="could not be taken up again"):
        after.ask("create_container", {})


@pytest.mark.parametrize(
    "state", [{}, {"v": 2, "settings": {"new": 1}}, {"v": 1, "settings": [1, 2, 3, 4, 5]}]
)
def test_a_vm_that_may_be_strict_stays_so_however_often_its_daemon_dies(state: Mapping[str, Any]) -> None:
    saved: list[Mapping[str, Any]] = [state]
    for _ in range(3):
        gate = Gate(save=saved.append)
        gate.resume(saved[-1])
        assert gate.strict
        assert not gate.logging_allowed
        assert state.items() <= saved[-1].items()
    gate.mark("cause")
    assert saved[-1]["inconsistent"] == "cause"


def test_a_policy_that_is_not_known_leaves_a_strict_vm_with_a_closed_door_for_good() -> None:
    saved: list[Mapping[str, Any]] = []
    told: list[bool] = []
    Gate(save=saved.append, set_logging=told.append).fail_closed("unreadable")
    assert told == [False]
    after = restarted(saved[-1])
    assert after.strict
    assert not after.logging_allowed
    assert after.door_closed == "unreadable", "the first cause counts"


def test_a_state_of_the_release_before_says_by_its_policy_whether_the_vm_is_strict() -> None:
    saved: list[Mapping[str, Any]] = []
    gate_with(save=saved.append)
    old = {name: value for name, value in saved[-1].items() if name != "strict"}
    assert restarted(old).strict
    assert not restarted({**old, "settings": None}).strict


def test_a_policy_that_cannot_be_recorded_does_not_come_into_force() -> None:
    def full(state: Mapping[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    enforcer = ScriptedEnforcer()
    gate = Gate(enforcers={"scripted": lambda text: enforcer}, selectable=["scripted"], save=full)
    with pytest.raises(Failed, match="No space left"):
        gate.set_policy(PolicySettings("scripted", POLICY))
    assert enforcer.closed
    assert not gate.strict
    gate.mark("a latch that cannot be saved is a latch all the same")
    assert gate.degraded is not None


# Base64 as Go's standard encoding has it


@given(st.binary(), st.sampled_from(["", "\n", "\r\n"]), st.integers(1, 8))
def test_base64_is_decoded_with_line_breaks_anywhere(data: bytes, line_break: str, width: int) -> None:
    text = base64.b64encode(data).decode()
    broken = line_break.join(text[at : at + width] for at in range(0, len(text), width))
    assert decode_base64(broken, "x") == data


@given(st.text(max_size=12))
def test_a_text_that_is_no_base64_is_refused_without_quoting_it(text: str) -> None:
    try:
        decoded = decode_base64(text, "policy")
    except Refused:
        with pytest.raises(Refused, match=r"^failed to decode policy: not standard base64$"):
            decode_base64(text, "policy")
    else:
        assert len(text.replace("\r", "").replace("\n", "")) == len(base64.b64encode(decoded))


@pytest.mark.parametrize("text", ["YQ", "YQ=", "YQ===", "YQ==YQ==", " YQ==", "YQ==\t", "Y-_=", "ä==="])
def test_padding_and_alphabet_are_those_of_the_standard(text: str) -> None:
    with pytest.raises(Refused):
        decode_base64(text, "x")

"""The enforcer behind the gate: what it narrows, keeps over a restart, and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import enforcers
import policies
import pytest
from policies import ID, create, execute, policy

from uvmd.api import Fragment
from uvmd.api.testing import FakeServices, MemoryState
from uvmd.errors import PolicyDenied, Refused
from uvmd_policy_rego.enforcer import RegoEnforcer, encode, make
from uvmd_policy_rego.remote import Unanswered


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    enforcers.close_all()


def made(
    text: str | None = None, state: MemoryState | None = None, services: FakeServices | None = None
) -> RegoEnforcer:
    return enforcers.enforcer(policy() if text is None else text, state, services)


def mounted(enforcer: RegoEnforcer) -> RegoEnforcer:
    for number, layer in enumerate(("base", "top")):
        assert enforcer.decide("mount_device", policies.device(layer, number)).allowed
    assert enforcer.decide("mount_overlay", policies.overlay(1, 0)).allowed
    return enforcer


def test_what_is_kept_is_in_request_order_and_exec_has_the_containers_streams() -> None:
    for stdio in (True, False):
        text = policy(policies.container(allow_stdio_access=stdio), allow_environment_variable_dropping=True)
        enforcer = mounted(made(text))
        created = enforcer.decide("create_container", create(envList=["TOKEN=1", "EVIL=1", "PATH=/bin"]))
        assert created.allowed
        assert created.env == ["TOKEN=1", "PATH=/bin"]
        assert created.capabilities == policies.caps("CAP_KILL")
        assert created.stdio is stdio
        assert enforcer.decide("exec_in_container", execute()).stdio is stdio


def test_capabilities_that_nobody_named_are_refused_before_any_question() -> None:
    decision = made().decide("create_container", create(capabilities=None))
    assert decision.reason == "capabilities object provided by the UVM to the policy engine is nil"


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (
            '"env_list": {"a": 1}',
            "incorrect type for 'env_list', expected []interface{}, received map[string]",
        ),
        ('"env_list": [1]', "members of env_list from policy must be strings, received json.Number"),
        (
            '"caps_list": "x"',
            "incorrect type for 'caps_list', expected map[string]interface{}, received string",
        ),
        ('"caps_list": {}', "must be an array of interface{}, received <nil>"),
        ('"allow_stdio_access": "x"', "value for 'allow_stdio_access' is not a boolean"),
    ],
)
def test_answers_of_a_wrong_type_are_a_no(result: str, text: str) -> None:
    enforcer = made(
        f'package policy\napi_version := "0.12.0"\ncreate_container := {{"allowed": true, {result}}}\n'
    )
    decision = enforcer.decide("create_container", create())
    assert not decision.allowed
    assert text in decision.reason


def test_a_denial_says_why_in_plain_words_first() -> None:
    reason = mounted(made()).decide("create_container", create(argList=["sh"])).reason
    assert reason.startswith(
        'The security policy does not allow create_container: invalid command (argument 0 is "sh", '
        'the policy has "web"). policyDecision<'
    )


def test_a_restarted_daemon_knows_what_is_mounted_and_started() -> None:
    state = MemoryState()
    before = mounted(made(state=state))
    hosts = {"destination": "/etc/hosts", "type": "bind", "source": "/h", "options": ["bind"]}
    before.extend_default_mounts([hosts])
    assert before.decide("create_container", create(mounts=[hosts])).allowed
    after = made(state=state)
    assert after.snapshot() == before.snapshot()
    assert not after.decide("create_container", create()).allowed
    assert not after.decide("mount_device", policies.device("base", 0)).allowed
    decision = after.decide("exec_in_container", execute())
    assert (decision.allowed, decision.stdio) == (True, True)
    assert after.dump_state() == before.dump_state()


def test_another_policy_starts_anew() -> None:
    state = MemoryState()
    mounted(made(state=state))
    mounted(made(policy(allow_dump_stacks=True), state=state))


def test_metadata_of_an_unknown_version_are_not_guessed() -> None:
    state = MemoryState()
    mounted(made(state=state))
    state.save({**state.load(), "v": 99})
    with pytest.raises(Refused, match="version 99"):
        made(state=state)


class Full(MemoryState):
    full = False

    def save(self, value: Any) -> None:
        self._refuse()
        super().save(value)

    def append(self, entry: Any) -> None:
        self._refuse()
        super().append(entry)

    def _refuse(self) -> None:
        if self.full:
            raise OSError(28, "No space left on device")


def test_a_yes_that_a_restart_would_forget_is_not_given() -> None:
    state = Full()
    enforcer = made(state=state)
    before = enforcer.snapshot()
    state.full = True
    with pytest.raises(PolicyDenied, match=r"does not count: .* could not be kept: No space left on device"):
        enforcer.decide("mount_device", policies.device("base", 0))
    enforcer.restore(before)  # nothing has happened: nothing is written, and no door closes
    state.full = False
    assert enforcer.decide("mount_device", policies.device("base", 0)).allowed


def test_a_rolled_back_change_is_forgotten_for_good() -> None:
    state = MemoryState()
    enforcer = made(state=state)
    snapshot = enforcer.snapshot()
    assert enforcer.decide("mount_device", policies.device("base", 0)).allowed
    enforcer.restore(snapshot)
    assert made(state=state).decide("mount_device", policies.device("base", 0)).allowed


def test_a_validated_fragment_survives_a_restart() -> None:
    one = {"issuer": "i", "feed": "f", "minimum_svn": 1, "includes": ["containers", "namespace"]}
    state, text = MemoryState(), policy(fragments=[one])
    added = policies.policy(policies.container(layers=["extra"])).split("\n")[3]
    code = f'package extra\nsvn := 1\nframework_version := "0.5.0"\n{added}\n'
    enforcer = made(text, state)
    with pytest.raises(PolicyDenied, match="invalid fragment issuer"):
        enforcer.load_fragment(Fragment("j", "f", code))
    enforcer.load_fragment(Fragment("i", "f", code))
    after = made(text, state)
    assert after.decide("mount_device", policies.device("extra", 3)).allowed
    assert after.dump_state()["namespaces"] == ["extra"]


@pytest.mark.parametrize("text", ["%%%", "cGFja2Fn", "bm8gcmVnbw=="])
def test_what_is_no_policy_is_refused_without_quoting_base64(text: str) -> None:
    with pytest.raises(Refused):
        make(enforcers.environment(), text)


def test_the_text_is_as_received() -> None:
    text = encode(policy())
    assert RegoEnforcer(text).text == text
    assert RegoEnforcer(text).wants_user_info
    assert ID not in str(RegoEnforcer(text).dump_state())


# Several questions at once

SCRATCH = ("scratch_mount", {"target": "/run/scratch", "encrypted": True})


def both(enforcer: RegoEnforcer, *numbers: int) -> list[tuple[bool, str]]:
    answers = enforcer.decide_all([SCRATCH, ("mount_overlay", policies.overlay(*numbers))])
    return [(one.allowed, one.reason) for one in answers]


def test_questions_together_are_answered_and_remembered_as_one_by_one() -> None:
    together, apart = made(), made()
    for enforcer in (together, apart):
        for number, layer in enumerate(("base", "top")):
            assert enforcer.decide("mount_device", policies.device(layer, number)).allowed
    assert both(together, 1, 0) == [(True, ""), (True, "")]
    for question in (SCRATCH, ("mount_overlay", policies.overlay(1, 0))):
        assert apart.decide(*question).allowed
    assert together._memory.kept == apart._memory.kept
    again = [enforcer.decide_all([SCRATCH, SCRATCH]) for enforcer in (together, apart)]
    assert [[one.allowed for one in answers] for answers in again] == [[False], [False]]
    assert again[0][0].reason == apart.decide(*SCRATCH).reason


def test_a_no_to_the_second_has_its_reason_and_the_first_can_be_taken_back() -> None:
    enforcer = made()
    assert enforcer.decide("mount_device", policies.device("base", 0)).allowed
    before = enforcer.snapshot()
    (first, _), (second, reason) = both(enforcer, 0)
    assert (first, second) == (True, False)
    enforcer.restore(before)
    assert reason == enforcer.decide("mount_overlay", policies.overlay(0)).reason
    assert enforcer.decide(*SCRATCH).allowed


def test_what_narrows_a_process_is_asked_for_by_itself() -> None:
    text = policy(policies.container(allow_stdio_access=False), allow_environment_variable_dropping=True)
    enforcer = mounted(made(text))
    asked = create(envList=["EVIL=1", "PATH=/bin"])
    _, created = enforcer.decide_all([SCRATCH, ("create_container", asked)])
    assert (created.env, created.stdio) == (["PATH=/bin"], False)


def test_a_policyd_that_ends_over_several_questions_is_one_no(monkeypatch: pytest.MonkeyPatch) -> None:
    enforcer = made()

    def broken(*asked: object) -> None:
        raise Unanswered("it has ended")

    with monkeypatch.context() as patched:
        patched.setattr(enforcer._channel, "ask", broken)
        (answer,) = enforcer.decide_all([SCRATCH, SCRATCH])
        assert not answer.allowed
    assert enforcer.decide(*SCRATCH).allowed, "the next question goes to another policyd"

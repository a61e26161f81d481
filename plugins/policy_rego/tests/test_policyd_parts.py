"""policyd's parts inside of the test: what crosses the socket, what is kept, how another is made."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import enforcers
import policies
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import ID, create, policy

from uvmd.api import Fragment
from uvmd.api.testing import FakeServices, MemoryState
from uvmd.errors import Failed, PolicyDenied, PolicyLost, Refused
from uvmd_policy_rego import protocol
from uvmd_policy_rego.config import PolicyRegoConfig
from uvmd_policy_rego.desk import Desk
from uvmd_policy_rego.engine import Engine, EngineError
from uvmd_policy_rego.kept import Change, Kept, from_json
from uvmd_policy_rego.memory import Memory
from uvmd_policy_rego.policyd.serving import serve
from uvmd_policy_rego.protocol import Broken, receive_answer, receive_question, send_answer, send_question

NAMES = st.sampled_from(["devices", "matches", "own"])
KEYS = st.text(max_size=3)
KINDS = {"devices": "map", "matches": "map", "own": "set"}


@st.composite
def keepings(draw: st.DrawFn) -> Kept:
    made = Kept()
    for name in draw(st.lists(NAMES, unique=True)):
        made.apply([(name, KINDS[name], None, None)])
        for key, text in draw(st.dictionaries(KEYS, st.text(max_size=4))).items():
            made.apply([(name, None, key, text)])
    return made


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    enforcers.close_all()


# What is kept


@given(one=keepings(), other=keepings())
def test_changes_make_one_what_the_other_is(one: Kept, other: Kept) -> None:
    before = one.snapshot()
    changes = one.changes_to(other)
    one.apply(changes)
    assert one == other
    assert one.digest() == other.digest()
    for name, (_, entries) in other.names().items():
        if KINDS[name] == "set":
            assert [*one.names()[name][1]] == [*entries], "a set has its order"
    one.apply(one.changes_to(before))
    assert (one == before, one.digest()) == (True, before.digest())


@given(one=keepings(), other=keepings())
def test_digests_are_equal_where_everything_is(one: Kept, other: Kept) -> None:
    assert (one.digest() == other.digest()) is (one == other)
    again = from_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    assert again.digest() == one.digest()


@pytest.mark.parametrize(
    "changes", [[("a", None, "k", "t")], [("a", "map", None, None), ("a", "set", None, None)], [("a",)]]
)
def test_changes_that_are_none_are_not_applied(changes: list[Any]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Kept().apply(changes)


# The socket


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def soon() -> float:
    return time.monotonic() + 10


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_questions_and_answers_of_any_size_cross(
    pair: tuple[socket.socket, socket.socket], size: int
) -> None:
    ours, theirs = pair

    def answer() -> None:
        question = receive_question(theirs)
        assert question is not None
        send_answer(theirs, question[1] + bytes([question[0]]))

    thread = threading.Thread(target=answer)
    thread.start()
    send_question(ours, 7, b"x" * size, soon())
    assert receive_answer(ours, soon()) == b"x" * size + b"\x07"
    thread.join()


@settings(deadline=None)
@given(data=st.binary(max_size=40))
def test_whatever_comes_is_a_question_the_end_or_refused(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        try:
            question = receive_question(theirs)
        except Broken:
            return
        if question is None:
            assert data == b""
        else:
            op, body = question
            assert data.startswith(struct.pack("<IB", len(body), op) + body)


@settings(deadline=None)
@given(data=st.binary(max_size=40))
def test_whatever_comes_back_is_an_answer_or_refused(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            body = receive_answer(ours, soon())
        except Broken:
            return
        assert data == struct.pack("<I", len(body)) + body


def test_a_question_that_nobody_reads_is_given_up_at_the_deadline(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, _ = pair
    with pytest.raises(TimeoutError):
        send_question(ours, 7, b"x" * (16 << 20), time.monotonic() + 0.02)


def test_an_answer_is_waited_for_until_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(struct.pack("<I", 10) + b"half")
    with pytest.raises(TimeoutError):
        receive_answer(ours, time.monotonic() + 0.02)
    with pytest.raises(TimeoutError):
        receive_answer(ours, time.monotonic() - 1)
    theirs.sendall(struct.pack("<I", protocol.MAX_BYTES + 1))
    with pytest.raises(Broken):
        receive_answer(ours, soon())


# The desk


def load(desk: Desk, text: str, **more: Any) -> dict[str, Any]:
    asked = {"text": text, "policy": "p", "kept": {}, "modules": [], "mounts": [], **more}
    return ask(desk, protocol.LOAD, asked)


def ask(desk: Desk, op: int, asked: Any) -> dict[str, Any]:
    body = asked if isinstance(asked, bytes) else json.dumps(asked).encode()
    answer: dict[str, Any] = json.loads(desk.handle(op, body))
    return answer


def decide(desk: Desk, point: str, input: dict[str, Any]) -> dict[str, Any]:
    return ask(desk, protocol.DECIDE, f"{point}\n{json.dumps(input)}".encode())


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.close()


def test_an_answer_says_what_it_changes_and_no_more(desk: Desk) -> None:
    load(desk, policy())
    devices = [policies.device(layer, number) for number, layer in enumerate(("base", "top"))]
    answers = [decide(desk, "mount_device", device) for device in devices]
    assert answers[0]["changes"] == [
        ["devices", "map", None, None],
        ["devices", None, "/run/mounts/scsi/m0", '="base"'],
    ]
    assert answers[1]["changes"] == [["devices", None, "/run/mounts/scsi/m1", '="top"']]
    changes = decide(desk, "mount_overlay", policies.overlay(1, 0))["changes"]
    ((_, _, key, text),) = [change for change in changes if change[0] == "matches" and change[2]]
    assert key == ID
    assert text.startswith("#"), "a candidate is kept by its id, not as a whole"
    assert len(text) == 33
    assert decide(desk, "create_container", create())["changes"] == [
        ["started", "map", None, None],
        ["started", None, ID, '={"privileged":false}'],
    ]


@pytest.mark.parametrize(
    "value", ['"\\ud800"', "[" * 200 + "]" * 200], ids=["half of a surrogate pair", "nested too deeply"]
)
def test_a_policy_with_lists_that_the_engine_does_not_take_is_refused(desk: Desk, value: str) -> None:
    text = policy().replace("containers :=", f"external_processes := [{value}]\ncontainers :=", 1)
    assert load(desk, text)["error"].startswith("the engine does not take this data: ")
    assert "digest" in load(desk, policy()), "policyd goes on"


def test_data_that_the_engine_does_not_take_is_an_error_of_the_engine() -> None:
    with pytest.raises(EngineError, match="does not take this data"):
        Engine({}, {"a": float("inf")})
    engine = Engine({}, {"a": 1})
    with pytest.raises(EngineError, match="does not take this data"):
        engine.add_data({"a": 2})
    with pytest.raises(EngineError, match="does not take this data"):
        engine.replace_data({"a": float("inf")})


def test_another_desk_goes_on_where_one_ended(desk: Desk) -> None:
    load(desk, policy())
    kept = Kept()
    kept.apply(ask(desk, protocol.HELLO, b"")["fresh"])
    for number, layer in enumerate(("base", "top")):
        kept.apply(decide(desk, "mount_device", policies.device(layer, number))["changes"])
    kept.apply(decide(desk, "mount_overlay", policies.overlay(1, 0))["changes"])
    told = ask(desk, protocol.HELLO, b"")
    assert (told["digest"], told["fresh"]) == (kept.digest(), None)
    other = Desk()
    assert load(other, policy(), kept=kept.to_json()) == {"digest": kept.digest(), "fresh": None}
    assert decide(other, "create_container", create())["allowed"] is True
    before = kept.snapshot()
    kept.apply(decide(other, "unmount_overlay", {"unmountTarget": policies.overlay(1)["target"]})["changes"])
    back: list[Change] = kept.changes_to(before)
    ask(other, protocol.APPLY, {"changes": back})
    assert decide(other, "unmount_overlay", {"unmountTarget": policies.overlay(1)["target"]})["allowed"]
    other.close()


@pytest.mark.parametrize(
    "kept",
    [
        {"matches": ["map", {ID: "#" + "0" * 32}]},
        {"matches": ["map", {ID: "=no json"}]},
        {"matches": ["map"]},
        {"devices": [1, 2]},
    ],
)
def test_what_does_not_fit_the_policy_is_said_so(desk: Desk, kept: dict[str, Any]) -> None:
    assert "does not fit" in load(desk, policy(), kept=kept)["lost"]


def test_metadata_under_any_name_and_of_any_kind_are_kept(desk: Desk) -> None:
    own = 'get_properties := {"allowed": true, "metadata": [%s]}\n'
    one = '{"type": "set", "name": "seen", "action": "add", "value": input.x}'
    text = policy().replace("get_properties := data.framework.get_properties\n", own % one)
    load(desk, text)
    kept = Kept()
    kept.apply(ask(desk, protocol.HELLO, b"")["fresh"])
    values: list[Any] = [{"b": [1, 2.5, None]}, "a", True, "\u2028", {"b": [1, 2.5, None]}]
    for value in values:
        kept.apply(decide(desk, "get_properties", {"x": value})["changes"])
    other = Desk()
    assert load(other, text, kept=kept.to_json())["digest"] == kept.digest()
    assert other._policys.documents.store.document("seen") == [values[:4]]
    other.close()


def test_a_desk_without_a_policy_answers_nothing(desk: Desk) -> None:
    assert ask(desk, protocol.HELLO, b"")["policy"] == ""
    with pytest.raises(Broken):
        decide(desk, "get_properties", {})


# The daemon's side


class Playing:
    """A policyd that answers as the test says."""

    def __init__(self, *bodies: bytes) -> None:
        self._bodies = [*bodies]

    def __call__(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while (question := receive_question(connection)) is not None:
                    if question[0] == protocol.HELLO:
                        send_answer(connection, b"{}")
                    elif not self._bodies:
                        break
                    else:
                        connection.sendall(self._bodies.pop(0))


def framed(answer: Any) -> bytes:
    body = json.dumps(answer).encode()
    return struct.pack("<I", len(body)) + body


YES = {"allowed": True, "env": None, "capabilities": None, "stdio": True}
LOADED = framed({"digest": Kept().digest(), "fresh": []})


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (framed({})[:3], "no answer within"),
        (b"\xff\xff\xff\xff", "policyd has ended"),
        (struct.pack("<I", 4) + b"nono", "makes no sense"),
    ],
)
def test_what_is_no_answer_is_a_denial_and_another_policyd_is_made(answer: bytes, why: str) -> None:
    no = {"allowed": False, "reason": "r", "changes": [], "digest": Kept().digest()}
    services = FakeServices(Playing(LOADED, answer, LOADED, framed(no)))
    config = PolicyRegoConfig.model_validate({"decision_timeout_s": 0.05})
    enforcer = enforcers.enforcer(policy(), None, services, config)
    denied = enforcer.decide("get_properties", {"envList": ["SECRET=1"]})
    assert not denied.allowed
    assert why in denied.reason
    assert "policyDecision< " in denied.reason
    assert enforcer.decide("get_properties", {}).reason == "r"
    assert len(services.starts) == 2


@pytest.mark.parametrize(
    "answer",
    [
        {"digest": "0" * 64, "fresh": None},
        {"digest": "1" * 64, "fresh": []},
        {"lost": "it does not fit"},
        {"error": "no policy"},
    ],
)
def test_a_policy_that_cannot_be_brought_back_is_lost_for_good(answer: dict[str, Any]) -> None:
    state = MemoryState()
    kept = Kept()
    changes = [["devices", "map", None, None], ["devices", None, "k", "=1"]]
    kept.apply(changes)  # type: ignore[arg-type]
    yes = framed({**YES, "changes": changes, "digest": kept.digest()})
    answers = LOADED, yes, b"\xff" * 4, framed(answer)
    enforcer = enforcers.enforcer(policy(), state, FakeServices(Playing(*answers)))
    assert enforcer.decide("mount_device", {}).allowed
    assert not enforcer.decide("mount_device", {}).allowed
    for _ in range(2):
        with pytest.raises(PolicyLost):
            enforcer.decide("mount_device", {})
    assert "error" in enforcer.dump_state()
    with pytest.raises(Refused):
        enforcers.enforcer(policy(), state, FakeServices(Playing(framed(answer))))


def test_an_answer_whose_digest_is_another_closes_the_door() -> None:
    yes = framed({**YES, "changes": [], "digest": "5" * 64})
    enforcer = enforcers.enforcer(policy(), None, FakeServices(Playing(LOADED, yes)))
    with pytest.raises(PolicyLost, match="not what was recorded"):
        enforcer.decide("mount_device", {})


@pytest.mark.parametrize("changes", [[["a", None, "k", "t"]], [1], 5, [["a", "map", None]]])
def test_changes_that_make_no_sense_close_the_door(changes: Any) -> None:
    yes = framed({**YES, "changes": changes, "digest": Kept().digest()})
    enforcer = enforcers.enforcer(policy(), None, FakeServices(Playing(LOADED, yes)))
    with pytest.raises(PolicyLost, match="makes no sense"):
        enforcer.decide("mount_device", {})


def test_fragments_and_mounts_that_policyd_does_not_answer_for_are_refused() -> None:
    enforcer = enforcers.enforcer(policy(), None, FakeServices(Playing(LOADED)))
    with pytest.raises(PolicyDenied, match="could not answer"):
        enforcer.load_fragment(Fragment("i", "f", "package x"))
    with pytest.raises(Failed, match="default mounts"):
        enforcer.extend_default_mounts([{"destination": "/x"}])
    assert not enforcer.decide("get_properties", {}).allowed


def test_a_service_that_does_not_start_refuses_the_policy() -> None:
    with pytest.raises(Refused, match=r"could not be started|policyd has ended"):
        enforcers.enforcer(policy(), None, FakeServices())


def test_a_long_log_becomes_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uvmd_policy_rego.memory._LONGEST_LOG", 3)
    state = MemoryState()
    memory = Memory(state, "p")
    for number in range(6):
        memory.add(mounts=[{"n": number}])
        assert Memory(state, "p").mounts == memory.mounts
        assert len(state.entries()) <= 3
    assert Memory(state, "another").mounts == []


def test_a_closed_listener_ends_the_service() -> None:
    services = FakeServices(serve)
    enforcer = enforcers.enforcer(policy(), None, services)
    enforcer.close()
    assert not enforcer._ready

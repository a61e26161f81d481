"""What a daemon keeps of its questions, and that it is the session that was."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import enforcers
import policies
import pytest
from policies import ID, create, device, overlay, policy
from test_rego_fragments import IMPORT, fragment

from uvmd.api import Fragment
from uvmd.api.testing import MemoryState
from uvmd_policy_rego import recording
from uvmd_policy_rego.config import PolicyRegoConfig
from uvmd_policy_rego.enforcer import RegoEnforcer
from uvmd_policy_rego.replay import replay
from uvmd_policy_rego.tools.errors import PolicyToolError
from uvmd_policy_rego.tools.record import read_record, session_of


def made(path: Path | None, text: str = "", state: MemoryState | None = None) -> RegoEnforcer:
    config = PolicyRegoConfig(record="" if path is None else str(path))
    return enforcers.enforcer(text or policy(fragments=[IMPORT]), state, None, config)


def asked(enforcer: RegoEnforcer) -> list[bool]:
    """A life with everything that is recorded; what was allowed of the questions."""
    answers = [enforcer.decide("mount_device", device("base", 0))]
    before = enforcer.snapshot()
    enforcer.decide("mount_device", device("top", 1))
    enforcer.restore(before)
    enforcer.snapshot()
    answers.append(enforcer.decide("mount_device", device("top", 1)))
    hosts = {"destination": "/etc/hosts", "type": "bind", "source": "/h", "options": ["bind"]}
    enforcer.extend_default_mounts([])
    enforcer.extend_default_mounts([hosts])
    enforcer.load_fragment(Fragment("did:x", "f", fragment(external_processes=[policies.EXTERNAL])))
    enforcer.snapshot()
    answers.append(enforcer.decide("mount_overlay", overlay(1, 0)))
    answers.append(enforcer.decide("create_container", create(mounts=[hosts])))
    answers.append(enforcer.decide("create_container", create()))
    return [answer.allowed for answer in answers]


def test_a_record_replays_to_the_same_answers_and_the_same_metadata(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    enforcer = made(path)
    assert asked(enforcer) == [True, True, True, True, False]
    session = session_of(read_record(str(path)), "one")
    kinds = [call["kind"] for call in session["calls"]]
    assert kinds.count("begin") == kinds.count("end") == 3
    answers = replay(json.loads(json.dumps(session)))["calls"]
    allowed = [answer["allowed"] for answer in answers if "allowed" in answer]
    assert allowed == [True, True, True, True, True, True, False]


def test_a_restarted_daemon_goes_on_with_the_record_and_another_policy_begins_one(tmp_path: Path) -> None:
    path, state = tmp_path / "record.jsonl", MemoryState()
    assert made(path, state=state).decide("mount_device", device("base", 0)).allowed
    assert not made(path, state=state).decide("mount_device", device("base", 0)).allowed
    session = session_of(read_record(str(path)), "one")
    assert [call["allowed"] for call in replay(session)["calls"]] == [True, False]
    made(path, policy(allow_dump_stacks=True)).decide("dump_stacks", {})
    assert [call["point"] for call in session_of(read_record(str(path)), "x")["calls"]] == ["dump_stacks"]


def test_nothing_is_recorded_unless_the_configuration_names_a_file(tmp_path: Path) -> None:
    assert PolicyRegoConfig().record == ""
    made(None).decide("dump_stacks", {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PolicyToolError, match="keeps no record there"):
        read_record(str(tmp_path / "record.jsonl"))


def test_only_its_owner_reads_a_record_and_a_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    made(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = tmp_path / "other"
    other.write_text("mine\n")
    path.unlink()
    path.symlink_to(other)
    record = recording.Record(str(path))
    record.add({"kind": "begin"})
    assert other.read_text() == "mine\n"


def test_a_record_that_cannot_be_written_ends_and_the_policy_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "missing" / "record.jsonl", tmp_path):
        assert made(path).decide("mount_device", device("base", 0)).allowed
    path = tmp_path / "record.jsonl"
    enforcer = made(path)
    monkeypatch.setattr(recording, "MAX_BYTES", 10)
    size = path.stat().st_size
    assert enforcer.decide("mount_device", device("base", 0)).allowed
    assert path.stat().st_size == size


@pytest.mark.parametrize("text", ["", "{}\n", "no json\n", '{"v":9,"policy":""}\n', "[1]\n", b"\xff\n"])
def test_what_is_no_record_is_said_to_be_none(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PolicyToolError, match="record"):
        read_record(str(path))


def test_a_line_that_is_being_written_is_not_read_yet(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    made(path).decide("dump_stacks", {})
    with path.open("a") as file:
        file.write('{"kind":"enf')
    assert len(session_of(read_record(str(path)), ID)["calls"]) == 1

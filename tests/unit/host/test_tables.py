"""The registry's states, the journal's files, ids, and what a container record says."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.errors import (
    ContainerExists,
    ContainerNotFound,
    ContainerStopped,
    DeadlineExceeded,
    InvalidContainerId,
    InvalidState,
    ProcessNotFound,
    Refused,
)
from uvmd.host import context, parts
from uvmd.host.containers import Container, State
from uvmd.host.journal import Journal, container_entry, read_container
from uvmd.host.processes import Kind, Process
from uvmd.host.registry import Registry
from uvmd.host.requests import NULL_ID, ExecuteRequest, check_new_id, check_strict_id

__all__ = ["context", "parts"]


def known(registry: Registry, state: State = State.RUNNING, name: str = "c1") -> Container:
    container = Container(name, "", init=Process(1, Kind.INIT, name, pid=100))
    registry.add(container)
    registry.advance(container, state)
    return container


def test_states_only_go_forward() -> None:
    registry = Registry()
    container = known(registry)
    assert not registry.advance(container, State.CREATED)
    assert registry.advance(container, State.TERMINATED)
    assert not registry.advance(container, State.RUNNING)
    assert container.state is State.TERMINATED


def test_watchers_hear_each_change_once_and_nothing_of_a_failed_create() -> None:
    registry, heard = Registry(), list[tuple[str, str]]()
    registry.watch(lambda event, container: heard.append((event, container.id)))
    failed = known(registry, State.CREATING, "failed")
    registry.remove(failed)
    container = known(registry, State.CREATED)
    for state in (State.RUNNING, State.RUNNING, State.TERMINATED, State.RUNNING):
        registry.advance(container, state)
    registry.remove(container)
    assert heard == [("created", "c1"), ("started", "c1"), ("exited", "c1"), ("deleted", "c1")]


@pytest.mark.parametrize(("fails", "expected"), [(False, ["started", "exited"]), (True, ["exited"])])
def test_an_end_during_the_start_is_heard_after_it(fails: bool, expected: list[str]) -> None:
    registry, heard = Registry(), list[str]()
    container = known(registry, State.CREATED)
    registry.watch(lambda event, _: heard.append(event))
    with contextlib.suppress(OSError), registry.starting(container):
        registry.advance(container, State.TERMINATED)
        assert heard == []
        if fails:
            raise OSError
        assert not registry.advance(container, State.RUNNING)
    assert heard == expected


def test_an_end_just_after_the_start_is_heard_at_once() -> None:
    registry, heard = Registry(), list[str]()
    container = known(registry, State.CREATED)
    registry.watch(lambda event, _: heard.append(event))
    with registry.starting(container):
        registry.advance(container, State.RUNNING)
        registry.advance(container, State.TERMINATED)
    assert heard == ["started", "exited"]


@given(st.lists(st.sampled_from(State), max_size=8))
def test_any_order_of_changes_is_monotonic(changes: list[State]) -> None:
    registry = Registry()
    container = known(registry, State.CREATING)
    seen = [container.state]
    for change in changes:
        registry.advance(container, change)
        seen.append(container.state)
    assert seen == sorted(seen)


def test_a_container_in_creation_is_hidden_but_its_id_is_taken() -> None:
    registry = Registry()
    container = known(registry, State.CREATING)
    with pytest.raises(InvalidState):
        registry.get("c1")
    with pytest.raises(ContainerExists):
        registry.add(Container("c1", ""))
    with pytest.raises(ContainerExists):
        registry.require_free("c1")
    registry.remove(container)
    registry.require_free("c1")
    with pytest.raises(ContainerNotFound):
        registry.get("c1")


def test_only_one_start_is_under_way() -> None:
    registry = Registry()
    container = known(registry, State.CREATED)
    with registry.starting(container):
        with pytest.raises(InvalidState, match="being started"), registry.starting(container):
            pass
    with registry.starting(container):
        pass


def test_execs_enter_running_containers_only() -> None:
    registry = Registry()
    container = known(registry, State.CREATED)
    with pytest.raises(InvalidState), registry.entering(container):
        pass
    registry.advance(container, State.RUNNING)
    with registry.entering(container):
        assert container.entering == 1
    assert container.entering == 0
    assert container.init is not None
    container.init.status = 0
    with pytest.raises(ContainerStopped), registry.entering(container):
        pass


def test_a_delete_waits_for_what_is_being_started() -> None:
    registry = Registry()
    container = known(registry, State.CREATED)
    with registry.starting(container):
        with pytest.raises(DeadlineExceeded), registry.deleting(container, 0):
            pass
    assert not container.deleting
    inside = threading.Event()

    def start() -> None:
        with registry.starting(container):
            inside.set()

    thread = threading.Thread(target=start)
    thread.start()
    inside.wait(5)
    with registry.deleting(container, 5):
        assert container.deleting
    thread.join()


def test_a_delete_that_fails_can_be_tried_again() -> None:
    registry = Registry()
    container = known(registry, State.TERMINATED)
    with pytest.raises(KeyError), registry.deleting(container, 0):
        raise KeyError
    with registry.deleting(container, 0):
        pass


def test_processes_are_found_where_they_belong() -> None:
    registry = Registry()
    container = known(registry)
    child = Process(2, Kind.EXEC, "c1")
    outside = Process(3, Kind.EXTERNAL, NULL_ID)
    for process, pid in ((child, 101), (outside, 102)):
        registry.expect(process)
        registry.started(process, pid)
    assert registry.process("c1", 100) is container.init
    assert registry.process("c1", 101) is child
    assert registry.process(NULL_ID, 102) is outside
    for name, pid in (("c1", 102), (NULL_ID, 101), (NULL_ID, 100)):
        with pytest.raises(ProcessNotFound):
            registry.process(name, pid)
    registry.forget(child)
    registry.forget(outside)
    assert registry.by_slot(2) is None
    assert registry.external() == []


texts = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)


@given(name=texts, tee=texts, state=st.sampled_from(State), allowed=st.booleans(), slot=st.integers(1, 2**40))
def test_what_is_recorded_comes_back(name: str, tee: str, state: State, allowed: bool, slot: int) -> None:
    container = Container(
        name,
        "a",
        bundle="/b",
        tee_log=tee,
        stdio_allowed=allowed,
        init=Process(slot, Kind.INIT, name, args=("x", name), pid=5, start_time=6),
        rlimits=[{"type": "x"}],
    )
    entry = container_entry(container, state, "")
    back = read_container(entry)
    assert container_entry(back, state, "") == entry
    assert back.state is state


def test_entries_replace_each_other_and_go(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    container = Container("c1", "")
    journal.save(container)
    journal.save(container, doing="deleting")
    assert [entry["doing"] for entry in journal.containers()] == ["deleting"]
    journal.remove("c1")
    journal.remove("c1")
    assert os.listdir(tmp_path / "journal") == []


@pytest.mark.parametrize(
    ("old", "new", "doing"),
    [(True, "whole", "old"), (True, "cut", "old"), (False, "whole", "new"), (False, "cut", None)],
)
def test_a_daemon_that_dies_while_it_writes_leaves_one_whole_entry(
    tmp_path: Path, old: bool, new: str, doing: str | None
) -> None:
    journal = Journal(str(tmp_path))
    container = Container("c1", "")
    folder = tmp_path / "journal"
    journal.save(container, doing="new")
    text = (folder / "c1.json").read_text()
    journal.save(container, doing="old")
    if not old:
        journal.remove("c1")
    (folder / "c1.new").write_text(text if new == "whole" else text[:50])
    assert [entry["doing"] for entry in journal.containers()] == ([doing] if doing else [])
    assert os.listdir(folder) == (["c1.json"] if doing else [])


def test_an_unreadable_entry_is_put_aside_once(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    (tmp_path / "journal" / "x.json").write_text("{")
    assert list(journal.containers()) == []
    assert os.listdir(tmp_path / "journal") == ["x.unreadable"]


@given(st.text(max_size=140))
def test_an_accepted_id_is_one_safe_path_component(text: str) -> None:
    try:
        check_new_id(text, strict=False)
    except InvalidContainerId:
        return
    assert os.path.basename(text) == text
    assert text.isascii()
    assert text not in ("", ".", "..", NULL_ID)
    assert not text.startswith(("-", "."))


@pytest.mark.parametrize("good", ["a", "A_b-c.9", "0" * 128])
def test_ordinary_ids_are_accepted(good: str) -> None:
    check_new_id(good, strict=False)
    check_strict_id(good, strict=False)
    with pytest.raises(Refused):
        check_strict_id(good, strict=True)


def test_the_vm_s_id_is_fine_where_an_id_is_only_looked_up() -> None:
    check_strict_id(NULL_ID, strict=True)


def test_a_request_shows_no_arguments_and_no_environment() -> None:
    request = ExecuteRequest(args=("hunter2",), env={"A": "hunter2"}, oci_process={"env": ["hunter2"]})
    assert "hunter2" not in repr(request)

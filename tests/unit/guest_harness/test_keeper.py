"""A guest that tests share: looked over after each, and replaced when one spoilt it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from uvmd.api.testing.guest import keeper
from uvmd.api.testing.guest.keeper import Keeper


class Spoken:
    """A guest that answers with what a test put into it."""

    def __init__(self) -> None:
        self.closed = False
        self.running = True
        self.machine = self
        self.held: dict[str, list[str]] = {"mounts": ["/"]}
        self.alarm = ""

    def be_steady(self) -> None:
        self.held["descriptors of the monitor"] = ["socket"]

    def assert_kernel_is_calm(self) -> None:
        assert not self.alarm, self.alarm

    def call(self, function: Callable[..., Any]) -> dict[str, list[str]]:
        return {kind: list(names) for kind, names in self.held.items()}

    def log(self) -> str:
        return "serving"

    def kernel_log(self) -> list[str]:
        return ["Linux version", "a line"]

    def close(self) -> None:
        self.closed = True


class Node:
    """What the keeper sees of a test."""

    def __init__(self, **funcargs: object) -> None:
        self.stash = pytest.Stash()
        self.funcargs = funcargs


class Report:
    def __init__(self, failed: bool) -> None:
        self.failed = failed
        self.sections: list[tuple[str, str]] = []


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Keeper[Any]:
    # What is on its way out gets no moment here.
    impatient = keeper.assert_nothing_left
    monkeypatch.setattr(keeper, "assert_nothing_left", lambda guest, before: impatient(guest, before, 0))
    return Keeper(Spoken)


def run(kept: Keeper[Any], node: Any, test: Callable[[Spoken], None] = lambda guest: None) -> Spoken:
    """Run a test with the guest, as a fixture does."""
    lent = kept.lend(node)
    guest: Spoken = next(lent)
    test(guest)
    with pytest.raises(StopIteration):
        next(lent)
    return guest


def test_tests_share_a_guest_that_is_as_it_was(kept: Keeper[Any]) -> None:
    first = run(kept, Node())
    assert run(kept, Node()) is first
    assert not first.closed
    kept.close()
    assert first.closed


def test_what_is_left_or_an_alarm_of_the_kernel_fails_and_ends_the_guest(kept: Keeper[Any]) -> None:
    for spoil, text in (
        (lambda guest: guest.held["mounts"].append("/run/x"), r"mounts: \+ /run/x"),
        (lambda guest: setattr(guest, "alarm", "BUG: a use"), "BUG: a use"),
    ):
        lent = kept.lend(Node())
        guest = next(lent)
        spoil(guest)
        with pytest.raises(AssertionError, match=text):
            next(lent)
        assert guest.closed
    assert not run(kept, Node()).closed


def test_a_guest_that_the_test_ended_is_not_asked(kept: Keeper[Any]) -> None:
    first = run(kept, Node(), lambda guest: guest.close())
    assert run(kept, Node()) is not first


def test_a_failure_ends_with_what_the_guest_says_and_with_its_end(kept: Keeper[Any]) -> None:
    node: Any = Node()

    def fail(guest: Spoken) -> None:
        node.funcargs["guest"] = guest
        report: Any = Report(failed=True)
        keeper.tell_of_failure(node, report, "guest")
        assert report.sections == [
            ("uvmd's log in the guest", "serving"),
            ("the guest's kernel", "Linux version\na line"),
        ]

    assert run(kept, node, fail).closed


def test_a_test_that_passed_says_nothing(kept: Keeper[Any]) -> None:
    report: Any = Report(failed=False)
    keeper.tell_of_failure(Node(guest=Spoken()), report, "guest")  # type: ignore[arg-type]
    assert report.sections == []

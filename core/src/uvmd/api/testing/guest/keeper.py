"""A guest that tests share: made when first asked for, looked over after each, made anew after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import pytest

from uvmd.api.testing.guest.leaks import Holdings, assert_nothing_left, holdings
from uvmd.api.testing.guest.vm import Vm

G = TypeVar("G", bound=Vm)
_failed = pytest.StashKey[bool]()


class Keeper(Generic[G]):
    """Keeps one guest.

    Args:
        make: returns a running guest.
    """

    def __init__(self, make: Callable[[], G]) -> None:
        self._make = make
        self._guest: G | None = None
        self._before: Holdings = {}

    def lend(self, node: pytest.Item) -> Iterator[G]:
        """Yield the guest to a test; afterwards it must hold what it held before, and its kernel be calm."""
        guest = self._ready()
        yield guest
        if node.stash.get(_failed, False):
            self.close()
        elif not guest.closed:
            try:
                guest.be_steady()
                guest.assert_kernel_is_calm()
                assert_nothing_left(guest, self._before)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """End the guest; the next test gets another."""
        if self._guest is not None:
            self._guest.close()

    def _ready(self) -> G:
        if self._guest is None or self._guest.closed:
            self._guest = self._make()
            self._guest.be_steady()
            self._guest.assert_kernel_is_calm()
            self._before = self._guest.call(holdings)
        return self._guest


def tell_of_failure(item: pytest.Item, report: pytest.TestReport, *names: str) -> None:
    """Note that a test failed, and let the report end with what its guest says.

    Args:
        item: the test.
        report: of one of its phases.
        names: of fixtures, the first that the test has is its guest.
    """
    if report.failed:
        item.stash[_failed] = True
        fixtures: dict[str, Any] = getattr(item, "funcargs", {})
        guest = next((fixtures[name] for name in names if name in fixtures), None)
        if guest is not None and not guest.closed:
            report.sections += describe(guest)


def describe(guest: Vm) -> list[tuple[str, str]]:
    """What a guest can tell about a test that failed."""
    sections = []
    try:
        if guest.machine.running:
            sections.append(("uvmd's log in the guest", guest.log()))
            sections.append(("the guest's kernel", "\n".join(guest.kernel_log()[-40:])))
    except Exception as error:  # whatever it is, the test's own failure is the news
        sections.append(("the guest", str(error)))
    return sections

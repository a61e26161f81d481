"""Fixtures of guest tests; loaded for every test of the repository, so it imports nothing heavy.

A test that uses one of them is a guest test: it is marked so, left out of every other run,
and run alone by `make guest-test` (option ``--guest``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from guest.harness.guest import Guest
    from guest.harness.leaks import Holdings
    from guest.harness.profiles import Profile
    from guest.harness.snapshots import Snapshot

_FIXTURES = {"guest", "fresh_guest", "base_snapshot", "uvm_image"}
_left_out = pytest.StashKey[int]()
_failed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--guest", action="store_true", help="run the tests that need a guest, and no others")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "guest: runs in a virtual machine; only with --guest")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--guest")
    for item in items:
        if _FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("guest")
            item.add_marker("root")
    others = [item for item in items if bool(item.get_closest_marker("guest")) != wanted]
    if others:
        # Left out by the choice of a run, not skipped: the other run has them.
        config.stash[_left_out] = 0 if wanted else len(others)
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := config.stash.get(_left_out, 0):
        terminalreporter.write_line(f"{count} guest tests are for: make guest-test")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        item.stash[_failed] = True
        funcargs = getattr(item, "funcargs", {})
        guest = funcargs.get("guest") or funcargs.get("fresh_guest")
        if guest is not None and not guest.closed:
            report.sections += describe(guest)


def describe(guest: Guest) -> list[tuple[str, str]]:
    """What a guest can tell about a test that failed."""
    sections = []
    try:
        if guest.machine.running:
            sections.append(("uvmd's log in the guest", guest.daemon.log()))
            sections.append(("the guest's kernel", "\n".join(guest.kernel_log()[-40:])))
    except Exception as error:  # whatever it is, the test's own failure is the news
        sections.append(("the guest", str(error)))
    return sections


@pytest.fixture(scope="module")
def profile() -> Profile:
    """The kind of guest; a module overrides it, say with ``params``, to run in others."""
    from guest.harness.profiles import PROFILES

    return PROFILES["v2"]


@pytest.fixture(scope="module")
def uvmd_settings() -> str:
    """TOML lines that a module's uvmd has been started with; a module overrides it to have some.

    They are part of the saved guest, so no test pays for a restart.
    """
    return ""


@pytest.fixture(scope="session")
def base_snapshot() -> Callable[..., Snapshot]:
    """The saved guest of a profile (and settings), uvmd running in it; made when it is missing."""
    from guest.harness.snapshots import ready

    return ready


class Keeper:
    """The guest of a module: restored when first asked for, and again after a test spoilt it."""

    def __init__(self, restore: Callable[[], Guest]) -> None:
        self._restore = restore
        self._guest: Guest | None = None
        self._before: Holdings = {}

    def guest(self) -> Guest:
        from guest.harness.leaks import holdings

        if self._guest is None or self._guest.closed:
            self._guest = self._restore()
            self._guest.assert_kernel_is_calm()
            self._before = self._guest.call(holdings)
        return self._guest

    def check(self) -> None:
        """Nothing may be left behind, and the kernel must be calm."""
        from guest.harness.leaks import assert_nothing_left

        assert self._guest is not None
        if not self._guest.closed:
            self._guest.assert_kernel_is_calm()
            assert_nothing_left(self._guest, self._before)

    def spoilt(self) -> None:
        if self._guest is not None:
            self._guest.close()


@pytest.fixture(scope="module")
def _keeper(profile: Profile, uvmd_settings: str, base_snapshot: Callable[..., Snapshot]) -> Iterator[Keeper]:
    keeper = Keeper(lambda: base_snapshot(profile, uvmd_settings).restore())
    yield keeper
    keeper.spoilt()


@pytest.fixture
def guest(request: pytest.FixtureRequest, _keeper: Keeper) -> Iterator[Guest]:
    """A guest with uvmd running, shared by the tests of a module.

    After each test the guest must hold what it held before the first, and its kernel must be
    calm. A test that fails gets rid of the guest; the next one has a fresh one.
    """
    yield from _checked(request, _keeper)


@pytest.fixture
def fresh_guest(
    profile: Profile, uvmd_settings: str, base_snapshot: Callable[..., Snapshot]
) -> Iterator[Guest]:
    """A guest of this test alone, for what cannot be undone; nothing is checked at its end."""
    made = base_snapshot(profile, uvmd_settings).restore()
    yield made
    made.close()


def _checked(request: pytest.FixtureRequest, keeper: Keeper) -> Iterator[Guest]:
    made = keeper.guest()
    yield made
    if request.node.stash.get(_failed, False):
        keeper.spoilt()
        return
    try:
        keeper.check()
    except BaseException:
        keeper.spoilt()
        raise


@pytest.fixture(scope="session")
def uvm_image() -> object:
    """The image as it is delivered, built from this source tree."""
    from guest.harness import image

    assert os.geteuid() == 0
    return image.product()

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
    from guest.harness.snapshots import Snapshot
    from uvmd.api.testing.guest.keeper import Keeper
    from uvmd.api.testing.guest.profiles import Profile

_FIXTURES = {"guest", "fresh_guest", "base_snapshot", "uvm_image"}
_left_out = pytest.StashKey[int]()


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
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    if item.get_closest_marker("guest"):
        from uvmd.api.testing.guest.keeper import tell_of_failure

        tell_of_failure(item, outcome.get_result(), "guest", "fresh_guest")  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def profile() -> Profile:
    """The kind of guest; a module overrides it, say with ``params``, to run in others."""
    from uvmd.api.testing.guest.profiles import PROFILES

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


@pytest.fixture(scope="module")
def _keeper(
    profile: Profile, uvmd_settings: str, base_snapshot: Callable[..., Snapshot]
) -> Iterator[Keeper[Guest]]:
    from uvmd.api.testing.guest.keeper import Keeper

    keeper = Keeper(lambda: base_snapshot(profile, uvmd_settings).restore())
    yield keeper
    keeper.close()


@pytest.fixture
def guest(request: pytest.FixtureRequest, _keeper: Keeper[Guest]) -> Iterator[Guest]:
    """A guest with uvmd running, shared by the tests of a module.

    After each test the guest must hold what it held before the first, and its kernel must be
    calm. A test that fails gets rid of the guest; the next one has a fresh one.
    """
    yield from _keeper.lend(request.node)


@pytest.fixture
def fresh_guest(
    profile: Profile, uvmd_settings: str, base_snapshot: Callable[..., Snapshot]
) -> Iterator[Guest]:
    """A guest of this test alone, for what cannot be undone; nothing is checked at its end."""
    made = base_snapshot(profile, uvmd_settings).restore()
    yield made
    made.close()


@pytest.fixture(scope="session")
def uvm_image() -> object:
    """The image as it is delivered, built from this source tree."""
    from guest.harness import image

    assert os.geteuid() == 0
    return image.product()

"""pytest fixtures for plugin authors: ``pytest_plugins = ["uvmd.api.testing.guest.fixtures"]``.

A test that asks for ``guest`` runs where an image is named, and is left out where none is; the
summary of the run says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from uvmd.api.testing.guest.guest import Guest
    from uvmd.api.testing.guest.keeper import Keeper

VARIABLE = "UVMD_GUEST_IMAGE"
_HOW = f"{VARIABLE}=DIR names a folder with an image of a utility VM (docs/tutorial.md of uvmd, In a guest)"
_left_out = pytest.StashKey[bool]()


@pytest.fixture(scope="module")
def guest_distributions() -> Sequence[str]:
    """Names of installed distributions that the guest gets; a module overrides it to bring its plugin."""
    return []


@pytest.fixture(scope="module")
def guest_settings() -> str:
    """TOML for the guest's uvmd; a module overrides it to have some."""
    return ""


@pytest.fixture(scope="module")
def _keeper(
    pytestconfig: pytest.Config, guest_distributions: Sequence[str], guest_settings: str
) -> Iterator[Keeper[Guest]]:
    folder = os.environ.get(VARIABLE, "")
    if not folder:
        pytestconfig.stash[_left_out] = True
        pytest.skip(f"no guest: {_HOW}")
    from uvmd.api.testing.guest.guest import Guest
    from uvmd.api.testing.guest.image import find_image
    from uvmd.api.testing.guest.keeper import Keeper

    image = find_image(folder)
    keeper = Keeper(lambda: Guest(image, distributions=guest_distributions, settings=guest_settings))
    yield keeper
    keeper.close()


@pytest.fixture
def guest(request: pytest.FixtureRequest, _keeper: Keeper[Guest]) -> Iterator[Guest]:
    """A guest with the plugin in its uvmd, shared by the tests of a module.

    After each test the guest must hold what it held before the first, and its kernel must be
    calm. A test that fails, or closes it, gets rid of the guest; the next one has a fresh one.
    """
    yield from _keeper.lend(request.node)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    from uvmd.api.testing.guest.keeper import tell_of_failure

    tell_of_failure(item, outcome.get_result(), "guest")  # type: ignore[attr-defined]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash.get(_left_out, False):
        terminalreporter.write_line(f"LEFT OUT: the tests in a guest. {_HOW}", yellow=True)

"""Properties that plugins add: made once, asked with the argument, their mistakes kept apart."""

from __future__ import annotations

from typing import Any

import pytest

from uvmd.api.services import VmView
from uvmd.daemon.added import added
from uvmd.daemon.beside import View
from uvmd.errors import Failed, PolicyDenied

VIEW = View(lambda kinds: {}, lambda: True, dict)


class Fans:
    made = 0

    def __init__(self, failure: Exception | None = None) -> None:
        Fans.made += 1
        self.failure = failure

    def __call__(self, argument: str, view: VmView) -> Any:
        if self.failure is not None:
            raise self.failure
        return argument, view


def test_a_property_is_made_when_it_is_first_asked_for_and_then_kept() -> None:
    before = Fans.made
    ((kind, source),) = added({"example.com/fans": Fans}, VIEW)
    assert (kind, Fans.made) == ("uvmd.example.com/fans", before)
    assert source("left") == ("left", VIEW)
    assert source("") == ("", VIEW)
    assert Fans.made == before + 1


def test_what_a_plugin_refuses_is_refused_in_its_words() -> None:
    ((_, source),) = added({"fans": lambda: Fans(PolicyDenied("no logging"))}, VIEW)
    with pytest.raises(PolicyDenied, match="no logging"):
        source("")


def test_a_plugin_s_mistake_shows_its_type_and_not_its_text(caplog: pytest.LogCaptureFixture) -> None:
    ((_, source),) = added({"fans": lambda: Fans(KeyError("SECRET"))}, VIEW)
    with pytest.raises(Failed, match=r"^uvmd\.fans: KeyError in its plugin$"):
        source("")
    assert "SECRET" not in caplog.text

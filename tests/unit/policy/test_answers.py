"""What counts as a yes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uvmd.api.policy import Decision
from uvmd.policy.answers import CAPABILITY_SETS, Unusable, narrow, require_yes

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text())
anything: st.SearchStrategy[Any] = scalars | st.lists(st.text()) | st.dictionaries(st.text(), st.text())


@given(answer=anything)
def test_nothing_but_a_decision_is_a_yes(answer: Any) -> None:
    with pytest.raises(Unusable):
        require_yes(answer)


@given(allowed=anything, reason=anything)
def test_only_true_allows_and_the_reason_is_always_a_text(allowed: Any, reason: Any) -> None:
    decision = Decision(allowed, reason)
    if allowed is True:
        assert require_yes(decision) is decision
        return
    with pytest.raises(Unusable) as caught:
        require_yes(decision)
    assert str(caught.value)
    if allowed is False and reason and isinstance(reason, str):
        assert str(caught.value) == reason


@given(env=anything, capabilities=anything, asked=anything)
def test_narrowing_gives_lists_of_what_was_asked_or_refuses(env: Any, capabilities: Any, asked: Any) -> None:
    names = asked if isinstance(asked, list) else None
    request = {"envList": names, "capabilities": dict.fromkeys(CAPABILITY_SETS, names)}
    try:
        kept = narrow(Decision(True, env=env, capabilities=capabilities), request)
    except Unusable:
        assert env is not None or capabilities is not None
        return
    assert kept.env is None or set(kept.env) <= set(names or ())
    assert kept.capabilities is None or set(kept.capabilities) == set(CAPABILITY_SETS)


@pytest.mark.parametrize("capabilities", [None, "all", 7])
def test_capabilities_that_were_not_asked_for_stay_empty(capabilities: object) -> None:
    answer = Decision(True, capabilities={name: ["CAP_SYS_ADMIN"] for name in CAPABILITY_SETS})
    kept = narrow(answer, {"capabilities": capabilities})
    assert kept.capabilities == dict.fromkeys(CAPABILITY_SETS, ())


def test_a_set_of_names_is_a_list_as_well() -> None:
    assert narrow(Decision(True, env={"B", "A"}), {"envList": ["A", "B", "A"]}).env == ("A", "B")  # type: ignore[arg-type]

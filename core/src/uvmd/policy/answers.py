"""What an enforcer's answer must look like to count as a yes, and what it may narrow.

Enforcers are plugins and some answer by way of a policy's text. So nothing is believed
because it was returned: an answer of another type, or with a field of another type, is a
no. And what an answer names beyond the request's own values is dropped here, so that no
policy, by mistake or by fragment, can add to what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uvmd.api.policy import Decision

CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


class Unusable(Exception):
    """The answer cannot be taken for a yes; the text says why."""


def require_yes(answer: object) -> Decision:
    """Return the answer as a decision that allows.

    Raises:
        Unusable: anything else; a denial's own reason is the text.
    """
    if type(answer) is not Decision:
        raise Unusable(f"the policy answered with {type(answer).__name__}, not a decision")
    if answer.allowed is not True:
        if answer.allowed is not False:
            raise Unusable(f"the policy's allowed is {type(answer.allowed).__name__}, not a boolean")
        reason = answer.reason
        raise Unusable(reason if isinstance(reason, str) and reason else "denied by policy")
    if type(answer.stdio) is not bool:
        raise Unusable(f"the policy's stdio access is {type(answer.stdio).__name__}, not a boolean")
    if not isinstance(answer.extra, Mapping):
        raise Unusable(f"the policy's further answers are {type(answer.extra).__name__}, not an object")
    return answer


def narrow(decision: Decision, input: Mapping[str, Any]) -> Decision:
    """Return the decision with environment and capabilities cut to what was asked for.

    What is kept is in the request's order, each name once (spec policy.md 4.4). None
    stays None: the request's own value holds.

    Raises:
        Unusable: a list is no list of texts, or one of the five sets is missing.
    """
    if decision.env is None and decision.capabilities is None:
        return decision
    env, capabilities = decision.env, decision.capabilities
    if env is not None:
        env = _kept(input.get("envList"), _names(env, "environment"))
    if capabilities is not None:
        if not isinstance(capabilities, Mapping):
            raise Unusable(f"the policy's capabilities are {type(capabilities).__name__}, not an object")
        asked = input.get("capabilities")
        wanted = asked if isinstance(asked, Mapping) else {}
        capabilities = {
            name: _kept(wanted.get(name), _names(capabilities.get(name), f"{name} capabilities"))
            for name in CAPABILITY_SETS
        }
    return Decision(True, decision.reason, env, capabilities, decision.stdio, decision.extra)


def _names(value: object, what: str) -> frozenset[str]:
    # A text is a sequence of texts too, and would silently allow nothing but letters.
    if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, frozenset, set)):
        raise Unusable(f"the policy's {what} is {type(value).__name__}, not a list")
    if not all(isinstance(name, str) for name in value):
        raise Unusable(f"the policy's {what} holds something else than texts")
    return frozenset(value)


def _kept(asked: Sequence[str] | None, allowed: frozenset[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in asked or () if name in allowed))

"""What the gate and an enforcer say to each other.

An *enforcer* answers questions about enforcement points (spec policy.md 6). Only a
returned :class:`Decision` whose ``allowed`` is the value ``True`` passes; an exception, a
time-out, another type or no answer is a denial.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from uvmd.api.envelopes import Fragment, LedgerKeys, TrustList
from uvmd.errors import PolicyDenied


def _nothing() -> None:
    """There is nothing else to do."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one question.

    ``env``, ``capabilities`` and ``stdio`` narrow what was asked for: None leaves the
    request's own value; ``env`` is in request order; ``capabilities`` maps the five set
    names (bounding, effective, inheritable, permitted, ambient) to names.
    ``reason`` is the text a denial shows. ``extra`` is what else a point answers with.
    """

    allowed: bool
    reason: str = ""
    env: Sequence[str] | None = field(default=None, repr=False)
    capabilities: Mapping[str, Sequence[str]] | None = None
    stdio: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Enforcer(ABC):
    """One policy in force. Called from several threads; the gate serialises where it must."""

    #: The encoded policy as received (base64). Empty: not strict.
    text: str = ""
    #: Whether create and exec must look up users and groups for the policy (policy.md 9.9).
    wants_user_info: bool = False

    @abstractmethod
    def decide(self, point: str, input: Mapping[str, Any]) -> Decision:
        """Answer one question. Raising denies."""

    def decide_all(
        self, questions: Sequence[tuple[str, Mapping[str, Any]]], meanwhile: Callable[[], None] = _nothing
    ) -> Sequence[Decision]:
        """Answer the questions of one request in order, up to the first no. Raising denies.

        As :meth:`decide` for each; for an enforcer to which a question is a way. While it
        waits it may call ``meanwhile``, which does what is to be done anyway, raises nothing
        and does not wait; if it does not, the caller does.
        """
        answers = []
        for point, input in questions:
            answers.append(answer := self.decide(point, input))
            if getattr(answer, "allowed", None) is not True:
                break
        return answers

    def snapshot(self) -> object:
        """Return the metadata as it is, for :meth:`restore`."""
        return None

    def restore(self, snapshot: object) -> None:
        """Put the metadata back as it was when ``snapshot`` was taken."""

    def extend_default_mounts(self, mounts: Sequence[Mapping[str, Any]]) -> None:
        """Add mounts that every container may have (the pod's network files)."""

    def load_fragment(self, fragment: Fragment) -> None:
        """Load a fragment; its envelope is valid.

        Raises:
            PolicyDenied: it is not acceptable; nothing changed.
        """
        raise PolicyDenied("this enforcer takes no fragments")

    def load_trust_list(self, trust_list: TrustList) -> None:
        """Take the keys of a trust list; its envelope is valid.

        Raises:
            PolicyDenied: it is not acceptable; nothing changed.
        """
        raise PolicyDenied("this enforcer takes no trust lists")

    def ledger_keys(self) -> LedgerKeys:
        """Return the keys that trust lists have brought; fragments' receipts are validated by them."""
        return {}

    def close(self) -> None:
        """Let go of everything. Called on an enforcer that did not come into force."""

    def dump_state(self) -> Mapping[str, Any]:
        """Describe the enforcer for people (no policy text, no environment)."""
        return {}

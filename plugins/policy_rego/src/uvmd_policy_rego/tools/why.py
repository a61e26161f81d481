"""``uvmctl policy why``: a denial in words. Which rule, who came closest, and what differed.

Everything said here comes from the decision document, from a policy that is given beside
it, and from the rules themselves (``closest``). Values of environment variables are in
none of these: a denial carries their names alone.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from uvmd_policy_rego import legacy
from uvmd_policy_rego.engine import EngineError
from uvmd_policy_rego.session import Session
from uvmd_policy_rego.tools import differences
from uvmd_policy_rego.tools.closest import judge
from uvmd_policy_rego.tools.denials import Denial
from uvmd_policy_rego.tools.errors import PolicyToolError
from uvmd_policy_rego.tools.meanings import ASKED, meaning
from uvmd_policy_rego.tools.spec_input import read_spec

#: Whose candidates are containers, of which the rules can be asked one by one.
_CONTAINERS = frozenset(("create_container", "exec_in_container"))


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason in the policy's words, and what it means."""

    error: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Closest:
    """The candidate that needs the fewest changes."""

    name: str
    of: int
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What became of a request, for people and, by :meth:`to_json`, for programs."""

    point: str
    asked: str
    reasons: tuple[Reason, ...]
    closest: Closest | None = None
    notes: tuple[str, ...] = field(default=())
    #: The VM's own sentence, where the message was cut and it says more than what is left.
    said: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return the explanation as it is printed."""
        out = [f"The policy does not allow {self.asked}."]
        if self.point:
            out.append(f"  rule: {self.point}")
        out += ["", "Why"] if self.reasons else []
        if self.said:
            out.append(f"  the VM says: {self.said}")
        for reason in self.reasons:
            out.append(f"  - {reason.error}")
            if reason.meaning:
                out.append(f"    {reason.meaning}")
        if self.closest is not None:
            out += ["", f"Closest of {self.closest.of}: {self.closest.name}"]
            out += [f"  - {one}" for one in self.closest.differences]
        if self.notes:
            out += ["", "Note", *(f"  - {note}" for note in self.notes)]
        return [_printable(line) for line in out]


def _printable(text: str) -> str:
    """A host chose much of it, and a terminal obeys what it is shown."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


#: Refusals around the policy, which carry no document.
_PLAIN = (
    ("the policy did not answer in time", "the engine was stopped and what was asked is denied"),
    ("the policy could not be evaluated", "the engine or the enforcer failed; the VM's log says more"),
    ("policy returned incorrect type", "the policy's rule answers with another type than hosts expect"),
    ("capabilities object provided by the UVM", "the host sent a process without capabilities"),
    ("is denied by policy", "the VM has no policy yet: until it is set nothing is allowed"),
    ("denied by the policy", "the VM has no policy yet: until it is set nothing is allowed"),
    ("have been disabled in this UVM", "an earlier step could not be undone; the VM takes no more changes"),
)


def explain_text(text: str) -> Explanation | None:
    """Explain a refusal that carries no decision document; None for a text that nobody knows."""
    for part, words in _PLAIN:
        if part in text:
            said = text.strip().splitlines()[0][:500]
            return Explanation("", "this request", (Reason(said, words),))
    return None


def explain(denial: Denial, policy: str = "", spec: str = "") -> Explanation:
    """Explain a denial; ``policy`` is the one that denied, its text or as a host sends it.

    ``spec`` is the OCI specification of the container that was not created: it stands in
    for the request where the message was cut.

    Raises:
        PolicyToolError: the policy or the specification cannot be read.
    """
    if spec and denial.input is None and denial.point in ("", "create_container"):
        given = {**read_spec(spec), "rule": "create_container"}
        denial = replace(denial, input=given, specified=True)
    notes = _notes(denial)
    reasons = [Reason(error, meaning(denial.point, error)) for error in denial.errors]
    if denial.policy_error:
        reasons.insert(0, Reason(denial.policy_error, meaning(denial.point, denial.policy_error)))
    elif not reasons:
        reasons += _other_reason(denial)
    closest = None
    if denial.input is not None and not denial.policy_error:
        candidates, source = _candidates(denial, policy)
        closest = _closest(denial, denial.input, candidates)
        notes += _about(source, candidates, closest)
    said = denial.sentence if denial.truncated and closest is None else ""
    return Explanation(denial.point, _asked(denial), tuple(reasons), closest, tuple(notes), said)


def _asked(denial: Denial) -> str:
    words = ASKED.get(denial.point, denial.point or "a request that the message no longer names")
    input = denial.input or {}
    what = differences.subject(denial.point, input)
    if what:
        return f"{words} {what}"
    # The message was cut: of whom is not known.
    return re.sub(r"( at| of( type)?|:)$", "", re.sub(r"\bcontainer$", "a container", words))


def _other_reason(denial: Denial) -> list[Reason]:
    if isinstance(denial.reason, str):
        return [Reason(denial.reason, "")]
    if isinstance(denial.reason, dict) and "errors" not in denial.reason and denial.reason:
        return [
            Reason(f"{key}: {value}", "in the policy's own words") for key, value in denial.reason.items()
        ]
    if "reason" in denial.truncated:
        return []
    return [Reason("no reason was given", meaning(denial.point, ""))]


def _notes(denial: Denial) -> list[str]:
    if not denial.truncated:
        return []
    parts = {
        "reason.error_objects": "the candidates",
        "input": "the request",
        "reason": "the reasons",
    }
    gone = ", ".join(parts.get(one, one) for one in denial.truncated)
    if denial.specified:
        return [f"the message was too long and was sent without {gone}: compared is the specification"]
    if denial.input is None:
        with_both = "with --policy and --spec it can be compared all the same"
        return [f"the message was too long and was sent without {gone}; {with_both}"]
    return [f"the message was too long and was sent without {gone}; with --policy more can be said"]


# Candidates


def _candidates(denial: Denial, policy: str) -> tuple[list[Any], str]:
    """What the request is compared with, and where that comes from."""
    shown = denial.candidates
    if shown and denial.point != "exec_in_container":
        return shown, "denial"
    if policy:
        return _of_policy(policy, denial.point), "policy"
    return shown or [], "denial" if shown is not None else ""


_LISTS = {
    "create_container": "candidate_containers",
    "exec_in_container": "candidate_containers",
    "signal_container_process": "candidate_containers",
    "mount_device": "candidate_containers",
    "mount_overlay": "candidate_containers",
    "exec_external": "candidate_external_processes",
    "load_fragment": "candidate_fragments",
    "load_transparency_trust_list": "candidate_transparency_trust_lists",
}


def _of_policy(policy: str, point: str) -> list[Any]:
    if point not in _LISTS:
        return []
    try:
        session = Session(legacy.policy_text(policy_source(policy)))
    except (EngineError, legacy.LegacyError) as error:
        raise PolicyToolError(f"the policy cannot be loaded: {error}") from None
    try:
        found = session.documents.find(f"data.framework.{_LISTS[point]}")
    except EngineError as error:
        raise PolicyToolError(f"the policy's lists cannot be read: {error}") from None
    finally:
        session.close()
    return found[0] if found and isinstance(found[0], list) else []


def policy_source(text: str) -> str:
    """Return a policy's text, given as it is or in base64."""
    compact = "".join(text.split())
    try:
        decoded = base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        return text
    return decoded.decode("utf-8", "replace")


def _closest(denial: Denial, input: Mapping[str, Any], candidates: Sequence[Any]) -> Closest | None:
    point, said = denial.point, denial.errors
    if not candidates:
        return None
    if point in _CONTAINERS and all(isinstance(one, dict) and "layers" in one for one in candidates):
        # Names of users are not in a specification, and may be what the policy goes by.
        first = judge(point, input, candidates, said, users_known=not denial.specified)[0]
        found = differences.of_container(point, input, first.candidate, first.errors, said)
        return Closest(differences.name_of(first.candidate, first.number), len(candidates), tuple(found))
    ranked = differences.ranked(point, input, candidates, said)
    if ranked is None:
        return None
    number, found = ranked
    return Closest(differences.name_of(candidates[number], number), len(candidates), tuple(found))


def _about(source: str, candidates: Sequence[Any], closest: Closest | None) -> list[str]:
    notes = []
    if source == "policy" and candidates:
        notes.append(
            "compared with all that the policy itself lists; which of them this container could still be, "
            "and what fragments have added, only the VM knows"
        )
    if source == "denial" and not candidates:
        notes.append("nothing was left that the request could have been: see the requests before this one")
    if not source:
        notes.append(
            "the denial does not show what the request was held against; with --policy it is compared"
        )
    if closest is not None and not closest.differences:
        notes.append("but for its environment the request is what this one describes")
    return notes

"""One policy at work: each question answered from its rules, the API's defaults and the metadata.

The order of steps is that of policy.md 4.3. A denial carries its decision document; what
is no decision of the policy is a :class:`Refusal` with a text of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from uvmd_policy_rego import defaults, denial, modules
from uvmd_policy_rego.documents import Documents
from uvmd_policy_rego.engine import EngineError
from uvmd_policy_rego.repeats import Repeated, Repeats
from uvmd_policy_rego.store import MetadataError


class Refusal(Exception):
    """Not done, and not because a rule said so; the text says why."""


class Answer(NamedTuple):
    """What became of a question: the rule's result if allowed, else the decision document."""

    allowed: bool
    result: Mapping[str, Any]
    decision: Mapping[str, Any]


class PointInfo(NamedTuple):
    """What the API says of an enforcement point for this policy."""

    available: bool
    default_results: Mapping[str, Any]
    use_framework: bool


class Session:
    """See the module. One question at a time: the caller serialises."""

    def __init__(
        self,
        text: str,
        default_mounts: Sequence[Mapping[str, Any]] = defaults.DEFAULT_MOUNTS,
        privileged_mounts: Sequence[Mapping[str, Any]] = defaults.PRIVILEGED_MOUNTS,
    ) -> None:
        self.documents = Documents(text, default_mounts, privileged_mounts)
        self._points: dict[str, PointInfo] = {}
        self._repeats = Repeats()

    def close(self) -> None:
        """Let the engine go; its functions hold this session, and only we know of the circle."""
        self.documents.close()

    def enforce(self, point: str, input: Mapping[str, Any], text: str | None = None) -> Answer:
        """Answer one question; ``text`` is the input as JSON, where it is at hand."""
        try:
            result = self._result(point, input, text)
            if "allowed" not in result:
                raise EngineError("unable to find value for key 'allowed'")
            allowed = result["allowed"]
            if not isinstance(allowed, bool):
                raise EngineError("value for 'allowed' is not a boolean")
        except (EngineError, MetadataError) as error:
            return Answer(False, {}, denial.by_error(input, str(error)))
        if allowed:
            return Answer(True, result, {})
        return Answer(False, {}, denial.by_reason(input, point, self._reason(point, input)))

    def _result(self, point: str, input: Mapping[str, Any], text: str | None) -> dict[str, Any]:
        if not modules.is_identifier(point):
            raise EngineError(f"enforcement point rule {point} does not exist")
        documents = self.documents
        state = documents.state
        if (seen := self._repeats.find(state, point, text)) is not None:
            documents.carry_out(seen.operations)
            return {**seen.result}
        documents.set_input(input, text)
        result, operations = documents.find_result_alone(documents.rule_of(point))
        documents.carry_out(operations)
        info = self._point_info(point)
        if result:
            whole = {**info.default_results, **result}
            self._repeats.keep(state, point, text, Repeated(whole, operations))
            return whole
        if info.available:
            raise EngineError(f"rule for {point} is missing from policy")
        if info.use_framework:
            documents.set_input(input, text)
            return documents.find_result(f"data.framework.{point}")
        return dict(info.default_results)

    def _point_info(self, point: str) -> PointInfo:
        info = self._points.get(point)
        if info is None:
            info = self._find_point_info(point)
            # What a policy computes may be different next time.
            if self.documents.static:
                self._points[point] = info
        return info

    def _find_point_info(self, point: str) -> PointInfo:
        self.documents.set_input({"name": point, "rule": point})
        try:
            found = self.documents.find("data.framework.enforcement_point_info")
        except EngineError as error:
            raise EngineError(f"error querying enforcement point information: {error}") from None
        info = found[0] if found else {}
        if info.get("unknown"):
            raise EngineError(f"enforcement point rule {point} does not exist")
        if info.get("invalid"):
            raise EngineError(f"enforcement point rule {point} is invalid")
        if info.get("version_missing"):
            raise EngineError("policy does not define api_version")
        parts = (("default_results", dict, "defaults"), ("available", bool, "availability info"))
        for key, kind, what in (*parts, ("use_framework", bool, "use_framework info")):
            if not isinstance(info.get(key), kind):
                raise EngineError(f"enforcement point {point} result missing {what}")
        return PointInfo(info["available"], info["default_results"], info["use_framework"])

    def _reason(self, point: str, input: Mapping[str, Any]) -> Any:
        self.documents.set_input({**input, "rule": point})
        try:
            return self.documents.find_result("data.policy.reason") or None
        except (EngineError, MetadataError):
            return None

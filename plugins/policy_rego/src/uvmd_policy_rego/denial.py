"""What a host is told of a denial: a sentence for people and the decision document (policy.md 13)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from uvmd_policy_rego import defaults, nearest
from uvmd_policy_rego.values import go_json

NO_REASON = (
    "Security policy is either not valid or did not provide a reason for denial. "
    "Please check security policy or re-generate with tooling."
)
NOT_VALID = "Security policy is not valid. Please check security policy or re-generate with tooling."
_SENTENCE_BYTES = 768

_PLACEHOLDERS = (
    (
        {
            "bounding": defaults.PRIVILEGED_CAPABILITIES,
            "effective": defaults.PRIVILEGED_CAPABILITIES,
            "inheritable": defaults.PRIVILEGED_CAPABILITIES,
            "permitted": defaults.PRIVILEGED_CAPABILITIES,
            "ambient": [],
        },
        "[privileged]",
    ),
    (
        {
            "bounding": defaults.UNPRIVILEGED_CAPABILITIES,
            "effective": defaults.UNPRIVILEGED_CAPABILITIES,
            "inheritable": [],
            "permitted": defaults.UNPRIVILEGED_CAPABILITIES,
            "ambient": [],
        },
        "[unprivileged]",
    ),
)


def by_reason(input: Mapping[str, Any], point: str, reason: Any) -> dict[str, Any]:
    """Return the document of a denial that the policy decided; ``reason`` None: it gave none."""
    if isinstance(reason, dict) and isinstance(reason.get("error_objects"), list):
        objects = [_with_placeholder(one) for one in reason["error_objects"]]
        reason = {**reason, "error_objects": objects}
    return {
        "decision": "deny",
        "input": {**cleaned(input), "rule": point},
        "reason": reason if reason else NO_REASON,
    }


def by_error(input: Mapping[str, Any], error: str) -> dict[str, Any]:
    """Return the document of a denial because the policy could not be evaluated."""
    return {"decision": "deny", "input": cleaned(input), "policyError": error, "reason": NOT_VALID}


def cleaned(input: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input without the values of environment variables."""
    shown: dict[str, Any] = _with_placeholder(dict(input))
    if "envList" in shown:
        envs = shown["envList"] if isinstance(shown["envList"], Sequence) else ()
        shown["envList"] = [f"{str(env).partition('=')[0]}=<<redacted>>" for env in envs]
    return shown


def _with_placeholder(value: Any) -> Any:
    if isinstance(value, dict) and "capabilities" in value:
        for capabilities, name in _PLACEHOLDERS:
            if value["capabilities"] == capabilities:
                return {**value, "capabilities": name}
    return value


def message(document: Mapping[str, Any], point: str, limit: int = defaults.MAX_MESSAGE_BYTES) -> str:
    """Return the text of a denial: the sentence, then the document as hosts look for it.

    The limit is the document's, wrapped; over it parts are left out in the spec's order.
    """
    return f"{sentence(document, point)} {wrapped(document, limit)}"


def sentence(document: Mapping[str, Any], point: str) -> str:
    """Say in plain words what was denied and why."""
    reason, error = document.get("reason"), document.get("policyError")
    if isinstance(error, str):
        why = f"the policy could not answer ({error.splitlines()[0] if error else 'no text'})"
    elif isinstance(reason, dict) and isinstance(reason.get("errors"), list) and reason["errors"]:
        why = "; ".join(_with_details(str(one), document) for one in reason["errors"])
    else:
        why = "the policy gave no reason"
    # A host looks for the first mark: nothing that a policy says may look like one.
    why = why.replace("policyDecision", "policy decision")
    text = f"The security policy does not allow {point}: {why}"
    return text.encode()[:_SENTENCE_BYTES].decode(errors="ignore") + "."


def _with_details(error: str, document: Mapping[str, Any]) -> str:
    """Say what differed, too: the document is cut where a container is of a usual size."""
    input, reason = document.get("input"), document["reason"]
    candidates = reason.get("error_objects")
    if not isinstance(input, Mapping) or not isinstance(candidates, list):
        return error
    found = nearest.details(error, input, candidates)
    return f"{error} ({found})" if found else error


def wrapped(document: Mapping[str, Any], limit: int) -> str:
    """Encode the document between its marks."""
    shown = dict(document)
    text = _encode(shown)
    if limit == 0 or len(text) <= limit:
        return text
    truncated: list[str] = []
    shown["truncated"] = truncated
    reason = shown.get("reason")
    if isinstance(reason, dict) and "error_objects" in reason:
        shown["reason"] = {key: value for key, value in reason.items() if key != "error_objects"}
        truncated.append("reason.error_objects")
        text = _encode(shown)
    for part in ("input", "reason"):
        if len(text) <= limit:
            break
        shown.pop(part, None)
        truncated.append(part)
        text = _encode(shown)
    return text


def _encode(document: Mapping[str, Any]) -> str:
    try:
        text = go_json(document)
    except (TypeError, ValueError):
        text = '"Unable to marshal error object"'
    return f"policyDecision< {base64.b64encode(text.encode('utf-8', 'replace')).decode()} >policyDecision"

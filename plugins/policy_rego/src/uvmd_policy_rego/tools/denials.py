"""Reading a denial as a host printed it: the decision document in an error's text (policy.md 13)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from uvmd_policy_rego.tools.errors import PolicyToolError

# A host looks for the longest text between marks; one that was escaped or wrapped is read as well.
# Go's JSON, in which hosts log, writes the marks' own signs as escapes; pages write entities.
_LT, _GT = r"(?:<|\\+u003[cC]|&lt;)", r"(?:>|\\+u003[eE]|&gt;)"
_MARKED = re.compile(rf"policyDecision{_LT}\s*([A-Za-z0-9+/=\s\\]*?)\s*{_GT}policyDecision")
_CUT = re.compile(rf"policyDecision{_LT}\s*([A-Za-z0-9+/=]+)")
#: What a text without any decision is answered with.
NO_DOCUMENT = (
    "there is no policy decision in this text: no base64 between policyDecision< and >policyDecision"
)
_SENTENCE = re.compile(r"The security policy does not allow ([a-z][a-z0-9_]*): (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Denial:
    """A decision document, and what stood before it."""

    before: str
    input: dict[str, Any] | None
    reason: Any
    policy_error: str
    truncated: tuple[str, ...]
    #: Whether ``input`` is not the message's own but from a specification given beside it.
    specified: bool = False

    @property
    def point(self) -> str:
        """The rule that denied; empty where the document does not say."""
        rule = (self.input or {}).get("rule", "")
        if isinstance(rule, str) and rule:
            return rule
        found = _SENTENCE.search(self.before)
        return found.group(1) if found else ""

    @property
    def sentence(self) -> str:
        """What the VM said in plain words before the document; empty where it said nothing."""
        found = _SENTENCE.search(self.before)
        return found.group(2).strip().rstrip(".") if found else ""

    @property
    def errors(self) -> tuple[str, ...]:
        """The reasons that the policy gave."""
        found = self.reason.get("errors") if isinstance(self.reason, dict) else None
        return tuple(str(one) for one in found) if isinstance(found, list) else ()

    @property
    def candidates(self) -> list[Any] | None:
        """What the request was held against; None where the document does not show it."""
        found = self.reason.get("error_objects") if isinstance(self.reason, dict) else None
        return found if isinstance(found, list) else None


def parse_denial(text: str) -> Denial:
    """Find and decode the decision in an error's text, or take a document as it is.

    Raises:
        PolicyToolError: there is none, or what is there cannot be decoded.
    """
    stripped = text.strip()
    if stripped.startswith("{"):
        document = _json(stripped, "the text")
        nested = document.get("ErrorMessage")  # the answer of the bridge itself
        return parse_denial(nested) if isinstance(nested, str) else _denial("", document)
    found = _MARKED.search(text)
    if found is None:
        if _CUT.search(text):
            raise PolicyToolError(
                "the decision in this text ends too early: something on its way has cut the message; "
                "take it from where the host logs it in full"
            )
        raise PolicyToolError(NO_DOCUMENT)
    encoded = re.sub(r"\\[nrt]|[\s\\]", "", found.group(1))
    try:
        decoded = base64.b64decode(encoded, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        raise PolicyToolError("the decision in this text is not base64 any more") from None
    if decoded == '"Unable to marshal error object"':
        raise PolicyToolError("the decision could not be encoded where it was made")
    return _denial(text[: found.start()].strip(), _json(decoded, "the decision"))


def _json(text: str, what: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise PolicyToolError(f"{what} is not JSON") from None
    if not isinstance(document, dict):
        raise PolicyToolError(f"{what} is no JSON object")
    return document


def _denial(before: str, document: dict[str, Any]) -> Denial:
    if document.get("decision") != "deny":
        raise PolicyToolError("this is no decision that denies")
    input, truncated = document.get("input"), document.get("truncated")
    error = document.get("policyError", "")
    return Denial(
        before,
        input if isinstance(input, dict) else None,
        document.get("reason"),
        error if isinstance(error, str) else "",
        tuple(str(one) for one in truncated) if isinstance(truncated, list) else (),
    )

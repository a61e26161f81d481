"""Loading fragments and trust lists after their envelopes were validated (policy.md 11)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from uvmd.api.envelopes import Fragment, TrustList
from uvmd_policy_rego import denial
from uvmd_policy_rego.documents import Documents
from uvmd_policy_rego.engine import EngineError
from uvmd_policy_rego.ledgers import Ledgers
from uvmd_policy_rego.lifting import lift
from uvmd_policy_rego.session import Answer, Refusal, Session
from uvmd_policy_rego.values import go_json, go_type

#: The four of the API, and every other top-level name that a fragment could shadow.
_RESERVED = (
    "framework api policy metadata uvmd defaultMounts privilegedMounts sandboxPrefix hugePagesPrefix "
    "plan9Prefix defaultPrivilegedCapabilities defaultUnprivilegedCapabilities"
)
RESERVED = frozenset(_RESERVED.split())
_PACKAGE = re.compile(r"package +([a-zA-Z_][a-zA-Z0-9_]*)\s*")
#: No builtin is called here: it would bring a module of ours into every fragment's engine.
_DEFINITIONS = """
default __fragment_parameters_metadata := {{}}
__fragment_parameters_metadata := data.{namespace}.parameters_api
parameter(name) := __fragment_parameters[name]
parameter(name) := __fragment_parameters_metadata[name]["default"] if not __fragment_parameter_given(name)
__fragment_parameter_given(name) if {{
	some key, _ in __fragment_parameters
	key == name
}}
"""


def namespace_of(code: str) -> str:
    """Return a fragment's package.

    Raises:
        Refusal: the first line declares none that a fragment may have.
    """
    line = code.split("\n", 1)[0]
    if not line:
        raise Refusal("unable to load fragment: Fragment Rego is empty")
    found = _PACKAGE.fullmatch(line)
    if found is None:
        quoted = json.dumps(line)
        raise Refusal(
            f"unable to load fragment: valid package definition required on first line, got {quoted}"
        )
    if found.group(1) in RESERVED:
        name = found.group(1)
        raise Refusal(
            f'unable to load fragment: namespace "{name}" is reserved and cannot be used for fragments'
        )
    return found.group(1)


def load_fragment(session: Session, fragment: Fragment) -> Answer:
    """Load a fragment whose envelope and receipts are valid.

    Raises:
        Refusal: it cannot be one, or the policy's answer cannot be used.
    """
    namespace = namespace_of(fragment.code)
    input = {
        "issuer": fragment.issuer,
        "feed": fragment.feed,
        "namespace": namespace,
        "fragment_loaded": False,
        "has_header_svn": fragment.svn is not None,
        "header_svn": fragment.svn,
        "receipts": list(fragment.receipts),
    }
    answer = session.enforce("load_fragment", input)
    if not answer.allowed:
        return answer
    choices = _parameters(answer.result)
    loaded = {**input, "fragment_loaded": True}
    lifted = lift(fragment.code)
    identity = fragment.issuer, fragment.feed
    for parameters in choices:
        text = f"{lifted}\n__fragment_parameters := {go_json(parameters)}\n" + _DEFINITIONS.format(
            namespace=namespace
        )
        answer = _load_one(session, identity, namespace, text, loaded, alone=len(choices) == 1)
        if not answer.allowed or answer.result.get("add_module") is True:
            return answer
    return answer


def _load_one(
    session: Session,
    identity: tuple[str, str],
    namespace: str,
    text: str,
    input: Mapping[str, Any],
    *,
    alone: bool,
) -> Answer:
    documents: Documents = session.documents
    try:
        documents.with_module(identity, namespace, text)
    except EngineError as error:
        documents.without_module(identity)
        failure = f"error when compiling modules: rego compilation failed: {error}"
        return Answer(False, {}, denial.by_error(input, failure))
    answer = session.enforce("load_fragment", input)
    if not answer.allowed or answer.result.get("add_module") is not True:
        documents.without_module(identity)
    elif not alone:
        documents.without_module(identity)
        raise Refusal(
            "Fragment cannot include namespace if multiple possible parameter combinations are defined"
        )
    else:
        documents.keep(identity, namespace, text)
    return answer


def _parameters(result: Mapping[str, Any]) -> list[Any]:
    if "parameters" not in result:
        return [{}]
    parameters = result["parameters"]
    if not isinstance(parameters, list):
        raise Refusal(f"unable to get parameters from load_fragment result: got {go_type(parameters)}")
    for one in parameters:
        if not isinstance(one, dict):
            raise Refusal(f"parameters must be an object, got {go_type(one)}")
    return parameters or [{}]


def load_trust_list(session: Session, ledgers: Ledgers, offered: TrustList) -> Answer:
    """Take the keys of those ledgers that the policy allows the list to speak for.

    Raises:
        Refusal: the policy's answer cannot be used.
    """
    input = {
        "issuer": offered.issuer,
        "subject": offered.subject,
        "svn": offered.svn,
        "ledgers": sorted(offered.keys),
    }
    answer = session.enforce("load_transparency_trust_list", input)
    if not answer.allowed:
        return answer
    allowed = answer.result.get("allowed_ledgers")
    if not isinstance(allowed, list):
        got = go_type(allowed)
        raise Refusal(f"unable to get allowed_ledgers from load_transparency_trust_list result: got {got}")
    if not allowed:
        raise Refusal("transparency trust list carries no ledgers authorized by the policy")
    for one in allowed:
        if not isinstance(one, str):
            raise Refusal(f"Elements of result.allowed_ledgers must be strings, got {go_type(one)}")
    ledgers.merge(offered.subject, {name: offered.keys[name] for name in allowed if name in offered.keys})
    return answer

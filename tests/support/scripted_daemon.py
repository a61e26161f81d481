"""The real daemon with one thing added: a scripted enforcer that a host may select.

No shipped configuration can select it (``uvmd.api.testing.scripted``), so the gate is made
with one more factory here. The script is JSON in ``--script=`` (taken off the arguments):
point -> fields of the Decision, all other points are allowed. Instead of fields stands
``{"raises": NAME}`` for an exception, or ``{"answers": VALUE}`` for an answer that is no decision.
``restore`` stands for putting metadata back.
"""

from __future__ import annotations

import builtins
import json
import sys
from typing import Any

from uvmd.api.envelopes import Fragment, TrustList
from uvmd.api.policy import Decision
from uvmd.api.testing import PlainReader, ScriptedEnforcer
from uvmd.daemon import compose, serve
from uvmd.errors import PolicyDenied

NAME = "scripted"


def answer(fields: dict[str, Any]) -> Any:
    if "raises" in fields:
        raised: BaseException = getattr(builtins, fields["raises"])("s3cret of the enforcer")
        return raised
    if "answers" in fields:
        return lambda input: fields["answers"]
    return Decision(**{"allowed": True, **fields})


class Enforcer(ScriptedEnforcer):
    """Decides about fragments by the script, too, and whether metadata can be put back."""

    def restore(self, snapshot: object) -> None:
        failure = self.script.get("restore")
        if isinstance(failure, BaseException):
            raise failure
        super().restore(snapshot)

    def load_fragment(self, fragment: Fragment) -> None:
        self._load("load_fragment")

    def load_trust_list(self, trust_list: TrustList) -> None:
        self._load("load_transparency_trust_list")

    def _load(self, point: str) -> None:
        decision = self.decide(point, {})
        if decision.allowed is not True:
            raise PolicyDenied(decision.reason)


class Gate(compose.Gate):
    """The gate of the tests' daemon."""

    script: dict[str, Any] = {}

    def __init__(self, *arguments: Any, **options: Any) -> None:
        script = {point: answer(fields) for point, fields in self.script.items()}
        options["enforcers"] = {NAME: lambda text: Enforcer(text, script)}
        options["envelope_readers"] = {"cose-x509": PlainReader}
        options["selectable"] = [*options["selectable"], NAME]
        super().__init__(*arguments, **options)


def main() -> None:
    flags = [flag for flag in sys.argv[1:] if not flag.startswith("--script=")]
    for flag in sys.argv[1:]:
        if flag.startswith("--script="):
            Gate.script = json.loads(flag.partition("=")[2])
    compose.Gate = Gate  # type: ignore[misc]
    sys.exit(serve.run(flags))


if __name__ == "__main__":
    main()

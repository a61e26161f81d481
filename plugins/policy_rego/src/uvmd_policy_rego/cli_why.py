"""``uvmctl policy why`` and ``record``: a denial in words, and a session to try it again."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

_RECORD = "/run/uvmd/policy-record.jsonl"


@click.command("why", short_help="Say why a policy denied a request.")
@click.argument("denial", required=False)
@click.option(
    "--policy",
    "policy_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The policy that denied, its text or in base64: says more where the message was cut.",
)
@click.option(
    "--spec",
    "spec_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The OCI specification (config.json) that was to be created, where the message was cut.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def why_verb(denial: str | None, policy_file: Path | None, spec_file: Path | None, as_json: bool) -> None:
    """Say why a policy denied a request: which rule, what came closest, what differed.

    DENIAL is the error as the host printed it, a file with it, or - for standard input
    (the default). Of environment variables a denial carries names, never values.

    \b
      uvmctl policy why error.txt
      journalctl -u containerd | tail -1 | uvmctl policy why --policy policy.rego
      uvmctl policy why --policy policy.rego --spec config.json error.txt
    """
    from uvmd_policy_rego.tools import why
    from uvmd_policy_rego.tools.denials import NO_DOCUMENT, parse_denial
    from uvmd_policy_rego.tools.errors import PolicyToolError

    text = _text_of(denial)
    try:
        policy = policy_file.read_text("utf-8", "replace") if policy_file is not None else ""
        spec = spec_file.read_text("utf-8", "replace") if spec_file is not None else ""
        explanation = why.explain(parse_denial(text), policy, spec)
    except PolicyToolError as error:
        plain = why.explain_text(text) if str(error) == NO_DOCUMENT else None
        if plain is None:
            raise
        explanation = plain
    if as_json:
        click.echo(json.dumps(explanation.to_json(), ensure_ascii=False, indent=2))
    else:
        click.echo("\n".join(explanation.lines()))


def _text_of(denial: str | None) -> str:
    if denial is None or denial == "-":
        return sys.stdin.read()
    if os.path.isfile(denial):  # no pathlib: it raises for what is too long to be a name
        return Path(denial).read_text("utf-8", "replace")
    return denial


@click.command("record", short_help="Make a session for `replay` of what a daemon recorded.")
@click.argument("record", default=_RECORD, type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write it there.")
@click.option("--name", default="recorded", show_default=True, help="The session's name.")
def record_verb(record: Path, output: Path | None, name: str) -> None:
    """Make a session for `uvmctl policy replay` from what a running daemon has kept.

    Only a daemon whose configuration says so keeps anything: [plugin.policy_rego]
    record = FILE. A session holds the policy, and arguments and environments of
    containers in full; it is written so that only its owner can read it.

    \b
      uvmctl policy record -o session.jsonl
      uvmctl policy replay session.jsonl
    """
    from uvmd_policy_rego.tools.record import read_record, session_of, write_private

    line = json.dumps(session_of(read_record(str(record)), name), ensure_ascii=False) + "\n"
    if output is None:
        click.echo(line, nl=False)
    else:
        write_private(str(output), line)
        click.echo(f"written to {output}: it holds environments in full", err=True)

"""``uvmctl raw``."""

from __future__ import annotations

import json
import sys

import click

from uvmd.cli.ctl.settings import Settings, common, pass_settings, read_document
from uvmd.client.protocol import NULL_ID, parse_message


@click.command("raw")
@click.option("-f", "--file", "path", metavar="FILE", help="Read the body from a file, - for stdin.")
@common()
@click.argument("message")
@click.argument("body", required=False)
@pass_settings
def raw_verb(settings: Settings, message: str, body: str | None, path: str | None) -> int:
    """Send MESSAGE (a name or a type word) with BODY as it is, and print the answer.

    Without a body it is addressed to the VM. The status is 1 when the answer's Result is
    not 0. With --json the answer is printed on one line.

    \b
      uvmctl raw get-properties '{"ContainerId": "web", "Query": "{\\"PropertyTypes\\":[\\"ProcessList\\"]}"}'
      uvmctl raw 0x10100c01
      uvmctl raw modify -f request.json
    """
    if body is not None and path is not None:
        raise click.UsageError("give the body as an argument or in a file, not both")
    if path is not None:
        content = read_document(path)
    elif body is not None:
        content = body.encode("utf-8", "surrogateescape")
    else:
        content = json.dumps({"ContainerId": NULL_ID, "ActivityId": NULL_ID}).encode()
    number = parse_message(message)
    with settings.connect() as client:
        answer = client.raw(number, content)
    return _show(answer, settings.json)


def _show(answer: bytes, compact: bool) -> int:
    try:
        value = json.loads(answer)
    except ValueError:
        sys.stdout.buffer.write(answer + b"\n")
        return 1
    click.echo(json.dumps(value, ensure_ascii=False, indent=None if compact else 2))
    return 1 if isinstance(value, dict) and value.get("Result") else 0

"""``uvmctl policy report``: the evidence of the machine where it runs, or of a file."""

from __future__ import annotations

import json
from typing import IO

import click


@click.command("report", short_help="Show SEV-SNP or TDX evidence, readable.")
@click.option("--file", type=click.File("rb"), help="A report, TDREPORT or quote, as bytes or in hex.")
@click.option(
    "--report-data", metavar="HEX", default="", help="Up to 64 bytes that the evidence shall carry."
)
@click.option("--policy", type=click.File("rb"), help="Was the VM launched for this policy (Rego or base64)?")
@click.option("--raw", is_flag=True, help="Print the evidence itself, in hex.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@click.pass_context
def report(
    ctx: click.Context,
    file: IO[bytes] | None,
    report_data: str,
    policy: IO[bytes] | None,
    raw: bool,
    as_json: bool,
) -> int:
    """Show what the processor says of this VM, or what a file says of another one.

    Reads the kernel's interface of the machine where it runs; it needs root and no daemon.
    Signatures are not verified. With --policy the status is 1 if the VM was launched for
    another one.

    \b
      uvmctl policy report                                in a confidential VM
      uvmctl policy report --file report.bin --json       anywhere
      uvmctl policy report --policy policy.rego           is its digest the host data?
    """
    # Help of the whole group must not load what this verb needs.
    from uvmd_attestation import showing

    found = showing.find(file, report_data)
    if raw:
        click.echo(found.blob.hex())
        return 0
    shown = showing.Shown(found, None if policy is None else policy.read())
    if as_json or getattr(ctx.find_root().obj, "json", False):
        click.echo(json.dumps(shown.document(), indent=2))
    else:
        click.echo(shown.text())
    return 1 if shown.fits is False else 0


report.needs_client = False  # type: ignore[attr-defined]

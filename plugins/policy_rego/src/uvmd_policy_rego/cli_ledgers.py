"""``uvmctl policy fragment trust-list`` and ``attach``: what transparency ledgers are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from uvmd_policy_rego.cli_files import AS_JSON, FILE, OUTPUT, read, read_envelope, refusing, show, write

if TYPE_CHECKING:
    from uvmd_policy_rego.envelopes.making import Key


@click.command("trust-list", short_help="Make the payload of a transparency trust list.")
@click.argument("keys", nargs=-1, required=True, metavar="LEDGER[:KID]=FILE...")
@OUTPUT
@AS_JSON
def trust_list_verb(keys: tuple[str, ...], output: str, as_json: bool) -> None:
    """Make the payload of a trust list from ledgers' public keys (PEM; a certificate will do).

    \b
      uvmctl policy fragment trust-list ledger.example.com=ledger.pem -o ledgers.cbor
      uvmctl policy fragment sign ledgers.cbor --key key.pem --chain chain.pem \\
          --feed lists --svn 1 -o ledgers.cose \\
          --content-type application/vnd.transparency-trust-list.v1+cose

    KID is the name by which receipts call the key: by default the SHA-256 of its DER, which
    is what CCF ledgers do. A ledger may have several keys.
    """
    with refusing(as_json):
        from uvmd_policy_rego.envelopes.making import key_id, parse_public_key, write_trust_list

        ledgers: dict[str, list[tuple[str, Key]]] = {}
        for one in keys:
            name, equals, path = one.partition("=")
            ledger, _, kid = name.partition(":")
            if not equals or not ledger or not path:
                raise click.UsageError(f"{one!r} is not LEDGER[:KID]=FILE")
            key = parse_public_key(read(path))
            ledgers.setdefault(ledger, []).append((kid or key_id(key), key))
        payload = write_trust_list(ledgers)
        write(output, payload)
    if output == "-":
        return
    ids = {ledger: [kid for kid, _ in of_ledger] for ledger, of_ledger in ledgers.items()}
    lines = (f"ledger  {ledger}, key {kid}" for ledger, kids in ids.items() for kid in kids)
    found = {"output": output, "bytes": len(payload), "ledgers": ids}
    show(found, as_json, iter((f"wrote {output}, {len(payload)} bytes", *lines)))


@click.command("attach", short_help="Put receipts of ledgers into an envelope.")
@click.argument("envelope", type=FILE)
@click.argument("receipts", nargs=-1, required=True, type=FILE)
@OUTPUT
@AS_JSON
def attach_verb(envelope: str, receipts: tuple[str, ...], output: str, as_json: bool) -> None:
    """Put RECEIPTS into ENVELOPE, beside those that are there.

    \b
      uvmctl policy fragment attach extra.cose receipt.cose -o proven.cose

    Receipts lie outside of what is signed. Whether they prove something, `verify` says, with
    the --trust-list that has the ledger's key.
    """
    with refusing(as_json):
        from uvmd_policy_rego.envelopes.making import attach

        attached = attach(read_envelope(envelope), [read_envelope(one) for one in receipts])
        write(output, attached)
    if output != "-":
        text = f"wrote {output}, {len(attached)} bytes"
        show({"output": output, "bytes": len(attached)}, as_json, iter((text,)))

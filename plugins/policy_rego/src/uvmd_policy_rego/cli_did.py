"""``uvmctl policy did``: the issuers of signed fragments, as policies name them."""

from __future__ import annotations

import json

import click

from uvmd_policy_rego.cli_files import AS_JSON, FILE, read, refusing, show


@click.group(short_help="Make and resolve the names of signers.")
def did() -> None:
    """Make and resolve did:x509, the names of those who sign fragments.

    A policy names an issuer by such a did: it pins one certificate above the signer's by
    its fingerprint and describes the signer's own.
    """


@did.command("resolve", short_help="Say whether a DID holds for certificates.")
@click.argument("name", metavar="DID")
@click.option("--chain", required=True, type=FILE, help="Certificates in PEM, the signer's first.")
@AS_JSON
def resolve_verb(name: str, chain: str, as_json: bool) -> None:
    """Say whether DID holds for a chain of certificates, and show its document.

    \b
      uvmctl policy did resolve "did:x509:0:sha256:WE4P…::subject:CN:signer" --chain chain.pem
      uvmctl policy did resolve "$(uvmctl policy did make --chain chain.pem)" --chain chain.pem --json

    Status 0: it holds. 1: it does not; the reason is printed.
    """
    with refusing(as_json):
        from uvmd_policy_rego.envelopes.did_x509 import resolve_pem

        document = resolve_pem(name, read(chain))
    show({"document": document}, as_json, iter((json.dumps(document, indent=2),)))


@did.command("make")
@click.option("--chain", required=True, type=FILE, help="Certificates in PEM, the signer's first.")
@click.option(
    "--policy",
    default="cn",
    show_default=True,
    help="How the signer's certificate is described: cn (its common name), eku (its own extended key "
    "usage), or the text of a policy, such as subject:O:Example Ltd.",
)
@click.option(
    "--index",
    "-i",
    type=int,
    default=1,
    show_default=True,
    help="Which certificate is pinned: 1 issued the signer's.",
)
@AS_JSON
def make_verb(chain: str, policy: str, index: int, as_json: bool) -> None:
    """Make the did of whoever signs with a chain of certificates.

    \b
      uvmctl policy did make --chain chain.pem
      uvmctl policy did make --chain chain.pem --policy eku --index 2
      uvmctl policy did make --chain chain.pem --policy "subject:O:Example Ltd"

    It is resolved against the chain before it is printed.
    """
    with refusing(as_json):
        from uvmd_policy_rego.envelopes.certificates import parse_pem_chain
        from uvmd_policy_rego.envelopes.did_x509 import make

        certificates = parse_pem_chain(read(chain))
        made = make(certificates, policy, index)
        pinned = certificates[index].common_name
    show({"did": made, "pinned": pinned}, as_json, iter((made,)))

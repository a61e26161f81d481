"""``uvmctl policy fragment``: signed fragments, made, checked and looked at."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from uvmd_policy_rego.cli_files import (
    AS_JSON,
    FILE,
    OUTPUT,
    echo,
    read,
    read_envelope,
    refuse,
    refusing,
    show,
    write,
)
from uvmd_policy_rego.cli_ledgers import attach_verb, trust_list_verb

_KINDS = {
    "fragment": "application/cose-x509+rego",
    "trust-list": "application/vnd.transparency-trust-list.v1+cose",
    "tcb-info": "application/vnd.tcb-reference-info.v1+cose",
    "platform-info": "application/vnd.platform-reference-info.v1+cose",
}


@click.group(short_help="Sign, check and look into signed fragments.")
def fragment() -> None:
    """Sign fragments of policies, check them as a daemon would, look into them.

    A fragment is Rego that a policy lets in because of who signed it: an envelope
    (COSE_Sign1) holds the text, the signer's certificates, the issuer and the feed.
    """


fragment.add_command(trust_list_verb)
fragment.add_command(attach_verb)


@fragment.command("sign")
@click.argument("payload", type=FILE)
@click.option("--key", required=True, type=FILE, help="The signer's private key in PEM: EC, RSA or Ed25519.")
@click.option("--key-password-file", type=FILE, help="A file with the key's password in its first line.")
@click.option("--chain", required=True, type=FILE, help="Certificates in PEM, the signer's first.")
@click.option("--feed", required=True, help="What this is an issue of; the policy names it.")
@click.option("--issuer", help="The signer's did:x509.  [default: made from the chain, as `did make` does]")
@click.option("--svn", type=int, help="The number of this issue; a policy names the lowest that it takes.")
@click.option("--algorithm", help="ES256, ES384, ES512, PS256, PS384, PS512 or EdDSA.  [default: as the key]")
@click.option("--content-type", default=_KINDS["fragment"], show_default=True, help="Of the payload.")
@click.option("--old-style", is_flag=True, help="Issuer and feed as in old envelopes; svn is in the text.")
@OUTPUT
@click.option(
    "--format",
    "form",
    type=click.Choice(["cose", "base64", "request"]),
    default="cose",
    show_default=True,
    help="The bytes, their base64 as hosts send it, or the request that `uvmctl modify -f` takes.",
)
@AS_JSON
def sign_verb(payload: str, output: str, form: str, as_json: bool, **options: Any) -> None:
    """Sign PAYLOAD, a fragment's text, and write the envelope.

    \b
      uvmctl policy fragment sign extra.rego --key key.pem --chain chain.pem \\
          --feed example.com/extra --svn 1 -o extra.cose

    To try it in a running VM, write it with --format request:

    \b
      uvmctl modify -f extra.json

    What was written has been opened again, and the issuer resolved against the chain.
    """
    with refusing(as_json):
        envelope, did = _signed(read(payload), **options)
        data = _formed(envelope, form, options["content_type"])
        write(output, data)
    if output == "-":
        return
    found = {"output": output, "bytes": len(data), "issuer": did, "feed": options["feed"]}
    show(found, as_json, iter((f"wrote {output}, {len(data)} bytes", f"issuer  {did}")))


def _formed(envelope: bytes, form: str, content_type: str) -> bytes:
    if form == "cose":
        return envelope
    text = base64.b64encode(envelope).decode()
    if form == "base64":
        return f"{text}\n".encode()
    media_type = content_type if content_type in _KINDS.values() else _KINDS["fragment"]
    settings = {"Fragment": text, "MediaType": media_type}
    request = {"RequestType": "Add", "ResourceType": "SecurityPolicyFragment", "Settings": settings}
    return json.dumps(request).encode() + b"\n"


def _signed(
    payload: bytes,
    *,
    key: str,
    key_password_file: str | None,
    chain: str,
    feed: str,
    issuer: str | None,
    svn: int | None,
    algorithm: str | None,
    content_type: str,
    old_style: bool,
) -> tuple[bytes, str]:
    from uvmd_policy_rego.envelopes import signing
    from uvmd_policy_rego.envelopes.certificates import parse_pem_chain
    from uvmd_policy_rego.envelopes.did_x509 import make

    if content_type == _KINDS["fragment"]:
        _require_fragment(payload)
    password = read(key_password_file).split(b"\n", 1)[0] if key_password_file else None
    private = signing.parse_private_key(read(key), password)
    certificates = parse_pem_chain(read(chain))
    did = issuer or make(certificates)
    envelope = signing.sign(
        payload,
        private,
        certificates,
        issuer=did,
        feed=feed,
        svn=svn,
        content_type=content_type,
        algorithm=algorithm or "",
        old_style=old_style,
    )
    return envelope, did


def _require_fragment(payload: bytes) -> None:
    from uvmd_policy_rego.envelopes.errors import EnvelopeError
    from uvmd_policy_rego.fragments import namespace_of
    from uvmd_policy_rego.session import Refusal

    try:
        namespace_of(payload.decode())
    except UnicodeDecodeError:
        raise EnvelopeError("the payload is no text in UTF-8; give its --content-type") from None
    except Refusal as refusal:
        raise EnvelopeError(str(refusal)) from None


@fragment.command("verify", short_help="Check an envelope as a daemon would.")
@click.argument("file", type=FILE)
@click.option(
    "--kind",
    type=click.Choice(list(_KINDS)),
    default="fragment",
    show_default=True,
    help="As what a host sends it.",
)
@click.option("--policy", "policy_file", type=FILE, help="Ask this policy, too: Rego, or its base64.")
@click.option(
    "--trust-list",
    "trust_lists",
    multiple=True,
    type=FILE,
    help="A signed trust list that came before; its ledgers' receipts count. May be repeated.",
)
@click.option("--issuer", help="Refuse another issuer.")
@click.option("--feed", help="Refuse another feed.")
@AS_JSON
def verify_verb(
    file: str,
    kind: str,
    policy_file: str | None,
    trust_lists: tuple[str, ...],
    issuer: str | None,
    feed: str | None,
    as_json: bool,
) -> None:
    """Check an envelope as a daemon would, and show what the daemon would see.

    \b
      uvmctl policy fragment verify extra.cose
      uvmctl policy fragment verify extra.cose --policy policy.rego
      uvmctl policy fragment verify extra.cose --trust-list ledgers.cose --json

    FILE holds the envelope, or its base64. Status 0: a daemon takes it. 1: it does not;
    the reason is the one that it would give.
    """
    with refusing(as_json):
        from uvmd_policy_rego.envelopes.trial import Trial

        trial = Trial(None if policy_file is None else _policy_text(read(policy_file)))
        try:
            for one in trust_lists:
                trial.trust_list(read_envelope(one))
            offers = {"fragment": trial.fragment, "trust-list": trial.trust_list}
            seen = offers.get(kind, trial.reference_info)(read_envelope(file))
        finally:
            trial.close()
    for name, wanted in (("issuer", issuer), ("feed", feed)):
        if wanted is not None and seen[name] != wanted:
            refuse(f"the {name} is {seen[name]}, not {wanted}", as_json)
    asked = "the policy takes it" if policy_file is not None else "no policy was asked"
    show({**seen, "policy": asked}, as_json, _seen(seen, asked))


def _policy_text(data: bytes) -> str:
    try:
        return base64.b64decode(b"".join(data.split()), validate=True).decode()
    except ValueError:
        return data.decode("utf-8", "replace")


def _seen(seen: Mapping[str, Any], asked: str) -> Iterator[str]:
    yield f"valid {seen['kind']}; {asked}"
    for name in ("issuer", "feed"):
        yield f"{name:8}{seen[name]}"
    if "did" in seen:
        yield f"did     {seen['did']}"
    if "svn" in seen:
        yield f"svn     {'in the text' if seen['svn'] is None else seen['svn']}"
    for receipt in seen.get("receipts", ()):
        yield f"receipt {receipt['issuer']}, by trust lists of {', '.join(receipt['ttl_subjects'])}"
    for ledger, keys in seen.get("ledgers", {}).items():
        yield f"ledger  {ledger}, {len(keys)} keys"
    if "text" in seen:
        yield ""
        yield seen["text"].rstrip("\n")


@fragment.command("inspect", short_help="Show what is in an envelope.")
@click.argument("file", type=FILE)
@click.option("--payload", "whole", is_flag=True, help="Show the whole payload.")
@AS_JSON
def inspect_verb(file: str, whole: bool, as_json: bool) -> None:
    """Show what is in an envelope, however broken it is, and what is wrong with it.

    \b
      uvmctl policy fragment inspect extra.cose
      uvmctl policy fragment inspect extra.cose --json | jq .chain

    Status 0 also for a broken one: this only looks. Whether a daemon takes it, `verify` says.
    """
    from uvmd_policy_rego.envelopes.describe import describe

    found = describe(read_envelope(file))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    echo(_described(found, whole))


def _described(found: Mapping[str, Any], whole: bool) -> Iterator[str]:
    yield f"{'valid' if found['valid'] else 'NOT VALID'}, {found['bytes']} bytes, sha256 {found['sha256']}"
    for problem in found["problems"]:
        yield f"  problem: {problem}"
    if "style" not in found:
        return
    for name in ("issuer", "feed", "svn", "algorithm", "content_type", "style"):
        yield f"{name.replace('_', ' '):14}{'-' if found[name] in (None, '') else found[name]}"
    for key, value in found.get("hash_envelope", {}).items():
        yield f"{'hash of' if key == 'hash' else key.replace('_', ' '):14}{value}"
    yield from _described_chain(found["chain"])
    for receipt in found["receipts"]:
        yield f"receipt       {receipt.get('problem') or receipt['ledger'] + ', key ' + receipt['kid']}"
    for name in ("protected", "unprotected"):
        yield f"{name:14}{', '.join(found[name]) or '-'}"
    yield from _described_payload(found["payload"], whole)


def _described_chain(chain: list[dict[str, Any]]) -> Iterator[str]:
    for number, one in enumerate(chain):
        place = "signer" if number == 0 else "last" if number == len(chain) - 1 else "between"
        if "problem" in one:
            yield f"certificate {number} ({place}): {one['problem']}"
            continue
        yield f"certificate {number} ({place}): {one['subject']}"
        yield f"    {one['key']}, {one['from'][:10]} to {one['until'][:10]}{', CA' if one['ca'] else ''}"
        yield f"    sha256:{one['fingerprint_sha256']}"
        for kind in ("usages", "names"):
            if one[kind]:
                yield f"    {kind}: {', '.join(one[kind])}"


def _described_payload(payload: Mapping[str, Any], whole: bool) -> Iterator[str]:
    if payload["bytes"] is None:
        yield f"payload       {payload['note']}"
        return
    yield f"payload       {payload['bytes']} bytes, sha256 {payload['sha256']}"
    for ledger, keys in payload.get("ledgers", {}).items():
        yield f"    ledger {ledger}, {len(keys)} keys"
    if "digest" in payload:
        yield f"    digest {payload['digest']}"
    lines = payload.get("text", "").splitlines()
    shown = lines if whole else lines[:12]
    yield from (f"    {line}" for line in shown)
    if len(lines) > len(shown):
        yield f"    … {len(lines) - len(shown)} more lines (--payload shows them)"

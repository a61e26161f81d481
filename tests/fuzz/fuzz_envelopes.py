"""Throws made-up envelopes, certificates, dids, proofs and trust lists at their readers.

    python tests/fuzz/fuzz_envelopes.py --seconds 60 --seed 1

Holds: a reader returns or raises an EnvelopeError, and soon; the daemon's refuses; nothing is
taken whose signed parts nobody signed; a path has been signed certificate by certificate;
a did that resolves pins a certificate above the leaf; a description is JSON and calls
valid what opens and resolves. A failure prints the seed and the input's number.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "plugins/policy_rego/tests"))

import ledgers
import made_envelopes
import signers

from uvmd.errors import Refused
from uvmd_policy_rego.envelopes import cbor
from uvmd_policy_rego.envelopes.certificates import Certificate
from uvmd_policy_rego.envelopes.chain import find_paths
from uvmd_policy_rego.envelopes.describe import describe
from uvmd_policy_rego.envelopes.did_x509 import fingerprint_of, make, resolve
from uvmd_policy_rego.envelopes.envelope import Envelope, open_envelope
from uvmd_policy_rego.envelopes.errors import EnvelopeError
from uvmd_policy_rego.envelopes.reader import Reader
from uvmd_policy_rego.envelopes.receipts import compute_root
from uvmd_policy_rego.envelopes.signing import write
from uvmd_policy_rego.envelopes.trust_lists import parse_trust_list

#: No input may hold up the one thread on which fragments are judged.
LONGEST_S = 2.0
KNOWN = {
    ledgers.LEDGER: {ledgers.KID: (ledgers.der_of(signers.key_of("ledger")), ("lists",))},
    **made_envelopes.known_keys(),
}
KINDS = ("P-256", "P-384", "RSA2048", "Ed25519")
PIECES = [
    b"\x00",
    b"\xff",
    b"\x9f",
    b"\xbf",
    b"\x5f",
    b"\xd2\x84",
    b"\xf6",
    b"\xa0",
    b"\x80",
    b"\x5b" + b"\xff" * 8,
]
PIECES += [
    b"\x81" * 40,
    b"\xc1\x00",
    b"\x1b" + b"\xff" * 8,
    b"\x30\x84\xff\xff\xff\xff",
    b"\x06\x03\x55\x1d\x11",
]
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1 << 62,
    "",
    "x/y",
    " ",
    b"",
    b"x",
    [],
    [b"x"],
    {},
    {1: 2},
    cbor.Tag(1, 5),
]
LABELS: list[Any] = [
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    9,
    11,
    12,
    15,
    16,
    33,
    34,
    258,
    394,
    395,
    396,
    "iss",
    "feed",
    "svn",
    -7,
]
TOKENS = [
    "did",
    "x509",
    "0",
    "1",
    "sha256",
    "sha512",
    "md5",
    ":",
    "::",
    "subject",
    "CN",
    "Leaf",
    "san",
    "dns",
    "%",
]
TOKENS += [
    "eku",
    "1.2.3",
    "fulcio-issuer",
    "%41",
    "%zz",
    "+",
    "O",
    "ü",
    "\x00",
    "a" * 300,
    "ipaddress",
    "uri",
    ".",
]


class Broken(AssertionError):
    """A reader did what it must not."""


def read(envelope: bytes, how: int) -> None:
    """Read as the daemon does, and insist on what it relies on."""
    reader = Reader()
    if how == 0:
        reader.reference_info(envelope)
    elif how == 1:
        found = reader.trust_list(envelope)
        if not found.issuer or not found.subject or not found.keys or not all(found.keys.values()):
            raise Broken("a trust list without what belongs to it")
        json.dumps(found)
    else:
        fragment = reader.fragment(envelope, KNOWN)
        if not fragment.issuer or not fragment.feed or isinstance(fragment.svn, bool):
            raise Broken("a fragment without what belongs to it")
        json.dumps(fragment)


class Fuzzer:
    """Seeds, and what is done to them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.count = self.taken = 0
        self.made = [signers.signer(kind).sign(svn=1) for kind in KINDS]
        self.made += [ledgers.attach(one, [ledgers.receipt(one)]) for one in self.made]
        payload = ledgers.trust_list(L=[ledgers.cose_key(signers.key_of("ledger"))])
        self.made.append(signers.signer().sign(payload, svn=1))
        self.made += made_envelopes.all_of_them()
        opened = [open_envelope(one) for one in self.made]
        self.signed = {(one.message.content, one.payload) for one in opened}
        self.chains = [list(one.chain) for one in opened]
        self.payload = payload
        self.proof = ledgers.proof(bytes(32))[0]
        self.targets: list[Callable[[], None]] = [
            self._mangled_envelope,
            self._odd_headers,
            self._mangled_certificate,
            self._odd_chain,
            self._odd_did,
            self._proof_or_list,
        ]

    def step(self) -> None:
        """Throw one input."""
        self.count += 1
        began = time.monotonic()
        self.random.choice(self.targets)()
        if time.monotonic() - began > LONGEST_S:
            raise Broken(f"one input took {time.monotonic() - began:.1f} s")

    def _mangled_envelope(self) -> None:
        self._throw(self._mangled(self.random.choice(self.made)))

    def _throw(self, envelope: bytes, *, ours: bool = False) -> None:
        found: Envelope | None = None
        try:
            found = open_envelope(envelope)
        except EnvelopeError as error:
            _require_readable(error)
        if found is not None:
            self.taken += 1
            if not ours and (found.message.content, found.payload) not in self.signed:
                raise Broken("taken, and nobody signed it")
        try:
            read(envelope, self.random.randrange(3))
        except Refused as refused:
            _require_readable(refused)
        described = describe(envelope)
        json.dumps(described)
        if described["valid"] and found is None:
            raise Broken("called valid, and it does not open")

    def _odd_headers(self) -> None:
        """Well signed, and odd all the same."""
        one = signers.signer()
        claims: dict[Any, Any] = {1: one.did, 2: "feed", "svn": 1}
        protected: dict[Any, Any] = {1: -7, 3: "a/b", 15: claims, 33: [cert.der for cert in one.chain]}
        unprotected: dict[Any, Any] = {}
        for _ in range(self.random.choice([1, 1, 2, 4])):
            where = self.random.choice([protected, protected, claims, unprotected])
            where[self.random.choice(LABELS)] = self._odd()
        payload = self.random.choice([b"x", b"", None, self.payload])
        self._throw(
            write(protected, unprotected, payload, one.key, "ES256", detached=payload or b""), ours=True
        )

    def _odd(self) -> Any:
        value = self.random.choice(ODD)
        if self.random.random() < 0.2:
            return [value, self.random.choice(ODD)]
        if self.random.random() < 0.2:
            return {self.random.choice([1, 2, "svn", -1]): value}
        return value

    def _mangled_certificate(self) -> None:
        encoded = self._mangled(self.random.choice(self.random.choice(self.chains)).der)
        try:
            found = Certificate(encoded)
        except EnvelopeError as error:
            _require_readable(error)
            return
        chain = list(self.random.choice(self.chains))
        chain[self.random.randrange(len(chain))] = found
        self._find(chain)

    def _odd_chain(self) -> None:
        pool = [one for chain in self.chains for one in chain]
        chain = list(self.random.choice(self.chains))
        for _ in range(self.random.choice([0, 1, 3, 30])):
            chain.insert(self.random.randrange(len(chain) + 1), self.random.choice(pool))
        if self.random.random() < 0.3:
            self.random.shuffle(chain)
        self._find(chain)

    def _find(self, chain: list[Certificate]) -> None:
        try:
            paths = find_paths(chain)
        except EnvelopeError as error:
            _require_readable(error)
            return
        for path in paths:
            if path[0].der != chain[0].der or path[-1].der != chain[-1].der:
                raise Broken("a path from or to somebody else")
            for child, issuer in itertools.pairwise(path):
                child.parsed.verify_directly_issued_by(issuer.parsed)

    def _odd_did(self) -> None:
        chain = self.random.choice(self.chains)
        text = make(chain, "cn", self.random.choice([1, 2]))
        parts = list(text) if self.random.random() < 0.5 else text.split(":")
        glue = "" if len(parts) == len(text) else ":"
        for _ in range(self.random.choice([0, 1, 2, 6])):
            place = self.random.randrange(len(parts) + 1)
            parts[place : place + self.random.choice([0, 1])] = [self.random.choice(TOKENS)]
        did = glue.join(parts)
        try:
            document = resolve(did, chain)
        except EnvelopeError as error:
            _require_readable(error)
            return
        pinned = did.split("::")[0].split(":")
        if document["id"] != did or pinned[4] not in (fingerprint_of(one, pinned[3]) for one in chain[1:]):
            raise Broken("resolved, and it pins nobody")

    def _proof_or_list(self) -> None:
        for read, data in ((compute_root, self.proof), (parse_trust_list, self.payload)):
            try:
                read(self._mangled(data))  # type: ignore[operator]
            except EnvelopeError as error:
                _require_readable(error)

    def _mangled(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.random.choice([0, 1, 1, 2, 5])):
            if not changed:
                break
            place = self.random.randrange(len(changed))
            match self.random.randrange(4):
                case 0:
                    changed[place] ^= 1 << self.random.randrange(8)
                case 1:
                    del changed[place : place + self.random.choice([1, 4, 200])]
                case 2:
                    changed[place:place] = self.random.choice(PIECES)
                case 3:
                    other = self.random.choice(self.made)
                    start = self.random.randrange(len(other))
                    changed[place : place + 40] = other[start : start + 40]
        return bytes(changed)


def _require_readable(error: Exception) -> None:
    text = str(error)
    if not text or len(text) > 20_000:
        raise Broken(f"a reason of {len(text)} characters")
    text.encode("utf-8", "surrogatepass")


def run(seconds: float, seed: int) -> tuple[int, int, float]:
    """Fuzz for ``seconds``; return how many inputs there were, how many opened, and the time.

    Raises:
        Broken: or whatever a reader let through.
    """
    log = logging.getLogger("uvmd_policy_rego")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    fuzzer, began = Fuzzer(seed), time.monotonic()
    try:
        while time.monotonic() - began < seconds:
            for _ in range(50):
                fuzzer.step()
    except BaseException:
        print(f"seed {seed}, input {fuzzer.count}", file=sys.stderr)
        raise
    finally:
        log.propagate = True
    return fuzzer.count, fuzzer.taken, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="Throw made-up signed artefacts at their readers.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    count, taken, took_s = run(options.seconds, seed)
    print(f"seed {seed}: {count} inputs in {took_s:.1f} s ({count / took_s:.0f} a second), {taken} opened")


if __name__ == "__main__":
    main()

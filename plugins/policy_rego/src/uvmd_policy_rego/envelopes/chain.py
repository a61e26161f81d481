"""From the leaf to the last certificate of a chain: every path, by the rules of RFC 5280.

The last certificate is believed, whatever it is; those between may stand in any order and
need not be used. Everything is judged at the moment at which the leaf expires, so that a
fragment signed long ago loads for ever (attestation.md 2.3). Trust comes from elsewhere: a
did:x509 names one certificate of the path, and a policy names the did.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography.x509.oid import ExtensionOID

from uvmd_policy_rego.envelopes.certificates import Certificate
from uvmd_policy_rego.envelopes.constraints import require_names_allowed, require_policies
from uvmd_policy_rego.envelopes.errors import ChainError

#: Signatures that are tried: a chain of namesakes must not make us try every order.
_MAX_SIGNATURE_CHECKS: Final = 100

Path = tuple[Certificate, ...]


def find_paths(chain: Sequence[Certificate]) -> list[Path]:
    """Return every valid path from the first certificate to the last, leaf first.

    Raises:
        ChainError: there is none; the text says why the most promising one failed.
    """
    leaf, anchor = chain[0], chain[-1]
    search = _Search(anchor, chain[1:-1], leaf.not_after)
    leaf.require_no_unhandled()
    _require_time(leaf, search.moment)
    if leaf.der == anchor.der:
        return [(leaf,)]
    search.go_on((leaf,))
    paths = [path for path in search.found if search.accepts(path)]
    if not paths:
        raise ChainError(search.why or f"nobody in the chain issued {leaf.shown}")
    return paths


def _require_time(certificate: Certificate, moment: datetime) -> None:
    if not certificate.not_before <= moment <= certificate.not_after:
        span = f"{certificate.not_before:%Y-%m-%d %H:%M:%S} to {certificate.not_after:%Y-%m-%d %H:%M:%S}"
        raise ChainError(
            f"{certificate.shown} is valid from {span}, not when the leaf expires, {moment:%Y-%m-%d %H:%M:%S}"
        )


class _Search:
    def __init__(self, anchor: Certificate, between: Sequence[Certificate], moment: datetime) -> None:
        self._anchor = anchor
        self._between = list({one.der: one for one in between}.values())
        self.moment = moment
        self._checks = 0
        self.found: list[Path] = []
        self.why = ""

    def go_on(self, path: Path) -> None:
        """Extend a path by everyone who may have issued its last certificate."""
        child = path[-1]
        if self._anchor.subject == child.issuer and self._takes(path, self._anchor):
            self.found.append((*path, self._anchor))
        for candidate in self._between:
            if candidate.subject == child.issuer and self._takes(path, candidate, between=True):
                self.go_on((*path, candidate))

    def _takes(self, path: Path, candidate: Certificate, *, between: bool = False) -> bool:
        if candidate.public_key is None or any(map(candidate.same_entity, path)):
            return False
        self._checks += 1
        if self._checks > _MAX_SIGNATURE_CHECKS:
            raise ChainError(f"more than {_MAX_SIGNATURE_CHECKS} signatures would have to be tried")
        try:
            path[-1].require_issued_by(candidate)
            self._require_issuer(path, candidate, between)
        except ChainError as error:
            self.why = str(error)
            return False
        return True

    def _require_issuer(self, path: Path, candidate: Certificate, between: bool) -> None:
        candidate.require_no_unhandled()
        _require_time(candidate, self.moment)
        require_names_allowed(candidate, path)
        constraints = candidate.extension(ExtensionOID.BASIC_CONSTRAINTS)
        if between and (constraints is None or not constraints.ca):
            raise ChainError(f"{candidate.shown} is no CA")
        longest = None if constraints is None else constraints.path_length
        if longest is not None and len(path) - 1 > longest:
            raise ChainError(f"{candidate.shown} allows {longest} certificates between it and the leaf")

    def accepts(self, path: Path) -> bool:
        """Whether the certificate policies of a whole path hold."""
        try:
            require_policies(path)
        except ChainError as error:
            self.why = str(error)
            return False
        return True

"""Name constraints and certificate policies of a path (RFC 5280 4.2.1.10 and 6.1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from uvmd_policy_rego.envelopes.certificates import COMPARED, Certificate
from uvmd_policy_rego.envelopes.errors import ChainError

_ANY_POLICY: Final = "2.5.29.32.0"
#: Names times constraints: a hostile CA must not make this quadratic.
_MAX_COMPARISONS: Final = 10_000
#: RFC 1035 2.3.4.
_MAX_DOMAIN: Final = 255


def require_names_allowed(issuer: Certificate, below: Sequence[Certificate]) -> None:
    """Insist that the issuer's constraints allow the alternative names of those below it.

    Raises:
        ChainError: naming the name.
    """
    constraints = issuer.extension(ExtensionOID.NAME_CONSTRAINTS)
    if constraints is None:
        return
    permitted, excluded = constraints.permitted_subtrees or (), constraints.excluded_subtrees or ()
    names = [name for one in below for name in one.alternative_names if isinstance(name, COMPARED)]
    if len(names) * (len(permitted) + len(excluded)) > _MAX_COMPARISONS:
        raise ChainError(f"{issuer.shown} constrains too many names")
    for name in names:
        kind = type(name)
        allowed = [one.value for one in permitted if isinstance(one, kind)]
        if any(_matches(name, one.value, True) for one in excluded if isinstance(one, kind)):
            raise ChainError(f"{issuer.shown} excludes the name {name.value}")
        if allowed and not any(_matches(name, one, False) for one in allowed):
            raise ChainError(f"{issuer.shown} does not permit the name {name.value}")


def _matches(name: x509.GeneralName, constraint: Any, excluding: bool) -> bool:
    if isinstance(name, x509.IPAddress):
        return _address_in(name.value, constraint)
    value = str(name.value)
    if isinstance(name, x509.UniformResourceIdentifier):
        return _domain_in(_host_of(value), constraint, excluding)
    if isinstance(name, x509.RFC822Name):
        local, at, domain = value.rpartition("@")
        if not at or not local:
            raise ChainError(f"the e-mail address {value!r} cannot be compared with constraints")
        if "@" in constraint:
            wanted, _, where = constraint.rpartition("@")
            return bool(local == wanted and domain.lower() == where.lower())
        return _domain_in(domain, constraint, excluding)
    return _domain_in(value, constraint, excluding)


def _address_in(address: Any, network: Any) -> bool:
    if isinstance(address, (ipaddress.IPv4Network, ipaddress.IPv6Network)):
        return False
    return bool(address.version == network.version and address in network)


def _host_of(uri: str) -> str:
    try:
        host = urlsplit(uri).hostname or ""
    except ValueError:
        host = ""
    digits = host.replace(".", "").isdigit() or ":" in host
    if not host or digits:
        raise ChainError(f"the URI {uri!r} cannot be compared with constraints")
    return host


def _domain_in(domain: str, constraint: str, excluding: bool) -> bool:
    if not constraint:
        return True
    below = constraint.startswith(".")
    wanted = constraint.removeprefix(".").lower().split(".")
    labels = domain.lower().split(".")
    if not all(labels) or max(len(domain), len(constraint)) > _MAX_DOMAIN:
        raise ChainError(f"the domain {domain!r} cannot be compared with constraints")
    if len(labels) < len(wanted) or (below and len(labels) == len(wanted)):
        return False
    tail = labels[len(labels) - len(wanted) :]
    # A wildcard stands for names that are excluded, too.
    return all(
        ours == theirs or (excluding and ours == "*") for ours, theirs in zip(tail, wanted, strict=True)
    )


def require_policies(path: Sequence[Certificate]) -> None:
    """Insist that certificate policies hold along a path, leaf first, starting from any policy.

    Raises:
        ChainError: somebody requires a policy that does not lead to the leaf.
    """
    if not any(_explicit(one) is not None for one in path[:-1]):
        return  # without a demand nothing can fail
    if any(ExtensionOID.POLICY_MAPPINGS in one.extensions for one in path):
        raise ChainError("required policies together with policy mappings are not supported")
    below = list(reversed(path[:-1]))
    known = {_ANY_POLICY}
    explicit = inhibit_any = len(below) + 1
    for number, one in enumerate(below, 1):
        last, itself = number == len(below), one.issuer == one.subject
        known = _policies_after(one, known, inhibit_any > 0 or (itself and not last))
        if not explicit and not known:
            break
        if not itself or last:
            explicit, inhibit_any = max(explicit - 1, 0), max(inhibit_any - 1, 0)
        demanded = _explicit(one)
        if demanded is not None and (not last or demanded == 0):
            explicit = min(explicit, demanded)
        skip = one.extension(ExtensionOID.INHIBIT_ANY_POLICY)
        if skip is not None:
            inhibit_any = min(inhibit_any, skip.skip_certs)
    if not explicit and not known:
        raise ChainError("a required certificate policy does not lead to the leaf")


def _explicit(certificate: Certificate) -> int | None:
    constraints = certificate.extension(ExtensionOID.POLICY_CONSTRAINTS)
    required: int | None = None if constraints is None else constraints.require_explicit_policy
    return required


def _policies_after(certificate: Certificate, known: set[str], any_counts: bool) -> set[str]:
    extension = certificate.extension(ExtensionOID.CERTIFICATE_POLICIES)
    named = {one.policy_identifier.dotted_string for one in extension or ()}
    others = named - {_ANY_POLICY}
    after = others if _ANY_POLICY in known else others & known
    return after | known if _ANY_POLICY in named and any_counts else after

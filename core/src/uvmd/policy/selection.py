"""From a SecurityPolicy message to an enforcer: decode, compare, select, build.

Nothing here is in force yet; the gate swaps. The order is the spec's (policy.md 3.3),
and what fails leaves everything as it was, so a host may try again.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from uvmd.api.policy import Enforcer
from uvmd.errors import Refused, UvmdError
from uvmd.policy import stances

REGO = "rego"
FAILED = "error creating security policy enforcer: "

#: Makes the enforcer for an encoded policy.
Factory = Callable[[str], Enforcer]
#: Reads the bytes that the VM was launched with.
HostData = Callable[[], bytes]


class PolicySettings(NamedTuple):
    """The SecurityPolicy message: base64 texts, kept exactly as received."""

    enforcer: str = ""
    policy: str = ""
    uvm_reference: str = ""
    hash_envelope_reference: str = ""


def decode_base64(text: str, what: str) -> bytes:
    """Decode as Go's standard encoding does: padding required, line breaks tolerated.

    Raises:
        Refused: it is not base64. The text is not quoted.
    """
    try:
        return binascii.a2b_base64(text.replace("\r", "").replace("\n", ""), strict_mode=True)
    except ValueError:  # binascii.Error is one
        raise Refused(f"failed to decode {what}: not standard base64") from None


def check_host_data(policy: bytes, hardware: Iterable[str], sources: Mapping[str, HostData]) -> None:
    """Require that the VM was launched for this very policy, the empty one included.

    SEV-SNP's HOST_DATA is the digest itself; TDX's MRCONFIGID is longer and padded with
    zeros (the rule is ours: MRCONFIGID has no reference).

    Raises:
        Refused: the launch data differ, cannot be read, or no plugin reads those of the
            hardware that is there. A check that cannot be made has not been passed.
    """
    # OpenSSL costs megabytes and milliseconds, and most VMs never get here.
    import hashlib
    import hmac

    digest = hashlib.sha256(policy).digest()
    for kind in sorted(hardware):
        source = sources.get(kind)
        if source is None:
            raise Refused(f"no plugin reads the launch data of this VM's {kind} hardware; policy refused")
        try:
            launched = source()
        except Exception as error:
            raise Refused(f"the launch data of the {kind} hardware cannot be read: {error}") from error
        if not isinstance(launched, bytes) or len(launched) < len(digest):
            raise Refused(f"the launch data of the {kind} hardware are not {len(digest)} bytes or more")
        if not hmac.compare_digest(launched, digest.ljust(len(launched), b"\0")):
            raise Refused(
                f"security policy digest {digest.hex()} doesn't match "
                f"HostData provided at launch {launched.hex()}"
            )


def select(settings: PolicySettings, factories: Mapping[str, Factory], selectable: Iterable[str]) -> Factory:
    """Return the maker of the enforcer that the message selects (spec policy.md 3.4).

    Raises:
        Refused: nobody provides that name, or the operator does not let a host pick it.
    """
    name = settings.enforcer or (REGO if settings.policy else stances.OPEN_DOOR)
    factory = {stances.OPEN_DOOR: stances.open_door, **factories}.get(name)
    if factory is None:
        known = " is not installed" if name == REGO else ""
        raise Refused(f'{FAILED}unknown enforcer: "{name[:64]}"{known}')
    if name not in selectable:
        raise Refused(f'{FAILED}"{name}" is not among those that the configuration lets a host pick')
    return factory


def build(factory: Factory, settings: PolicySettings) -> Enforcer:
    """Make the enforcer.

    Raises:
        Refused: it cannot be made, or it does not stand for the policy that it was given:
            an enforcer that reports no text would leave the VM without strict mode.
    """
    try:
        enforcer = factory(settings.policy)
    except UvmdError as error:
        raise Refused(f"{FAILED}{error}") from error
    except BaseException as error:  # a native engine's panic is no Exception
        raise Refused(f"{FAILED}{type(error).__name__}") from error
    if not isinstance(enforcer, Enforcer):
        raise Refused(f"{FAILED}what was made is no enforcer")
    if enforcer.text != settings.policy:
        enforcer.close()
        raise Refused(f"{FAILED}it does not stand for the policy that it was given")
    return enforcer

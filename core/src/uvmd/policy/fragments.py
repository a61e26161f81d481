"""The four signed artefacts that a host may inject, by media type (attestation.md 5).

What is in an envelope is found out here, before any enforcer hears of it. The reader is a
plugin's, because cryptography is; a VM without one takes nothing.
"""

from __future__ import annotations

import binascii
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from uvmd.api.envelopes import EnvelopeReader, Fragment, TrustList
from uvmd.api.policy import Enforcer
from uvmd.errors import Refused, UvmdError

log = logging.getLogger(__name__)

#: COSE_Sign1 with x5chain: the only format that hosts send.
FORMAT = "cose-x509"
#: Makes the reader of a format, when the first artefact comes.
MakeReader = Callable[[], EnvelopeReader]


class Kind(NamedTuple):
    """What one media type stands for.

    ``refusal`` goes before an enforcer's reason. Reference info is no enforcer's business
    and has a ``file`` instead: the name under which containers to come are shown it.
    """

    refusal: str = ""
    file: str = ""


FRAGMENT = Kind(refusal="error loading security policy fragment: ")
TRUST_LIST = Kind(refusal="error loading transparency trust list: ")
KINDS = {
    "": FRAGMENT,
    "application/cose-x509+rego": FRAGMENT,
    "application/vnd.transparency-trust-list.v1+cose": TRUST_LIST,
    "application/vnd.tcb-reference-info.v1+cose": Kind(file="tcb-reference-info-base64"),
    "application/vnd.platform-reference-info.v1+cose": Kind(file="platform-reference-info-base64"),
}


def kind_of(media_type: str) -> Kind:
    """Return what the media type stands for.

    Raises:
        Refused: a type that nobody handles.
    """
    kind = KINDS.get(media_type)
    if kind is None:
        raise Refused(f'cannot inject fragment blob with unsupported media type "{media_type[:128]}"')
    return kind


class Envelopes:
    """Reads signed artefacts with the plugins' reader. Calls are the gate's, one at a time."""

    def __init__(self, readers: Mapping[str, MakeReader]) -> None:
        self._make = readers.get(FORMAT)
        self._reader: EnvelopeReader | None = None

    def read(self, kind: Kind, blob: bytes, enforcer: Enforcer) -> Fragment | TrustList | None:
        """Return what a valid envelope says; None for reference info, which only has to be valid.

        Raises:
            Refused: it is not valid, or there is nobody who could say so.
        """
        if self._make is None:
            raise Refused(f"no plugin reads signed envelopes ({FORMAT}); nothing that is signed is taken")
        try:
            if self._reader is None:
                self._reader = self._make()
            return _read(self._reader, kind, blob, enforcer)
        except UvmdError as error:
            raise Refused(str(error)) from error
        except BaseException as error:  # a native library's panic is no Exception
            log.error("a signed envelope could not be read", extra={"error": type(error).__name__})
            raise Refused(f"the envelope could not be read: {type(error).__name__}") from None


def _read(reader: EnvelopeReader, kind: Kind, blob: bytes, enforcer: Enforcer) -> Fragment | TrustList | None:
    found: object
    if kind.file:
        reader.reference_info(blob)
        return None
    if kind is TRUST_LIST:
        found = reader.trust_list(blob)
    else:
        found = reader.fragment(blob, enforcer.ledger_keys())
    if type(found) is not (TrustList if kind is TRUST_LIST else Fragment):
        raise Refused(f"the envelope's reader answered with {type(found).__name__}")
    return found


def offer(signed: Fragment | TrustList, enforcer: Enforcer) -> None:
    """Give the enforcer what was read. Raises whatever it raises."""
    if isinstance(signed, TrustList):
        enforcer.load_trust_list(signed)
    else:
        enforcer.load_fragment(signed)


def encode(blob: bytes) -> str:
    """Encode for the security context directory: standard base64, whatever came in."""
    return binascii.b2a_base64(blob, newline=False).decode("ascii")

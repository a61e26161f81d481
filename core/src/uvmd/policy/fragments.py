"""The four signed artefacts that a host may inject, by media type (attestation.md 5)."""

from __future__ import annotations

import binascii
from typing import NamedTuple

from uvmd.errors import Refused


class Kind(NamedTuple):
    """What one media type stands for.

    ``point`` is the enforcement point that decides; reference info has none, and is kept
    for the containers to come under the name ``file``.
    """

    refusal: str
    point: str = ""
    file: str = ""


_FRAGMENT = Kind("error loading security policy fragment: ", point="load_fragment")

KINDS = {
    "": _FRAGMENT,
    "application/cose-x509+rego": _FRAGMENT,
    "application/vnd.transparency-trust-list.v1+cose": Kind(
        "error loading transparency trust list: ", point="load_transparency_trust_list"
    ),
    "application/vnd.tcb-reference-info.v1+cose": Kind(
        "error loading TCB reference info: ", file="tcb-reference-info-base64"
    ),
    "application/vnd.platform-reference-info.v1+cose": Kind(
        "error loading platform reference info: ", file="platform-reference-info-base64"
    ),
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


def encode(blob: bytes) -> str:
    """Encode for the security context directory: standard base64, whatever came in."""
    return binascii.b2a_base64(blob, newline=False).decode("ascii")

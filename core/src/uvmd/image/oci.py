"""OCI image layouts: from index.json to the layers of one image, every digest checked.

OCI image specification 1.1 (image-layout.md, image-index.md, manifest.md, config.md); Docker's
names for the same media types are understood too. Kept out: where blobs lie (``blobs``).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from uvmd.image.blobs import Blobs
from uvmd.image.errors import BadSource

_INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CONFIGS: Final = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_LAYER: Final = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar|docker\.image\.rootfs\.(foreign\.)?diff\.tar)"
    r"([+.](?P<packed>gzip|zstd))?"
)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_REFERENCE: Final = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME: Final = "io.containerd.image.name"
_ATTESTATION: Final = "vnd.docker.reference.type"
_MAX_DOCUMENT_BYTES: Final = 4 << 20
_MAX_DEPTH: Final = 3
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer to a blob."""

    media_type: str
    digest: str
    size: int
    platform: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """One layer as the manifest has it."""

    blob: Descriptor
    #: ``gzip``, ``zstd`` or nothing.
    compression: str
    #: The digest of the tar itself; empty where the config does not say.
    diff_id: str


def own_platform() -> str:
    """Return this machine's platform as OCI writes it, like ``linux/amd64``."""
    machine = os.uname().machine
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


@dataclass(frozen=True, slots=True)
class FoundImage:
    """The layers of an image, base first, and what its configuration says; {} if that is not OCI's."""

    layers: list[LayerBlob]
    config: dict[str, Any]


def find_layers(blobs: Blobs, *, platform: str = "", reference: str = "") -> list[LayerBlob]:
    """Return the layers that :func:`find_image` finds."""
    return find_image(blobs, platform=platform, reference=reference).layers


def find_image(blobs: Blobs, *, platform: str = "", reference: str = "") -> FoundImage:
    """Return the one image that is asked for.

    Args:
        platform: like ``linux/arm64/v8``; empty for this machine's, or the only one there is.
        reference: the name of one of several images in the layout.

    Raises:
        BadSource: the layout is damaged, lacks a blob, or does not say which image is meant.
    """
    version = _document(blobs.file("oci-layout"), "oci-layout").get("imageLayoutVersion")
    if version != "1.0.0":
        raise BadSource(f"{blobs.name}: oci-layout has version {version!r}; 1.0.0 is read")
    index = _document(blobs.file("index.json"), "index.json")
    manifests = [one for one in _manifests(blobs, index, "", 0) if _is_image(one)]
    chosen = _choose(blobs, manifests, platform, reference)
    manifest = _blob_document(blobs, chosen, "manifest")
    config = _descriptor(manifest.get("config"), "the manifest's config")
    diff_ids: Sequence[Any] = ()
    document: dict[str, Any] = {}
    if config.media_type in _CONFIGS:
        document = _blob_document(blobs, config, "config")
        rootfs = document.get("rootfs")
        rootfs = rootfs if isinstance(rootfs, dict) else {}
        diff_ids = _list(rootfs.get("diff_ids"), "the config's diff_ids")
    layers = _list(manifest.get("layers"), "the manifest's layers")
    if diff_ids and len(diff_ids) != len(layers):
        raise BadSource(f"the config has {len(diff_ids)} diff_ids for {len(layers)} layers")
    if not layers:
        raise BadSource("the image has no layers")
    found = [
        _layer(_descriptor(layer, f"layer {number}"), diff_ids[number] if diff_ids else "")
        for number, layer in enumerate(layers)
    ]
    return FoundImage(found, document)


def _layer(blob: Descriptor, diff_id: Any) -> LayerBlob:
    found = _LAYER.fullmatch(blob.media_type)
    if not found:
        raise BadSource(
            f"layer {blob.digest} has the media type {blob.media_type!r};"
            " tar layers of OCI and Docker are read: plain, gzip or zstd"
        )
    if diff_id and not (isinstance(diff_id, str) and _DIGEST.fullmatch(diff_id)):
        raise BadSource("a diff_id of the config is not a digest")
    return LayerBlob(blob, found["packed"] or "", diff_id)


def _manifests(blobs: Blobs, index: dict[str, Any], reference: str, depth: int) -> Iterator[Descriptor]:
    if depth > _MAX_DEPTH:
        raise BadSource(f"{blobs.name}: indexes inside indexes, more than {_MAX_DEPTH} deep")
    for number, entry in enumerate(_list(index.get("manifests"), "the index's manifests")):
        one = _descriptor(entry, f"manifest {number} of the index", reference)
        if one.media_type in _INDEXES:
            yield from _manifests(blobs, _blob_document(blobs, one, "index"), one.reference, depth + 1)
        else:
            yield one


def _is_image(one: Descriptor) -> bool:
    # buildkit files its attestations beside the images, for no platform.
    return one.media_type in _MANIFESTS and one.platform != "unknown/unknown"


def _choose(blobs: Blobs, manifests: list[Descriptor], platform: str, reference: str) -> Descriptor:
    if not manifests:
        raise BadSource(f"{blobs.name}: index.json names no image manifest")
    found = manifests
    if reference:
        found = [one for one in found if one.reference in (reference, f"docker.io/library/{reference}")]
        if not found:
            names = sorted({one.reference or "(no name)" for one in manifests})
            raise BadSource(f"{blobs.name} has no image {reference!r}; there are: {', '.join(names)}")
    wanted = platform or own_platform()
    if platform or len(found) > 1:
        platforms = {one.digest: one.platform or _platform_of(blobs, one) for one in found}
        there = sorted(set(platforms.values()))
        found = [one for one in found if _fits(platforms[one.digest], wanted)]
        if not found:
            raise BadSource(
                f"{blobs.name} has no image for {wanted}; choose with --platform from: {', '.join(there)}"
            )
    if len({one.digest for one in found}) > 1:
        names = sorted(one.reference or one.digest for one in found)
        raise BadSource(
            f"{blobs.name} has several images for {wanted}; choose with --ref from: {', '.join(names)}"
        )
    return found[0]


def _fits(platform: str, wanted: str) -> bool:
    # linux/arm64 asks for linux/arm64/v8 as well.
    return platform == wanted or platform.startswith(f"{wanted}/")


def _platform_of(blobs: Blobs, manifest: Descriptor) -> str:
    config = _descriptor(_blob_document(blobs, manifest, "manifest").get("config"), "the manifest's config")
    return _platform(_blob_document(blobs, config, "config")) or "unknown"


def _platform(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    parts = [value.get("os"), value.get("architecture"), value.get("variant")]
    return "/".join(part for part in parts if isinstance(part, str) and part)


def _descriptor(value: Any, what: str, reference: str = "") -> Descriptor:
    if not isinstance(value, dict):
        raise BadSource(f"{what} is missing or not an object")
    digest, size, media_type = value.get("digest"), value.get("size"), value.get("mediaType")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise BadSource(f"{what} has no sha256 or sha512 digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise BadSource(f"{what} ({digest}) has no size")
    if not isinstance(media_type, str):
        raise BadSource(f"{what} ({digest}) has no mediaType")
    notes = value.get("annotations")
    notes = notes if isinstance(notes, dict) else {}
    named = notes.get(_REFERENCE) or notes.get(_CONTAINERD_NAME) or reference
    platform = "unknown/unknown" if _ATTESTATION in notes else _platform(value.get("platform"))
    return Descriptor(media_type, digest, size, platform, named if isinstance(named, str) else reference)


def _blob_document(blobs: Blobs, descriptor: Descriptor, what: str) -> dict[str, Any]:
    if descriptor.size > _MAX_DOCUMENT_BYTES:
        raise BadSource(f"{what} {descriptor.digest} claims {descriptor.size} bytes: refused")
    return _document(blobs.checked(descriptor.digest, descriptor.size), f"{what} {descriptor.digest}")


def _document(text: bytes, what: str) -> dict[str, Any]:
    if len(text) > _MAX_DOCUMENT_BYTES:
        raise BadSource(f"{what} has {len(text)} bytes: refused")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSource(f"{what} is not JSON") from error
    if not isinstance(value, dict):
        raise BadSource(f"{what} is not a JSON object")
    return value


def _list(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise BadSource(f"{what} are missing or not a list")
    return value

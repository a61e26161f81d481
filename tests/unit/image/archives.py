"""Makes tars and OCI layouts for tests, with the standard library's writer."""

from __future__ import annotations

import atexit
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from uvmd.image.content import Region
from uvmd.image.tars import Layer, read_tar

TAR = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"

#: A member of an archive: what it is, and a file's bytes.
Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def directory(name: str, **fields: Any) -> Entry:
    return entry(name, kind=tarfile.DIRTYPE, **fields)


def link(name: str, target: str) -> Entry:
    return entry(name, kind=tarfile.LNKTYPE, linkname=target)


def symlink(name: str, target: str) -> Entry:
    return entry(name, kind=tarfile.SYMTYPE, linkname=target)


def tar(*entries: Entry, format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


#: Files of the last regions. No test looks at one that is older: property tests make hundreds.
_recent: deque[IO[bytes]] = deque()
_RECENT = 32
_kept: list[IO[bytes]] = []


def region(content: bytes, name: str = "test.tar", *, kept: bool = False) -> Region:
    """An open file with these bytes, for as long as one test may want it, or all of a module's."""
    file = tempfile.TemporaryFile()
    file.write(content)
    file.flush()
    (_kept if kept else _recent).append(file)
    if len(_recent) > _RECENT:
        _recent.popleft().close()
    return Region(file.fileno(), 0, len(content), name)


@atexit.register
def close_recent() -> None:
    """A file that is left to the collector is a warning, and warnings are errors."""
    while _kept:
        _kept.pop().close()
    while _recent:
        _recent.popleft().close()


def layer(*entries: Entry, format: int = tarfile.PAX_FORMAT) -> Layer:
    return read_tar(region(tar(*entries, format=format)))


def packed(content: bytes, kind: str) -> bytes:
    if kind == "zstd":
        return subprocess.run(["zstd", "-cq"], input=content, capture_output=True, check=True).stdout
    return gzip.compress(content, 1, mtime=0) if kind else content


class Layout:
    """An OCI layout as files by path, to be spoilt by tests before it is written."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.manifests: list[dict[str, Any]] = []

    def blob(self, content: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content), **more}

    def image(
        self,
        tars: Iterable[bytes],
        *,
        kinds: Sequence[str] = (),
        platform: str = "linux/amd64",
        ref: str = "",
        say_platform: bool = True,
    ) -> dict[str, Any]:
        """Add an image and return its descriptor."""
        layers, diff_ids = [], []
        for number, content in enumerate(tars):
            kind = kinds[number] if kinds else ""
            layers.append(self.blob(packed(content, kind), f"{TAR}+{kind}" if kind else TAR))
            diff_ids.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
        parts = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        config = self.blob(json.dumps({**parts, "rootfs": rootfs}).encode(), CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        more: dict[str, Any] = {"platform": parts} if say_platform else {}
        if ref:
            more["annotations"] = {"org.opencontainers.image.ref.name": ref}
        descriptor = self.blob(json.dumps(manifest).encode(), MANIFEST, **more)
        self.manifests.append(descriptor)
        return descriptor

    def write(self, path: Path) -> Path:
        """Write it as a directory."""
        for name, content in self._all().items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path

    def tar(self) -> bytes:
        return tar(*(entry(name, content) for name, content in self._all().items()))

    def _all(self) -> dict[str, bytes]:
        index = json.dumps({"schemaVersion": 2, "manifests": self.manifests}).encode()
        return {"index.json": index, **self.files}

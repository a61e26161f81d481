"""Configurations of ``generate`` for tests, and what they name: layer images, OCI layouts."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

HASH = "ab" * 32
WEB = f"""
[[container]]
name = "web"
layers = ["{HASH}"]
command = ["web", "--port", "80"]
working_dir = "/srv"
allow_stdio_access = true
signals = ["SIGTERM"]

[[container.env_rule]]
strategy = "re2"
rule = "TOKEN=.+"
required = true

[[container.mount]]
host_path = "sandbox:///data/.+"
container_path = "/data"
readonly = true

[[container.exec_process]]
command = ["top", "-b"]
signals = [9]

[container.user]
umask = "0027"
user_idname = {{strategy = "id", rule = "1000"}}
group_idname = [{{strategy = "any"}}]

[container.capabilities]
bounding = ["CAP_KILL"]
"""


def write(folder: Path, text: str = WEB, name: str = "policy.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def directory(folder: Path) -> Path:
    tree = folder / "rootfs"
    tree.mkdir()
    (tree / "hello").write_text("hello\n" * 2000)
    return tree


def oci_layout(folder: Path, config: dict[str, Any], *contents: str) -> Path:
    """Write an OCI layout whose layers hold one file each."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    kind = "application/vnd.oci.image"
    layers = [blob(_tar(content), f"{kind}.layer.v1.tar") for content in contents]
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    whole = {"os": "linux", "architecture": "amd64", "config": config, "rootfs": rootfs}
    about = blob(json.dumps(whole).encode(), f"{kind}.config.v1+json")
    manifest = json.dumps({"schemaVersion": 2, "config": about, "layers": layers}).encode()
    index = {"schemaVersion": 2, "manifests": [blob(manifest, f"{kind}.manifest.v1+json")]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return folder


def _tar(content: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content.encode()))
    return packed.getvalue()

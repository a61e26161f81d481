"""`uvmctl policy generate` on a gibibyte of layers, beside `veritysetup format` of the same data.

    python plugins/policy_rego/bench/generating.py [--mebibytes 1024] [--rounds 5]

The same files as a directory, a tar and an OCI layout of six plain layers; the tool beside
them hashes the image that `uvmctl image build` makes of all. Every program starts anew,
its input is in the page cache, and what it writes is new; the figure is the median of the
rounds, in which each takes its turn. Bar: 1.0. Of an OCI layout the blobs' own digests are
checked as well, which is all the hashing once more. Run it with nothing else going on: half
of the hashing is done by a second process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

SIZES = (300, 2_000, 9_000, 40_000, 200_000, 2_000_000, 8_000_000)
LAYERS = 6
UVMCTL = [sys.executable, "-I", "-m", "uvmd.cli.uvmctl"]
CONFIG = '[[container]]\nimage = "{}"\ncommand = ["true"]\n'


def make_tree(root: Path, size: int) -> None:
    dice, written, number = random.Random(1), 0, 0
    while written < size:
        folder = root / f"layer{number % LAYERS}" / f"d{number % 97}"
        folder.mkdir(parents=True, exist_ok=True)
        data = dice.randbytes(min(dice.choice(SIZES), size - written))
        (folder / f"f{number}").write_bytes(data)
        written += len(data)
        number += 1


def make_layout(tree: Path, folder: Path) -> None:
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def place(path: Path, media_type: str) -> dict[str, object]:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
        path.rename(blobs / digest)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}

    def document(value: object, kind: str) -> dict[str, object]:
        path = folder / "document"
        path.write_text(json.dumps(value))
        return place(path, f"application/vnd.oci.image.{kind}.v1+json")

    layers = []
    for part in sorted(tree.iterdir()):
        path = folder / "layer"
        with tarfile.open(path, "w") as archive:
            archive.add(part, part.name)
        layers.append(place(path, "application/vnd.oci.image.layer.v1.tar"))
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    config = document({"os": "linux", "architecture": "amd64", "rootfs": rootfs}, "config")
    manifest = document({"schemaVersion": 2, "config": config, "layers": layers}, "manifest")
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def timed(*argv: str) -> float:
    began = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="uvmd-generating-", dir="/var/tmp") as name:
        base = Path(name)
        make_tree(base / "tree", asked.mebibytes << 20)
        with tarfile.open(base / "tree.tar", "w") as archive:
            archive.add(base / "tree", "tree")
        make_layout(base / "tree", base / "oci")
        image = base / "image"
        timed(*UVMCTL, "image", "build", str(base / "tree"), "-o", str(image))
        print_figures(base, image, asked.rounds)


def print_figures(base: Path, image: Path, rounds: int) -> None:
    program = shutil.which("veritysetup", path="/usr/sbin:/sbin:/usr/bin:/bin")
    assert program, "veritysetup is not installed: make setup"
    info = subprocess.run(
        [*UVMCTL, "image", "info", str(image), "--json"], check=True, capture_output=True
    ).stdout
    blocks = json.loads(info)["ext4_bytes"] // 4096
    sources = {"a directory": "tree", "a tar": "tree.tar", f"an OCI layout, {LAYERS} layers": "oci"}

    def verity() -> float:
        salted = ("--salt", "0" * 64, f"--data-blocks={blocks}")
        took = timed(program, "format", *salted, str(image), f"{base}/out")
        (base / "out").unlink()
        return took

    def generate(path: str) -> Callable[[], float]:
        config = base / f"{path}.toml"
        config.write_text(CONFIG.format(path))
        return lambda: timed(*UVMCTL, "policy", "generate", str(config))

    works = {"veritysetup format": verity, **{what: generate(path) for what, path in sources.items()}}
    times: dict[str, list[float]] = {what: [] for what in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for what, work in works.items():
            times[what].append(work())
    bare = statistics.median(times.pop("veritysetup format"))
    print(f"veritysetup format of the same data: {bare:.2f} s")
    for what, samples in times.items():
        took = statistics.median(samples)
        print(f"generate from {what}: {took:.2f} s, {took / bare:.2f} x (bar 1.0)")


if __name__ == "__main__":
    main()

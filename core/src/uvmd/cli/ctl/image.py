"""``uvmctl image``: layer images, made and looked at without a daemon."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from uvmd.cli.ctl.image_jobs import Job, Made, build_all
from uvmd.cli.ctl.image_progress import ProgressLine
from uvmd.cli.ctl.settings import Settings, common, note, pass_settings
from uvmd.cli.ctl.tables import size, table

_OWN_HASHES = (
    "these hashes hold for images that uvmctl makes; a host that makes its own images of the same layers"
    " has its own hashes, which are read from its images with: uvmctl image info FILE"
)


@click.group("image", context_settings={"help_option_names": ["-h", "--help"]})
@common()
def image_verb() -> None:
    """Make read-only layer images for a VM, and look at them. Needs no daemon and no root.

    An image is an ext4 filesystem with a dm-verity hash tree behind it. The same files give
    the same image and root hash, on any machine, day and version of the system's tools,
    whatever their order in the source. The hashes hold for images made here: a host that
    makes its own images of the same layers has its own hashes.

    \b
      uvmctl image build rootfs/ -o rootfs.img              a directory
      uvmctl image build layer.tar.gz -o layer.img          a tar; its whiteouts are kept
      uvmctl image build oci-layout/ -o layers/             an OCI image: one file a layer
      uvmctl image info layer.img                           what it is, and its root hash
      uvmctl image verify layer.img                         every block against the tree
    """


def _source_options(verb: Any) -> Any:
    for option in (
        click.option(
            "--clamp-mtime",
            type=click.IntRange(0),
            metavar="SECONDS",
            envvar="SOURCE_DATE_EPOCH",
            help="Make later file times this one [default: $SOURCE_DATE_EPOCH, else keep all].",
        ),
        click.option("--ref", "reference", default="", metavar="NAME", help="Which image of an OCI layout."),
        click.option(
            "--platform",
            default="",
            metavar="OS/ARCH",
            help="Which image of an OCI layout [default: this machine's, or the only one].",
        ),
        click.option("--squash", is_flag=True, help="Press all layers into one image without whiteouts."),
        click.argument("source"),
    ):
        verb = option(verb)
    return verb


@image_verb.command("build", short_help="Make images of a directory, a tar or an OCI image.")
@click.option("-o", "--output", required=True, metavar="PATH", help="File to write, or directory for layers.")
@click.option("--vhd", is_flag=True, help="End each image with the footer of a fixed VHD, for Hyper-V.")
@_source_options
@common()
@pass_settings
def build_verb(settings: Settings, /, output: str, **wishes: Any) -> None:
    """Make images of SOURCE: a directory, a tar (plain, gzip, zstd; - is stdin) or an OCI layout.

    The layers of an OCI image become files in the directory PATH, numbered from the base
    up; everything else, and --squash, becomes the file PATH.

    \b
      uvmctl image build rootfs/ -o rootfs.img
      tar c -C rootfs . | uvmctl image build - -o rootfs.img
      uvmctl image build --platform linux/arm64 oci.tar -o layers/
      uvmctl image build --squash oci-layout/ -o rootfs.vhd --vhd
      uvmctl image build oci-layout/ -o layers/ --json | jq -r '.images[].root_hash'
    """
    _run(settings, Job(output=Path(output), **wishes))


@image_verb.command("hash", short_help="Print the root hashes that `build` would give.")
@_source_options
@common()
@pass_settings
def hash_verb(settings: Settings, /, **wishes: Any) -> None:
    """Print the root hashes that `build` would give for SOURCE, and write nothing.

    \b
      uvmctl image hash oci-layout/
      uvmctl image hash rootfs/ --json | jq -r '.images[0].root_hash'
    """
    _run(settings, Job(output=None, vhd=False, **wishes))


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Have a signal that ends us unwind first, as the interrupt key does: half an image goes with us."""
    before = {
        number: signal.signal(number, lambda got, _: sys.exit(128 + got))
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(settings: Settings, job: Job) -> None:
    with _ended_in_order(), ProgressLine(quiet=settings.json) as line:
        kind, made = build_all(job, line)
    images = [_as_json(one) for one in made]
    settings.show({"source": kind, "images": images}, lambda: _render(made))
    for warning in dict.fromkeys(warning for one in made for warning in one.warnings):
        note(f"warning: {warning}")
    if job.clamp_mtime is not None:
        note(f"file times later than {job.clamp_mtime} (seconds since 1970) became that one")
    if not settings.json:
        note(_OWN_HASHES)


def _as_json(one: Made) -> dict[str, Any]:
    return {
        "path": str(one.path) if one.path else None,
        "digest": one.digest or None,
        "diff_id": one.diff_id or None,
        **asdict(one.image),
        "warnings": list(one.warnings),
    }


def _render(made: Sequence[Made]) -> str:
    headers = ("IMAGE", "LAYER", "FILES", "EXT4", "SIZE", "ROOT HASH")
    rows = [
        (
            one.path or "(not written)",
            _short(one.diff_id or one.digest),
            one.image.files,
            size(one.image.ext4_bytes),
            size(one.image.size),
            one.image.root_hash,
        )
        for one in made
    ]
    return table(headers, rows, right=("FILES", "EXT4", "SIZE"))


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12]


@image_verb.command("info", short_help="Say what an image is: sizes, label, root hash.")
@click.option("--device", default="DEVICE", metavar="DEV", help="The device to write into the table line.")
@common()
@click.argument("file", type=click.Path(path_type=Path))
@pass_settings
def info_verb(settings: Settings, /, file: Path, device: str) -> None:
    """Say what FILE is: sizes, label, root hash, and the line for dmsetup. Checks nothing.

    \b
      uvmctl image info layer.img
      uvmctl image info layer.img --json | jq -r .root_hash
      uvmctl image info layer.img --json --device /dev/sda | jq -r .table | dmsetup create -r layer
    """
    from uvmd.image import dm_table, read_info

    found = read_info(file)
    line = dm_table(file, device) if found.root_hash else None
    facts = {
        "image": str(file),
        "made by": "uvmctl" if found.is_ours else "another tool: its hash is not what uvmctl would give",
        "filesystem": _filesystem(found.block_size, found.read_only, found.journal),
        "label": found.label or "-",
        "uuid": found.uuid,
        "inodes": str(found.inodes),
        "size": f"{size(found.size)} ({found.size} bytes{', with VHD footer' if found.vhd_footer else ''})",
        "ext4": f"{size(found.ext4_bytes)} ({found.ext4_bytes} bytes)",
        "hash tree": size(found.tree_bytes) if found.root_hash else f"none: {found.why_no_tree}",
        "root hash": found.root_hash or "-",
        "table": line or "-",
    }
    settings.show(
        {"path": str(file), **asdict(found), "made_by_uvmctl": found.is_ours, "table": line},
        lambda: "\n".join(f"{name:<11} {text}" for name, text in facts.items()),
    )


def _filesystem(block_size: int, read_only: bool, journal: bool) -> str:
    words = [f"ext4, {block_size}-byte blocks"]
    words += ["read-only"] if read_only else ["writable"]
    words += ["with a journal"] if journal else []
    return ", ".join(words)


@image_verb.command("verify", short_help="Check every block against the hash tree.")
@click.option("--root-hash", default="", metavar="HASH", help="The root hash that it must have.")
@common()
@click.argument("file", type=click.Path(path_type=Path))
@pass_settings
def verify_verb(settings: Settings, /, file: Path, root_hash: str) -> None:
    """Check every block of FILE against its hash tree, as the kernel will when it reads them.

    Without --root-hash a match says only that the file is whole: whoever changed it could
    have changed the tree as well.

    \b
      uvmctl image verify layer.img --root-hash "$(cat layer.hash)"
    """
    from uvmd.image import verify

    if root_hash and not _is_hash(root_hash):
        raise click.UsageError("a root hash has 64 hexadecimal digits")
    with ProgressLine(quiet=settings.json) as line:
        found = verify(file, root_hash=root_hash, progress=line)
    settings.show(
        {"path": str(file), "root_hash": found.root_hash, "trusted": bool(root_hash)},
        f"{file}: all of {size(found.ext4_bytes)} match the root hash {found.root_hash}",
    )


def _is_hash(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdefABCDEF" for character in text)

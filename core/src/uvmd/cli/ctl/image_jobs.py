"""What ``uvmctl image build`` and ``hash`` do: one image, or one for each layer, or none at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uvmd.cli.ctl.image_progress import ProgressLine
from uvmd.image import Image, ImageError, Source, SourceLayer, Tree, build_image, open_source


@dataclass(frozen=True, slots=True)
class Job:
    """The verbs' options."""

    source: str
    #: None: only the root hashes are wanted.
    output: Path | None
    squash: bool
    vhd: bool
    platform: str
    reference: str
    clamp_mtime: int | None


@dataclass(frozen=True, slots=True)
class Made:
    """One image, and what it was made of."""

    path: Path | None
    image: Image
    digest: str = ""
    diff_id: str = ""
    warnings: Sequence[str] = ()


def build_all(job: Job, line: ProgressLine) -> tuple[str, list[Made]]:
    """Do a job; return the source's kind and the images, base first.

    When a layer fails, the images of those before it are removed again.

    Raises:
        ImageError: the source cannot be turned into images, or they cannot be written.
    """
    beside = str(job.output.absolute().parent) if job.output else ""
    if beside and not os.path.isdir(beside):
        raise ImageError(f"there is no directory {beside} to write into")
    with open_source(
        job.source, platform=job.platform, reference=job.reference, spool_directory=beside, progress=line
    ) as source:
        if source.kind == "oci" and not job.squash:
            return source.kind, _layers(job, source, line)
        if job.squash:
            with source.squashed() as tree:
                return source.kind, [_one(job, tree, job.output, None, line)]
        (layer,) = source.layers
        with layer.tree() as tree:
            return source.kind, [_one(job, tree, job.output, layer, line)]


def _layers(job: Job, source: Source, line: ProgressLine) -> list[Made]:
    directory, made = job.output, list[Made]()
    created = directory is not None and _make_directory(directory)
    try:
        for number, layer in enumerate(source.layers):
            line.prefix = f"layer {number + 1}/{len(source.layers)}: "
            path = directory / _name(number, layer, job.vhd) if directory else None
            with layer.tree() as tree:
                made.append(_one(job, tree, path, layer, line))
    except BaseException:
        for one in made:
            if one.path:
                one.path.unlink(missing_ok=True)
        if created and directory:
            directory.rmdir()
        raise
    return made


def _one(job: Job, tree: Tree, path: Path | None, layer: SourceLayer | None, line: ProgressLine) -> Made:
    if job.clamp_mtime is not None:
        tree.clamp_mtime(job.clamp_mtime)
    image = build_image(tree, path, with_vhd_footer=job.vhd, progress=line)
    if layer is None:
        return Made(path, image, warnings=tree.warnings)
    return Made(path, image, layer.digest, layer.diff_id, tree.warnings)


def _name(number: int, layer: SourceLayer, vhd: bool) -> str:
    """Sorted by name, the files are in the order of the layers, base first."""
    digest = (layer.diff_id or layer.digest).partition(":")[2]
    return f"{number:03d}-{digest[:12]}.{'vhd' if vhd else 'img'}"


def _make_directory(path: Path) -> bool:
    try:
        path.mkdir()
    except FileExistsError as error:
        if not path.is_dir():
            raise ImageError(
                f"{path} is a file, and an OCI image has several layers: name a directory, or use --squash"
            ) from error
        return False
    except OSError as error:
        raise ImageError(f"cannot make the directory {path}: {error.strerror}") from error
    return True

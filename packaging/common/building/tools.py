"""Running Debian's tools, telling how far we are, and folders that come whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

KEY_DIGITS = 12


class BuildError(Exception):
    """What was asked for cannot be built; the text says why and what to do."""


def run(*command: str | Path, show: bool = False, env: dict[str, str] | None = None) -> None:
    """Run a tool; its output is shown when asked for, or when it fails.

    Raises:
        BuildError: it is not installed, or it failed.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.STDOUT,
            text=True,
            env={**os.environ, "LC_ALL": "C", **(env or {})},
        )
    except FileNotFoundError:
        raise BuildError(
            f"{words[0]} is not installed: .ci/system-packages guest, or .ci/system-packages packages"
        ) from None
    if done.returncode != 0:
        text = "" if show else f":\n{(done.stdout or '')[-4000:]}"
        raise BuildError(f"`{' '.join(words)}` ended with status {done.returncode}{text}")


class Progress:
    """One line a step on standard error, with the time it took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        print(f"  {text} ...", end="", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            yield
        except BaseException:
            print(" failed", file=sys.stderr, flush=True)
            raise
        taken = time.monotonic() - began
        self.seconds[text] = round(taken, 2)
        print(f" {taken:.1f} s", file=sys.stderr, flush=True)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Make a folder: the caller fills another one, which takes the name at the end."""
    building = folder.with_name(f"{folder.name}.{os.getpid()}")
    remove(building)
    building.mkdir(parents=True)
    try:
        yield building
        building.rename(folder)
    finally:
        remove(building)


def remove(path: Path) -> None:
    """Remove a file or a folder that may not be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def keep_latest(layer: str, current: Path, keep: int = 2) -> None:
    """Mark ``current`` as used now, and remove all but the latest of its layer.

    More than one is kept: two checkouts of the code, or two runs, may take turns. What a killed
    run left half built goes as well.
    """
    os.utime(current)
    key = "[0-9a-f]" * KEY_DIGITS
    others = [path for path in current.parent.glob(f"{layer}-{key}{current.suffix}") if path != current]
    others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in others[keep - 1 :]:
        remove(path)
    for path in current.parent.glob(f"{layer}-{key}.*"):
        builder = path.suffix.removeprefix(".")
        if builder.isdigit() and not Path(f"/proc/{builder}").exists():
            remove(path)


def place(content: bytes | Path, target: Path, mode: int = 0o644) -> None:
    """Put a file into a root file system that may share its files with another by hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(target)
    if isinstance(content, Path):
        shutil.copyfile(content, target)
    else:
        target.write_bytes(content)
    target.chmod(mode)


def digest(parts: Sequence[bytes | str | Path], *, skip: Sequence[str] = ()) -> str:
    """Return a short key of texts, files, and folders with the names in them.

    Args:
        skip: names of files and folders that do not count.
    """
    total = hashlib.sha256()

    def add(data: bytes) -> None:
        total.update(len(data).to_bytes(8, "little") + data)

    for part in parts:
        if isinstance(part, str):
            add(part.encode())
        elif isinstance(part, bytes):
            add(part)
        elif part.is_dir():
            for path in sorted(part.rglob("*")):
                inside = path.relative_to(part)
                if path.is_file() and not any(word.endswith(tuple(skip)) for word in inside.parts if skip):
                    add(str(inside).encode())
                    add(oct(path.stat().st_mode & 0o111).encode())
                    add(path.read_bytes())
        else:
            add(part.read_bytes())
    return total.hexdigest()[:KEY_DIGITS]

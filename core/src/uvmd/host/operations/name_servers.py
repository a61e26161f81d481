"""``resolv.conf`` of pods that run: kept in step with their adapters (spec containers.md 16.21).

The file is bound into every container of the pod, so it is written in place, and only while it
still says what was written before: a container that has changed it knows why.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from typing import Final

from uvmd.api.transaction import Undo
from uvmd.errors import Failed, UvmdError
from uvmd.host.containers import Container
from uvmd.host.context import Context
from uvmd.host.operations.places import root_above
from uvmd.linux import paths
from uvmd.oci.shape.network_files import resolv_conf_text

log = logging.getLogger(__name__)

#: Whoever changes a namespace's adapters holds this key, as create and delete of its pod do.
_KEY: Final = "netns:"
_FILE: Final = "resolv.conf"

Follow = Callable[[Undo], None]


def watch(ctx: Context, keys: Collection[str]) -> Follow:
    """Look at the name servers before a change that holds these keys.

    What is returned brings the files in step after it, and raises Refused or Failed.
    """
    names = {key.removeprefix(_KEY) for key in keys if key.startswith(_KEY)}
    if not names:
        return _nothing
    # A workload has no namespace of its own in its record.
    before = [(one, _text(ctx, one)) for one in ctx.registry.containers() if one.role.namespace in names]

    def follow(undo: Undo) -> None:
        for container, text in before:
            wanted = resolv_conf_text(*ctx.network.dns(container.role))
            if text is not None and wanted != text:
                _replace(ctx, container, text, wanted, undo)

    return follow


def _nothing(undo: Undo) -> None:
    """No adapter changes."""


def _text(ctx: Context, container: Container) -> str | None:
    try:
        return resolv_conf_text(*ctx.network.dns(container.role))
    except UvmdError:
        return None  # Then nothing that we know was written.


def _replace(ctx: Context, container: Container, old: str, new: str, undo: Undo) -> None:
    path = f"{container.sandbox_root}/{_FILE}"
    root = root_above(path, ctx.settings.bundle_roots, _FILE)
    try:
        fd = paths.open_beneath(root, os.path.relpath(path, root), os.O_RDWR | os.O_NONBLOCK)
    except FileNotFoundError:
        return  # The host mounts one of its own.
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from error
    try:
        if os.read(fd, len(old.encode()) + 1) != old.encode():
            log.info("resolv.conf is not as it was written, ignoring", extra={"container": container.id})
            return
        undo.callback(_put_back, root, path, old, step=f"put {_FILE} back")
        _write(fd, new)
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from error
    finally:
        os.close(fd)


def _put_back(root: str, path: str, text: str) -> None:
    fd = paths.open_beneath(root, os.path.relpath(path, root), os.O_WRONLY | os.O_NONBLOCK)
    try:
        _write(fd, text)
    finally:
        os.close(fd)


def _write(fd: int, text: str) -> None:
    """One write, then the rest is cut off: a reader never sees an empty file."""
    data = text.encode()
    if data and os.pwrite(fd, data, 0) != len(data):
        raise OSError(28, os.strerror(28))
    os.ftruncate(fd, len(data))

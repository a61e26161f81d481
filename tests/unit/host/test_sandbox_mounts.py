"""The directories that a pod shares, each a mount of its own, on the real kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from uvmd.api.transaction import transaction
from uvmd.host.operations import sandbox
from uvmd.linux import mounts


@pytest.mark.root
@pytest.mark.parametrize("name", sandbox.SHARED)
def test_a_sandbox_that_fails_takes_nothing_along_that_was_mounted_in_its_place(
    tmp_path: Path, name: str
) -> None:
    root = str(tmp_path)
    mounts.mount("around", root, "tmpfs")
    mounts.make_shared(root)
    inner = f"{root}/{name}/inner"
    os.makedirs(inner)
    mounts.mount("inner", inner, "tmpfs")
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        with pytest.raises(ZeroDivisionError), transaction() as undo:
            sandbox._make_mount(fd, root, name, undo)
            raise ZeroDivisionError
        assert len(mounts.mounted_at(inner)) == 1
        assert mounts.mounted_at(f"{root}/{name}") == []
    finally:
        os.close(fd)
        mounts.set_propagation(root, mounts.PROPAGATION["rprivate"])
        mounts.unmount_tree(root, mounts.MNT_DETACH)

"""Images judged by others: e2fsck, veritysetup, debugfs, GNU tar, and the kernel itself."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from unit.image.archives import Layout, directory, entry, layer, region, tar
from unit.image.test_build import ENTRIES, tree_of
from uvmd.image import Image, build_image, open_source
from uvmd.image.content import BLOCK, ArchiveContent, Span
from uvmd.image.layers import as_overlay
from uvmd.image.tree import Inode, Tree

pytestmark = pytest.mark.system

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
ACL = bytes.fromhex(
    "02000000010006 00ffffffff020004 00e8030000 040004 00ffffffff100004 00ffffffff200004 00ffffffff"
)


def run(*argv: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in argv], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def judged(path: Path, image: Image) -> None:
    """No complaint of e2fsck; the root hash is veritysetup's own, and its verification passes."""
    run("e2fsck", "-fn", path)
    offset = f"--hash-offset={image.ext4_bytes}"
    run("veritysetup", "verify", offset, path, path, image.root_hash)
    formatted = run(
        *("veritysetup", "format", "--salt", "0" * 64, f"--data-blocks={image.ext4_bytes // BLOCK}"),
        *(path, path.with_suffix(".hash")),
    )
    assert f"Root hash:      \t{image.root_hash}\n" in formatted


def test_an_ordinary_layer_pleases_e2fsck_and_veritysetup(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    judged(path, build_image(tree_of(*ENTRIES), path))


def deep() -> Tree:
    tree = Tree()
    tree.put((b"d",) * 1500, Inode(stat.S_IFREG | 0o644))
    return tree


def crowded() -> Tree:
    """More inodes than groups of the usual size would have room for."""
    tree = Tree()
    for number in range(70_000):
        tree.put((b"%d" % (number % 700), b"%d" % number), Inode(stat.S_IFREG | 0o644))
    return tree


def large() -> Tree:
    """A file across several groups, one with many extents, and directories of many blocks."""
    tree = Tree()
    source = region(os.urandom(8 << 20))
    spans = tuple(Span(at << 23, 8 << 20, 0) for at in range(40))
    tree.put((b"big",), Inode(stat.S_IFREG | 0o644, content=ArchiveContent(source, 40 << 23, spans)))
    spans = tuple(Span(at * 3 * BLOCK + 5, 100, at) for at in range(2000))
    pieces = ArchiveContent(source, 2000 * 3 * BLOCK, spans)
    tree.put((b"pieces",), Inode(stat.S_IFREG | 0o644, content=pieces))
    for number in range(3000):
        tree.put(
            (b"names", b"%0200d" % number), Inode(stat.S_IFLNK | 0o777, target=b"t" * (number % 200 + 1))
        )
    return tree


def wide() -> Tree:
    tree = Tree()
    for number in range(65_100):
        tree.put((b"%d" % number,), Inode(stat.S_IFDIR | 0o755))
    return tree


def attributes() -> Tree:
    tree = Tree()
    for number in range(1, 60):
        names = {b"user.%0*d" % (number, index): b"v" * index for index in range(number % 12)}
        extra = {
            b"system.posix_acl_access": ACL,
            b"trusted.overlay.opaque": b"y",
            b"user.\xc3\xa9": b"\0\xff",
        }
        tree.put((b"%d" % number,), Inode(stat.S_IFREG | 0o644, xattrs=names | extra))
    return tree


@pytest.mark.parametrize("make", [Tree, deep, crowded, large, wide, attributes])
def test_trees_at_the_edges_please_them_too(tmp_path: Path, make: type[Tree]) -> None:
    path = tmp_path / "x.img"
    tree = make()
    tree.finish()
    judged(path, build_image(tree, path))


def test_debugfs_sees_the_files(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    build_image(tree_of(*ENTRIES), path)
    (tmp_path / "out").mkdir()
    run("debugfs", "-R", f"rdump /usr {tmp_path}/out", path)
    assert (tmp_path / "out" / "usr" / "tool").read_bytes() == b"\x7fELF" * 5000
    assert 'Fast link dest: "usr/tool"' in run("debugfs", "-R", "stat /short", path)
    assert "security.capability (20)" in run("debugfs", "-R", "ea_list /usr/tool", path)
    assert "Device major/minor number: 259:70000" in run("debugfs", "-R", "stat /disk", path)


def test_gnu_tars_sparse_files_are_read(tmp_path: Path) -> None:
    with open(tmp_path / "f", "wb") as file:
        for at in range(0, 1 << 24, 1 << 20):
            file.seek(at)
            file.write(b"island" * 1000)
    expected = (tmp_path / "f").read_bytes()
    hashes = set()
    for options in (["--format=gnu"], ["--format=pax", "--sparse-version=0.1"], ["--format=pax"]):
        run("tar", "-C", tmp_path, "-c", "--sparse", *options, "-f", tmp_path / "t.tar", "f")
        assert (tmp_path / "t.tar").stat().st_size < 1 << 20
        with open_source(str(tmp_path / "t.tar")) as source, source.layers[0].tree() as tree:
            hashes.add(build_image(tree, tmp_path / "x.img").root_hash)
        run("debugfs", "-R", f"dump /f {tmp_path}/back", tmp_path / "x.img")
        assert (tmp_path / "back").read_bytes() == expected
    assert len(hashes) == 1


@contextmanager
def mounted(*images: Path) -> Iterator[Path]:
    """Images mounted by the kernel; several of them under an overlay, base first."""
    # Not below tmp_path: another run of pytest renames old ones, mounts and all.
    with tempfile.TemporaryDirectory(prefix="uvmd-image-") as base, ExitStack() as stack:

        def mount(target: Path, *words: str | Path) -> None:
            target.mkdir()
            run("mount", *words, target)
            stack.callback(run, "umount", target)

        targets = [Path(base, str(number)) for number in range(len(images))]
        for target, image in zip(targets, images, strict=True):
            mount(target, "-t", "ext4", "-o", "loop,ro,noload", image)
        if len(images) > 1:
            lower = ":".join(str(one) for one in reversed(targets))
            targets.append(Path(base, "overlay"))
            mount(targets[-1], "-t", "overlay", "-o", f"ro,lowerdir={lower}", "overlay")
        yield targets[-1]


@pytest.mark.root
def test_the_kernel_mounts_what_the_tar_held(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    build_image(tree_of(*ENTRIES), path)
    with mounted(path) as root:
        tool = (root / "usr" / "tool").stat()
        assert (tool.st_mode, tool.st_nlink, tool.st_mtime_ns) == (stat.S_IFREG | 0o4755, 2, 9_000_000_000)
        assert (root / "usr" / "tool").read_bytes() == b"\x7fELF" * 5000
        assert os.getxattr(root / "usr" / "tool", "security.capability") == b"\x01\0\0\x02\0\x04" + bytes(14)
        assert os.getxattr(root / "var", "trusted.overlay.opaque") == b"y"
        assert (root / "long").readlink() == Path("/".join(["up"] * 40))
        gone = (root / "usr" / "gone").lstat()
        assert (stat.S_ISCHR(gone.st_mode), gone.st_rdev) == (True, 0)
        disk = (root / "disk").lstat().st_rdev
        assert (os.major(disk), os.minor(disk)) == (259, 70_000)
        big = (root / "big-id").stat()
        assert (big.st_uid, big.st_gid, big.st_mtime) == (3_000_000_000, 70_000, 5_000_000_000)
        assert (root / "holes").read_bytes() == b"a" + bytes(40_000) + b"b"
        assert len(list((root / "many").iterdir())) == 100


@pytest.mark.root
def test_the_kernel_reads_back_attributes_and_acls(tmp_path: Path) -> None:
    path, tree = tmp_path / "x.img", attributes()
    expected = {path[0]: inode.xattrs for path, inode in tree.walk() if path}
    build_image(tree, path)
    with mounted(path) as root:
        for name, xattrs in expected.items():
            file = root / name.decode()
            assert {os.fsencode(one): os.getxattr(file, one) for one in os.listxattr(file)} == xattrs


@pytest.mark.root
def test_layers_under_an_overlay_are_the_squashed_image(tmp_path: Path) -> None:
    layout = Layout()
    base = tar(
        directory("d", mode=0o755), entry("d/one", b"1"), entry("d/two", b"2"), entry("e/x"), entry("f")
    )
    upper = tar(
        directory("d", mode=0o755), entry("d/.wh.one"), entry("e/.wh..wh..opq"), entry("e/y"), entry(".wh.f")
    )
    layout.image([base, upper], kinds=["gzip", "zstd"])
    with open_source(str(layout.write(tmp_path / "oci"))) as source:
        images = []
        for number, one in enumerate(source.layers):
            with one.tree() as tree:
                images.append(tmp_path / f"{number}.img")
                build_image(tree, images[-1])
        with source.squashed() as tree:
            names = {"/".join(part.decode() for part in path) for path, _ in tree.walk() if path}
    with mounted(*images) as root:
        found = {str(path.relative_to(root)) for path in root.rglob("*")}
    assert found == names == {"d", "d/two", "e", "e/y"}


@pytest.mark.root
def test_a_directory_comes_back_with_all_it_had(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"data")
    os.chown(root / "d" / "f", 1234, 5678)
    os.setxattr(root / "d" / "f", "user.note", b"\0\1")
    os.setxattr(root / "d", "trusted.overlay.opaque", b"y")
    os.mknod(root / "d" / "gone", stat.S_IFCHR, 0)
    os.utime(root / "d" / "f", (0, 77))
    with open_source(str(root)) as source, source.layers[0].tree() as tree:
        build_image(tree, tmp_path / "x.img")
    with mounted(tmp_path / "x.img") as back:
        file = (back / "d" / "f").stat()
        assert (file.st_uid, file.st_gid, file.st_mtime) == (1234, 5678, 77)
        assert os.getxattr(back / "d" / "f", "user.note") == b"\0\1"
        assert os.getxattr(back / "d", "trusted.overlay.opaque") == b"y"
        assert (back / "d" / "gone").lstat().st_rdev == 0


def test_an_image_of_one_file_fits_in_little(tmp_path: Path) -> None:
    image = build_image(as_overlay(layer(entry("f", b"x"))), tmp_path / "x.img")
    judged(tmp_path / "x.img", image)
    assert image.size <= 12 * BLOCK

"""CombinedLayers with real overlays (root): what a container would see, and what is left."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from overlays import TYPE, Place

from uvmd.api import Keep
from uvmd.api.testing import Workbench, fake_environment
from uvmd.errors import Failed, Inconsistent, InUse, Refused
from uvmd.linux import mounts, paths
from uvmd_storage_overlay import layout, overlay, plugin
from uvmd_storage_overlay.settings import MAX_LAYERS

pytestmark = pytest.mark.root


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    assert place.clean_up() == [], "a test left mounts behind"


@pytest.fixture(params=["descriptors", "numbers"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Overlays are mounted as on a new kernel, and as on an older one."""
    assert overlay.takes_descriptors() in (True, False)
    way = str(request.param)
    if way == "descriptors" and not overlay.takes_descriptors():
        way = "numbers"  # this kernel has the one way only, which is then tested twice
    monkeypatch.setattr(overlay, "takes_descriptors", lambda: way == "descriptors")
    return way


def read(path: Path) -> str:
    return path.read_text()


def test_a_read_only_overlay_shows_the_topmost_layer_first(place: Place, either_way: str) -> None:
    before = place.everything()
    place.bench.add(TYPE, place.read_only())
    assert sorted(os.listdir(place.root)) == ["all", "only0", "only1", "only2"]
    assert read(place.root / "all") == "0"
    with pytest.raises(OSError) as refused:
        (place.root / "new").touch()
    assert refused.value.errno == errno.EROFS
    (mounted,) = mounts.mounted_at(str(place.root))
    assert (mounted.fstype, mounted.source, mounted.read_only) == ("overlay", "overlay", True)
    place.remove()
    assert place.everything() == before


def test_what_is_written_lands_on_the_scratch_and_stays_there(place: Place, either_way: str) -> None:
    place.add()
    (place.root / "new").write_text("mine")
    (place.root / "all").write_text("changed")
    assert read(place.layers[0] / "all") == "0"
    assert read(place.scratch / "upper" / "new") == "mine"
    assert (place.root.stat().st_mode & 0o7777, place.root.stat().st_uid) == (0o755, 0)
    place.remove()
    assert read(place.scratch / "upper" / "all") == "changed"
    place.add()
    assert read(place.root / "new") == "mine"
    place.remove()


@pytest.mark.parametrize("known", range(4))
def test_whatever_layers_are_opened_ahead_the_overlay_is_the_same(
    place: Place, either_way: str, monkeypatch: pytest.MonkeyPatch, known: int
) -> None:
    """A layer that a file system must be asked for is opened by apply, which may wait."""
    open_known, asked = paths.open_known_beneath, []

    def some(root: int, relatives: Iterable[str], flags: int) -> Iterator[int]:
        for number, fd in enumerate(open_known(root, relatives, flags)):
            if number == known:
                os.close(fd)
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            asked.append(fd)
            yield fd

    monkeypatch.setattr(paths, "open_known_beneath", some)
    before = place.everything()
    place.add()
    assert len(asked) == known
    assert read(place.root / "all") == "0"
    assert sorted(os.listdir(place.root)) == ["all", "only0", "only1", "only2"]
    place.remove()
    after = place.everything()
    assert (after["mounts"], after["descriptors"]) == (before["mounts"], before["descriptors"])


@pytest.mark.parametrize("then", ["nothing", "gone", "made"])
def test_directories_that_were_known_ahead_may_go_and_others_come(
    place: Place, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    ways = [place.bundle / "s", place.bundle]
    ways[0].mkdir(parents=True)
    get_ready = layout.get_ready

    def meanwhile(parts: layout.Layout, keep: Keep) -> layout.Ready:
        ready = get_ready(parts, keep)
        for way, known in zip(ways, (ready.to_scratch, ready.to_target), strict=True):
            assert known is not None
            assert os.path.samestat(os.fstat(known.fd), way.stat())
            if then == "gone":
                way.rmdir()
            elif then == "made":
                (ways[0] / "upper").mkdir(exist_ok=True)
                place.root.mkdir(exist_ok=True)
        return ready

    monkeypatch.setattr(layout, "get_ready", meanwhile)
    before = place.everything()
    place.add(ScratchPath=str(ways[0]))
    assert read(place.root / "all") == "0"
    place.remove()
    after = place.everything()
    assert (after["mounts"], after["descriptors"]) == (before["mounts"], before["descriptors"])


def test_what_the_kernel_does_not_know_is_not_asked_for_ahead(tmp_path: Path) -> None:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        here, missing = str(tmp_path)[1:], f"{str(tmp_path)[1:]}/missing"
        (fd,) = paths.open_known_beneath(root, [here], os.O_PATH)
        assert os.path.samestat(os.fstat(fd), tmp_path.stat())
        os.close(fd)
        (tmp_path / "link").symlink_to(tmp_path)
        for bad in (missing, f"{here}/link", f"{here}/../x"):
            with pytest.raises(OSError, match=str(tmp_path)[1:]):
                next(paths.open_known_beneath(root, [bad], os.O_PATH))
    finally:
        os.close(root)


def test_names_with_separators_in_them_are_names(place: Place, either_way: str) -> None:
    odd = place.base / "a:b,lowerdir=c\\d e\té"
    odd.mkdir()
    (odd / "odd").touch()
    scratch = place.base / "s:1,ro\\"
    place.add(Layers=[{"Path": str(odd)}, {"Path": str(place.layers[1])}], ScratchPath=str(scratch))
    assert sorted(os.listdir(place.root)) == ["all", "odd", "only1"]
    (place.root / "new").touch()
    assert os.listdir(scratch / "upper") == ["new"]
    place.remove()


@pytest.mark.parametrize("count", [200, MAX_LAYERS])
def test_very_many_layers_fit(tmp_path: Path, either_way: str, count: int) -> None:
    place = Place(tmp_path, layers=count)
    place.add()
    assert len(os.listdir(place.root)) == count + 1
    assert read(place.root / "all") == "0"
    place.remove()
    assert place.clean_up() == []


def test_the_bundle_lies_on_the_scratch_until_its_container_is_deleted(place: Place) -> None:
    place.add()
    (place.bundle / "config.json").write_text("{}")
    assert read(place.scratch / "bundle" / "config.json") == "{}"
    assert place.mounted() == ["pods/c1", "pods/c1/rootfs"]
    place.bench.host.states["c1"] = "stopped"
    place.remove()
    assert place.mounted() == ["pods/c1"], "deleting the container takes it away"
    (bind,) = place.bench.table.of_container("c1")
    assert bind.target == str(place.bundle)
    place.add()  # on top of it, without a second bind
    assert place.mounted() == ["pods/c1", "pods/c1/rootfs"]
    del place.bench.host.states["c1"]
    place.remove()


def test_the_bundle_of_a_container_that_never_was_goes_with_the_overlay(place: Place) -> None:
    before = place.everything()
    place.add()
    place.remove()
    after = place.everything()
    assert after["mounts"] == [] == after["table"]
    left = set(after["tree"]) - set(before["tree"])
    assert left == {
        "disk/scratch",
        "disk/scratch/c1",
        "disk/scratch/c1/upper",
        "disk/scratch/c1/work",
        "disk/scratch/c1/work/work",
    }, "the scratch keeps what was written"


def test_a_scratch_in_the_bundle_needs_no_bind(place: Place) -> None:
    place.add(ScratchPath=str(place.bundle / "scratch" / "c1"))
    assert place.mounted() == ["pods/c1/rootfs"]
    place.remove()
    assert place.mounted() == []


@pytest.mark.parametrize("scratch", [True, False])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_layer_that_is_not_there_is_named_and_nothing_is_made(
    place: Place, number: int, scratch: bool
) -> None:
    missing = place.layers[number]
    missing.rename(place.base / "elsewhere")
    before = place.everything()
    with pytest.raises(Failed, match=f"layer {number + 1} of 3 {missing}: no such file or directory"):
        place.bench.add(TYPE, place.settings() if scratch else place.read_only())
    assert place.everything() == before
    (place.base / "elsewhere").rename(missing)
    place.add()
    place.remove()


def test_a_file_or_a_symlink_is_no_layer(place: Place) -> None:
    before = place.everything()
    link, file = place.base / "layers" / "link", place.base / "layers" / "l0" / "all"
    link.symlink_to(place.layers[1])
    with pytest.raises(Failed, match=r"layer 1 of 1 .*link: too many levels of symbolic links"):
        place.add(Layers=[{"Path": str(link)}])
    with pytest.raises(Failed, match=r"layer 1 of 1 .*link/x: too many levels of symbolic links"):
        place.add(Layers=[{"Path": str(link / "x")}])
    with pytest.raises(Failed, match=r"layer 2 of 2 .*all: not a directory"):
        place.add(Layers=[{"Path": str(place.layers[2])}, {"Path": str(file)}])
    link.unlink()
    assert place.everything() == before


@pytest.mark.parametrize("where", ["pods", "disk/scratch", "disk/scratch/c1/upper", "pods/c1/rootfs"])
def test_a_planted_symlink_is_not_followed(place: Place, where: str) -> None:
    outside = place.base / "outside"
    outside.mkdir()
    link = place.base / where
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    before = place.everything()
    with pytest.raises(Failed, match=r"too many levels of symbolic links|not a directory"):
        place.add(ScratchPath=str(place.bundle / "s") if "pods/" in where else str(place.scratch))
    assert place.everything() == before
    assert os.listdir(outside) == []


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("disk/scratch/c1/upper", "failed to create upper directory in scratch space"),
        ("disk/scratch/c1/work", "failed to create workdir in scratch space"),
        ("disk/scratch/c1/bundle", "create bundle backing dir"),
        ("pods/c1", "create bundle dir"),
        ("disk/scratch/c1/bundle/rootfs", "failed to create directory for container root filesystem"),
    ],
)
def test_a_file_in_the_way_fails_the_step_that_meets_it(place: Place, file: str, text: str) -> None:
    path = place.base / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("kept")
    before = place.everything()
    with pytest.raises(Failed, match=f"{text} .*: not a directory"):
        place.add()
    assert place.everything() == before
    assert path.read_text() == "kept"


def test_a_full_scratch_is_said_and_shown_in_the_log(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    mounts.mount("tmpfs", str(place.base / "disk"), "tmpfs", 0, "nr_inodes=3")
    before = place.everything()
    with caplog.at_level(logging.WARNING), pytest.raises(Failed, match=r"upper directory .*no space left"):
        place.add()
    assert place.everything() == before
    (line,) = [record for record in caplog.records if record.message == "no space for a directory"]
    assert (line.folder, line.inodes) == (str(place.scratch), 3)  # type: ignore[attr-defined]
    mounts.unmount(str(place.base / "disk"))


def test_overlays_stacked_too_deep_are_refused_by_the_kernel_and_undone(place: Place) -> None:
    deeper, deepest = Place(place.base / "two"), Place(place.base / "three")
    place.add()
    deeper.layers.insert(0, place.root)
    deeper.add()
    deepest.layers.insert(0, deeper.root)
    before = deepest.everything()
    with pytest.raises(Failed, match=f"failed to mount overlayfs at {deepest.root}: "):
        deepest.add()
    assert deepest.everything() == before
    deeper.remove()
    place.remove()


def test_a_second_overlay_at_the_same_path_is_refused_and_the_first_stays(place: Place) -> None:
    place.add()
    before = place.everything()
    with pytest.raises(Refused, match="already exists"):
        place.add()
    assert place.everything() == before
    assert read(place.root / "all") == "0"
    place.remove()


def test_a_busy_overlay_marks_the_vm_and_is_removed_later(place: Place) -> None:
    place.add()
    with open(place.root / "busy", "wb"):
        with pytest.raises(Failed, match=f"unmounting overlay at {place.root} failed: device or resource"):
            place.remove()
    assert str(place.root) in place.bench.mounted()
    assert f"unmounting overlay at {place.root}" in (place.bench.gate.degraded or "")
    place.remove()
    assert place.mounted() == []


def test_one_that_is_gone_already_is_removed(place: Place) -> None:
    place.bench.add(TYPE, place.read_only())
    mounts.unmount(str(place.root))
    place.remove()
    assert place.bench.mounted() == []
    assert place.bench.gate.degraded is None


def test_many_containers_share_layers_and_come_and_go_at_once(place: Place) -> None:
    errors: list[BaseException] = []
    bench = Workbench(plugin.resource_types(), fake_environment())

    def come_and_go(name: str) -> None:
        root = str(place.base / "pods" / name / "rootfs")
        scratch = str(place.base / "disk" / "scratch" / name)
        try:
            for _ in range(3):
                bench.add(TYPE, {**place.settings(), "ContainerRootPath": root, "ScratchPath": scratch})
                bench.remove(TYPE, {"ContainerRootPath": root})
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=come_and_go, args=(f"c{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert (place.mounted(), bench.mounted(), bench.lock.table()) == ([], [], ())


class TestStrict:
    """A strict VM takes exact paths only, so these are the real ones, of a container with a random id."""

    @pytest.fixture
    def strict(self, place: Place) -> Iterator[Place]:
        place.container = os.urandom(32).hex()
        place.bundle = Path("/run/gcs/c") / place.container
        place.root = place.bundle / "rootfs"
        place.scratch = place.bundle / "scratch" / place.container
        existed = [path for path in (Path("/run/gcs"), Path("/run/gcs/c")) if path.exists()]
        place.bench.be_strict()
        yield place
        left = [one.target for one in mounts.mountinfo() if one.target.startswith(str(place.bundle))]
        mounts.unmount_tree(str(place.bundle), 2)
        for path in sorted(place.bundle.rglob("*"), reverse=True):
            path.rmdir()
        for path in (place.bundle, Path("/run/gcs/c"), Path("/run/gcs")):
            if path.exists() and path not in existed:
                path.rmdir()
        assert left == []

    def test_it_is_asked_mounted_and_removed(self, strict: Place) -> None:
        strict.add()
        (strict.root / "new").touch()
        (strict.root / "new").unlink()
        assert strict.bench.mounted() == [str(strict.root)]
        strict.remove()
        assert strict.bench.mounted() == []
        assert strict.bench.gate.inconsistent is None

    def test_layers_cannot_be_released_below_it(self, strict: Place) -> None:
        from uvmd.api import Claim, Kind

        layer = str(strict.layers[1])
        strict.bench.table.change([Claim(layer, "/dev/sdb", Kind.READ_ONLY)], strict=True)
        strict.add()
        with pytest.raises(InUse, match="is still in use"):
            strict.bench.table.change(releases=[Claim(layer)], strict=True)
        strict.remove()
        strict.bench.table.change(releases=[Claim(layer)], strict=True)

    def test_a_failed_unmount_closes_the_vm(self, strict: Place) -> None:
        strict.bench.add(TYPE, {**strict.settings(), "ScratchPath": ""})
        with open(strict.root / "all", "rb"):
            with pytest.raises(Failed, match="device or resource busy"):
                strict.remove()
        assert f"unmounting overlay at {strict.root}" in (strict.bench.gate.inconsistent or "")
        with pytest.raises(Inconsistent):
            strict.remove()
        mounts.unmount(str(strict.root))

"""The image, layer by layer; each is a folder of the cache under a key of what it is made from.

``debian``   Debian's packages as they come, and the unpacked kernel package: the slow part
``base``     trimmed, with our units, kernel modules and the environment without uvmd;
             from here on there are files to boot: vmlinux, initramfs.cpio, root.erofs
``uvm``      the product: base with the Debian package that `make packages` builds of the source
             tree, in place of the environment
"""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from guestimage import recipe, wheels
from guestimage.kernel import Kernel
from guestimage.tools import BuildError, Progress, digest, keep_latest, place, remove, run, whole_folder
from uvmd.api.testing.guest import cpio
from uvmd.api.testing.guest.image import Image as Bootable

HERE = Path(__file__).parents[1]
REPOSITORY = HERE.parents[1]
#: uvmd's own units; what the image has otherwise are drop-ins below ``root``.
UNITS = HERE.parent / "systemd"
#: What the package is built with; `make` puts it there.
PACKAGE_TOOLS = REPOSITORY / ".cache" / "packages-tools"
COMMANDS = ("uvmd", "uvmctl", "gcs")
#: Where tests put the code under test instead of installing it (see tests/guest).
CODE = "opt/uvmd/code"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller wants otherwise than the recipe has it."""

    packages: Sequence[str] = ()
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class Image(Bootable):
    """A finished layer that boots."""

    @property
    def package(self) -> Path:
        """The Debian package that is installed in it; in the product alone."""
        return self.folder / "uvmd.deb"

    @property
    def facts(self) -> dict[str, object]:
        """Key, kernel, sizes and the seconds of each step of its build."""
        found: dict[str, object] = json.loads((self.folder / "image.json").read_text())
        return found


class Builder:
    """Builds layers in a cache folder; what is there already is taken as it is."""

    def __init__(self, cache: Path, wishes: Wishes | None = None) -> None:
        self._cache = cache
        self._wishes = wishes or Wishes()
        self._progress = Progress()
        self._distributions = wheels.find_distributions(REPOSITORY)

    # -- Debian

    def debian(self) -> Path:
        """Return the folder with ``tree`` and ``kernel``, built when it is missing."""
        packages = (*recipe.PACKAGES, *self._wishes.packages)
        year, week, _ = datetime.datetime.now(datetime.UTC).isocalendar()
        facts = (*packages, *recipe.MIRRORS, *recipe.EXCLUDED, recipe.KERNEL_PACKAGE, f"{year}-W{week}")
        folder = self._cache / f"debian-{digest(facts)}"
        if not folder.exists():
            self._build_debian(folder, packages)
        keep_latest("debian", folder)
        return folder

    def _build_debian(self, folder: Path, packages: Sequence[str]) -> None:
        with whole_folder(folder) as room:
            with self._progress.step(f"Debian {recipe.SUITE} (mmdebstrap, {len(packages)} packages)"):
                self._bootstrap(room, packages)
            with self._progress.step("unpacking the kernel"):
                (package,) = room.glob("*.deb")
                run("dpkg", "-x", package, room / "kernel")
                package.unlink()
                Kernel(room / "kernel")

    def _bootstrap(self, room: Path, packages: Sequence[str]) -> None:
        kernel = recipe.KERNEL_PACKAGE
        # apt-get download takes no dependencies; the package of the real version is the first one.
        fetch = (
            f'export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"; cd {room} && apt-get -q download '
            f'$(apt-cache depends {kernel} | sed -n "s/^ *Depends: \\(linux-image-.*\\)/\\1/p" | head -n 1)'
        )
        run(
            "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory",
            f"--include={','.join(packages)}",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.EXCLUDED),
            "--aptopt=APT::Sandbox::User \"root\"",
            f"--customize-hook={fetch}",
            recipe.SUITE, room / "tree", *recipe.MIRRORS,
        )  # fmt: skip

    # -- base

    def base(self) -> Image:
        """Return the image without uvmd, built when it is missing."""
        debian = self.debian()
        pins = wheels.pins_for(self._distributions, REPOSITORY / ".ci" / "constraints.txt")
        config = self._wishes.config or HERE / "root" / "etc" / "uvmd" / "uvmd.toml"
        recipes = (HERE / "guestimage", Path(cpio.__file__), HERE.parent / "common", UNITS)
        parts = (debian.name, pins, *recipes, HERE / "root", HERE / "init", config)
        image = Image(self._cache / f"base-{digest(parts, skip=('__pycache__', '.pyc'))}")
        if not image.folder.exists():
            self._build_base(image.folder, debian, pins, config)
        keep_latest("base", image.folder)
        return image

    def _build_base(self, folder: Path, debian: Path, pins: str, config: Path) -> None:
        with whole_folder(folder) as room:
            kernel = Kernel(debian / "kernel")
            with self._progress.step("trimming, units, kernel modules"):
                self._make_root(debian / "tree", room / "tree", kernel, config)
            with self._progress.step("pinned wheels, virtual environment"):
                wheels.download(pins, room / "wheels")
                wheels.make_environment(room / "tree", room / "wheels")
                self._leave_room_for_code(room / "tree")
            with self._progress.step("byte code"):
                wheels.compile_all(room / "tree", f"usr/lib/python{recipe.PYTHON}", f"{wheels.VENV}/lib")
            with self._progress.step("vmlinux (the kernel's ELF), initramfs"):
                (room / "vmlinux").write_bytes(kernel.elf())
                (room / "initramfs.cpio").write_bytes(_initramfs(kernel))
            self._finish(room, kernel)

    def _make_root(self, debian: Path, root: Path, kernel: Kernel, config: Path) -> None:
        # Hard links: files are removed and replaced below, never written to.
        run("cp", "-al", debian, root)
        for pattern in recipe.REMOVED:
            for path in root.glob(pattern):
                remove(path)
        for path in sorted((HERE / "root").rglob("*")):
            if path.is_file():
                place(path, root / path.relative_to(HERE / "root"))
        for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.slice")):
            place(unit, root / "usr" / "lib" / "systemd" / "system" / unit.name)
        place(config, root / "etc" / "uvmd" / "uvmd.toml")
        # Empty, not missing: a missing one would make every boot a first boot, with presets.
        place(b"", root / "etc" / "machine-id", 0o444)
        remove(root / "etc" / "fstab")
        masked = root / "etc" / "systemd" / "system-generators"
        masked.mkdir(parents=True)
        for generator in (root / "usr" / "lib" / "systemd" / "system-generators").iterdir():
            (masked / generator.name).symlink_to("/dev/null")
        default = root / "etc" / "systemd" / "system" / "default.target"
        remove(default)
        default.symlink_to("uvm.target")
        kernel.install(kernel.select(recipe.MODULES, recipe.OPTIONAL_MODULES), root)

    def _leave_room_for_code(self, root: Path) -> None:
        """Let the environment also look in a folder onto which tests mount the code under test."""
        (root / CODE).mkdir()
        (site,) = (root / wheels.VENV / "lib").glob("python*/site-packages")
        place(f"/{CODE}\n".encode(), site / "uvmd-code.pth")
        for script in COMMANDS:
            module = {"uvmd": "uvmd.cli.start"}.get(script, f"uvmd.cli.{script}")
            text = f"#!/{wheels.VENV}/bin/python -I\nfrom {module} import main\n\nmain()\n"
            place(text.encode(), root / wheels.VENV / "bin" / script, 0o755)
            (root / "usr" / "local" / "bin" / script).symlink_to(f"/{wheels.VENV}/bin/{script}")

    # -- the product

    def uvm(self) -> Image:
        """Return the image with the Debian package of this source tree, built when it is missing."""
        base = self.base()
        sources = [part for d in self._distributions for part in (d.folder / "setup.cfg", d.source)]
        parts = (base.folder.name, *sources, HERE.parent / "packages", HERE.parent / "debian")
        image = Image(self._cache / f"uvm-{digest(parts, skip=wheels.LEFT_OUT)}")
        if not image.folder.exists():
            self._build_uvm(image.folder, base)
        keep_latest("uvm", image.folder)
        return image

    def _build_uvm(self, folder: Path, base: Image) -> None:
        with whole_folder(folder) as room:
            with self._progress.step("the Debian package"):
                deb = self._package(room / "packages")
            with self._progress.step("installing it, uvmd check"):
                self._install(deb, base, room / "tree")
            for name in ("vmlinux", "initramfs.cpio"):
                (room / name).hardlink_to(base.folder / name)
            self._finish(room, None)
            remove(room / "tree")
            deb.rename(room / "uvmd.deb")
            remove(room / "packages")

    def _package(self, folder: Path) -> Path:
        """Build it as `make packages` does, whose tools stay apart from the workshop's."""
        if not PACKAGE_TOOLS.exists():
            raise BuildError(f"{PACKAGE_TOOLS} is not there: make guest-image, or make packages, installs it")
        program = HERE.parent / "packages" / "build.py"
        run(sys.executable, program, "-o", folder, env={"PYTHONPATH": str(PACKAGE_TOOLS)})
        (deb,) = folder.glob("*.deb")
        return deb

    def _install(self, deb: Path, base: Image, root: Path) -> None:
        # Hard links, as in the base: dpkg writes new files and renames them.
        run("cp", "-al", base.folder / "tree", root)
        remove(root / wheels.VENV)
        for script in COMMANDS:
            remove(root / "usr" / "local" / "bin" / script)
        place(deb, root / "tmp" / "uvmd.deb")
        # The settings are the image's. Debian's helper that enables services has no perl here, and the
        # package goes on without it; uvm.target wants the service.
        wheels.chroot(root, "dpkg", "--force-confold", "--install", "/tmp/uvmd.deb")
        remove(root / "tmp" / "uvmd.deb")
        remove(root / "var" / "log" / "dpkg.log")
        wheels.chroot(root, "uvmd", "check")

    # -- both

    def _finish(self, room: Path, kernel: Kernel | None) -> None:
        with self._progress.step("root.erofs"):
            # One time for all files: the same content gives the same image.
            run("mkfs.erofs", "--quiet", "-zlz4", "-T0", "-U", _UUID, room / "root.erofs", room / "tree")
        packages = subprocess.run(
            ["dpkg-query", f"--admindir={room / 'tree' / 'var' / 'lib' / 'dpkg'}", "-W"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        (room / "packages.txt").write_text(packages.stdout)
        sizes = {name: (room / name).stat().st_size for name in ("vmlinux", "initramfs.cpio", "root.erofs")}
        facts = {"bytes": sizes, "seconds": self._progress.seconds}
        if kernel is not None:
            facts["kernel"] = kernel.release
        (room / "image.json").write_text(json.dumps(facts, indent=2) + "\n")


#: Of the file system; a fixed one, so that builds can be compared.
_UUID = "75766d64-0000-4000-8000-000000000001"


def _initramfs(kernel: Kernel) -> bytes:
    busybox = shutil.which("busybox")
    if busybox is None:
        raise BuildError("busybox is not installed: .ci/system-packages guest")
    archive = cpio.Archive()
    archive.file("init", (HERE / "init").read_bytes(), 0o755)
    archive.file("bin/busybox", Path(busybox).read_bytes(), 0o755)
    archive.device("dev/console", 5, 1)
    files = kernel.select(recipe.BOOT_MODULES)
    for file in files:
        archive.file(f"modules/{file.name}", file.read_bytes())
    archive.file("modules/order", "".join(f"{file.name}\n" for file in files).encode())
    return archive.to_bytes()

"""mkfs and cryptsetup on the fake kernel's disks, as far as the next step can tell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from uvmd.api.testing.fakes import Finished
from uvmd.linux.devmapper import Target

if TYPE_CHECKING:
    from uvmd.api.testing.kernel import FakeKernel


class FakeTools:
    """Stands for ``env.run``."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel
        #: What a tool (``mkfs.xfs``, ``cryptsetup luksOpen``) answers instead of doing its work.
        self.answers: dict[str, Finished] = {}

    def __call__(
        self,
        argv: Sequence[str],
        *,
        deadline: float,
        stdin: bytes = b"",
        fds: Sequence[int] = (),
        limit_bytes: int = 65536,
    ) -> Finished:
        """Run a command."""
        is_crypt = argv[0] == "cryptsetup"
        tool = f"{argv[0]} {argv[1]}" if is_crypt else argv[0]
        self._kernel.log.append(f"{tool} {argv[2] if is_crypt else argv[-1]}")
        if tool in self.answers:
            return self.answers[tool]
        if tool == "mkfs.ext4":
            return self._write(argv[-1], {0: bytes(4096), 1080: b"\x53\xef", 1116: b"\4"})
        if tool == "mkfs.xfs":
            return self._write(argv[-1], {0: b"XFSB", 1080: bytes(2)})
        assert is_crypt, f"an unknown tool: {tool}"
        return self.cryptsetup(argv, fds)

    def _write(self, path: str, at: dict[int, bytes]) -> Finished:
        number = self._kernel.numbers.get(path)
        if number is None:
            return Finished(1, b"The file does not exist and no size was specified.")
        if self._kernel.dm.open_count(number):
            return Finished(1, b"is apparently in use by the system")
        below, start = self._kernel.content(path)
        with open(below, "r+b") as file:
            for position, text in at.items():
                file.seek(start + position)
                file.write(text)
        return Finished()

    def cryptsetup(self, argv: Sequence[str], fds: Sequence[int]) -> Finished:
        """Format, open or close."""
        verb, what = argv[1], argv[2]
        if verb == "luksClose":
            return self._close(what)
        assert len(os.pread(fds[0], 4096, 0)) == 1024, "the key comes as the first descriptor"
        assert "/proc/self/fd/3" in argv
        if verb == "luksFormat":
            return self._write(what, {0: b"LUKS\xba\xbe", 1080: bytes(2)})
        return self._open(what, argv[3])

    def _close(self, name: str) -> Finished:
        dm = self._kernel.dm
        device = dm.devices.get(name)
        if device is None:
            return Finished(4, f"Device {name} is not active.".encode())
        if dm.open_count(device.number):
            return Finished(5, f"Device {name} is still in use.".encode())
        del dm.devices[name]
        os.unlink(self._kernel.mapper / name)
        return Finished()

    def _open(self, device: str, name: str) -> Finished:
        kernel = self._kernel
        if kernel.head(device)[:6] != b"LUKS\xba\xbe":
            return Finished(1, f"Device {device} is not a valid LUKS device.".encode())
        if name in kernel.dm.devices:
            return Finished(5, f"Device {name} already exists.".encode())
        major, minor = kernel.numbers[device]
        table = [Target(0, 2048, "crypt", f"capi:x :1024:logon:k 0 {major}:{minor} 0")]
        node = kernel.mapper / name
        with open(node, "wb") as file:
            file.truncate(1 << 20)
        kernel.numbers[str(node)] = kernel.dm.add(name, table)
        return Finished()

"""mkfs and cryptsetup on the fake kernel's disks, as far as the next step can tell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from uvmd.api.testing.fakes import Finished
from uvmd.linux.devmapper import Target

if TYPE_CHECKING:
    from uvmd.api.testing.kernel import FakeKernel

#: What a header begins with; here the cipher follows.
LUKS = b"LUKS\xba\xbe"


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
        detached = fds[1] if "--header" in argv else None
        assert detached is None or argv[argv.index("--header") + 1] == "/proc/self/fd/4"
        if verb == "luksFormat":
            return self._format(what, LUKS + argv[argv.index("--cipher") + 1].encode(), detached)
        header = self._kernel.head(what)[:64] if detached is None else os.pread(detached, 64, 0)
        return self._open(what, argv[3], header)

    def _format(self, device: str, header: bytes, detached: int | None) -> Finished:
        if detached is None:
            return self._write(device, {0: header, 1080: bytes(2)})
        if os.fstat(detached).st_size == 0:
            return Finished(1, b"Device /proc/self/fd/4 is too small.")
        os.pwrite(detached, header, 0)
        return self._write(device, {0: b"integrt\0", 1080: bytes(2)})

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

    def _open(self, device: str, name: str, header: bytes) -> Finished:
        kernel = self._kernel
        if not header.startswith(LUKS):
            return Finished(1, f"Device {device} is not a valid LUKS device.".encode())
        if name in kernel.dm.devices:
            return Finished(5, f"Device {name} already exists.".encode())
        major, minor = kernel.numbers[device]
        cipher = header[len(LUKS) :].rstrip(b"\0").decode()
        table = [Target(0, 2048, "crypt", f"{cipher} :1024:logon:k 0 {major}:{minor} 0")]
        node = kernel.mapper / name
        with open(node, "wb") as file:
            file.truncate(1 << 20)
        kernel.numbers[str(node)] = kernel.dm.add(name, table)
        return Finished()

"""An author's guest: an image as it is delivered, with plugins in its uvmd, and the host outside."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from uvmd.api.testing.guest.accelerator import find_accelerator
from uvmd.api.testing.guest.brought import find_files
from uvmd.api.testing.guest.errors import CommandFailed, GuestError
from uvmd.api.testing.guest.image import PRODUCT_TARGET, Image, helpers_archive
from uvmd.api.testing.guest.machine import short_folder
from uvmd.api.testing.guest.profiles import PROFILES, Files
from uvmd.api.testing.guest.vm import Vm
from uvmd.client import Client, connect, parse_address

#: Up to a uvmd that serves: ten seconds on a quiet machine under emulation.
BOOT_S = 120


class Guest(Vm):
    """A guest whose uvmd serves. Close it.

    Args:
        image: what it boots.
        distributions: installed here, brought into the guest: the plugin, and what it needs beside
            uvmd that the image does not have.
        settings: TOML, appended to the image's own settings of uvmd.

    Attributes:
        address: where its host is, for ``uvmctl --host``; one at a time.

    Raises:
        GuestError: there is no QEMU, a distribution is not installed, it does not boot, or uvmd
            does not start in it; the text says what uvmd or the console said.
    """

    def __init__(self, image: Image, *, distributions: Sequence[str] = (), settings: str = "") -> None:
        self._client: Client | None = None
        accelerator = find_accelerator(image.kernel, image.initramfs)
        archive = helpers_archive(files=find_files(distributions), settings=settings)
        folder = short_folder()
        try:
            (folder / "brought").write_bytes(archive.to_bytes())
            archives = (image.initramfs, folder / "brought")
            files = Files(folder, image.kernel, archives, image.root, folder / "ram", shared=False)
            super().__init__(PROFILES["v2"], files, accelerator, PRODUCT_TARGET)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self.address = f"unix:{self.hosts}/host"
        try:
            self.wake(BOOT_S)
            self._wait_until_serving()
        except BaseException:
            self.close()
            raise

    def _wait_until_serving(self) -> None:
        try:
            self.sh("systemctl start uvmd.service", timeout_s=BOOT_S)
        except CommandFailed as error:
            said = self.sh("journalctl -u testbed-bring -o cat -n 5")
            raise GuestError(f"uvmd does not start in the guest: {error}\n{self.log()}\n{said}") from None

    @property
    def client(self) -> Client:
        """The host's end of the bridge, connected on first use and after ``hang_up``."""
        if self._client is None:
            self._client = connect(parse_address(self.address))
        return self._client

    def hang_up(self) -> None:
        """Close the connection, if there is one; uvmd dials again, and another host may have it."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def add(self, resource_type: str, settings: Mapping[str, Any]) -> None:
        """Carry out an Add.

        Raises:
            RemoteError: what the host is told (``uvmd.client``).
        """
        self.client.modify(resource_type, settings)

    def remove(self, resource_type: str, settings: Mapping[str, Any]) -> None:
        """Carry out a Remove."""
        self.client.modify(resource_type, settings, request_type="Remove")

    def set_policy(self, rego: str) -> None:
        """Put a policy in force. It stays until the guest ends: close the guest in the same test."""
        text = base64.b64encode(rego.encode()).decode()
        self.client.modify("SecurityPolicy", {"EnforcerType": "rego", "EncodedSecurityPolicy": text})

    def be_steady(self) -> None:
        """Be connected: a connection is something that the monitor holds."""
        _ = self.client

    def close(self) -> None:
        if not self.closed:
            self.hang_up()
        super().close()

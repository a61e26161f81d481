"""The kernel's one interface to all security modules: configfs-tsm, in Linux since 6.7.

A folder made under ``tsm/report`` is a request of one's own: the caller's data go into
``inblob``, the module's evidence comes out of ``outblob`` (Linux's
Documentation/ABI/testing/configfs-tsm-report). Binary attributes are taken when the file
is closed, and what goes wrong then is told to nobody; so ``generation``, which counts what
was taken, is compared before the evidence is believed.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import Final, NamedTuple

from uvmd.errors import Failed

log = logging.getLogger(__name__)

#: Below the place where sysfs is mounted.
FOLDER: Final = "kernel/config/tsm/report"
#: Certificates and manifests come from the host, so what they may fill has an end.
MAX_BYTES: Final = 1 << 20


class Answer(NamedTuple):
    """What the module said. ``certificates`` and ``manifest`` are empty where it has none."""

    provider: str
    evidence: bytes
    certificates: bytes
    manifest: bytes


def read(folder: str, provider: str, report_data: bytes) -> Answer | None:
    """Ask the module; None if the kernel has no module of that provider to ask.

    Raises:
        Failed: the module did not take the data, or its answer has no end.
        OSError: anything else that the kernel refuses.
    """
    request = f"{folder}/uvmd-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        os.mkdir(request, 0o700)
    except OSError as error:
        # ENXIO: there is the interface, but no module behind it.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO):
            return None
        raise
    try:
        if _text(request, "provider") != provider:
            return None
        return _ask(request, provider, report_data)
    finally:
        try:
            os.rmdir(request)
        except OSError as error:
            log.warning("a request to the security module stays, ignoring", extra={"errno": error.errno})


def _ask(request: str, provider: str, report_data: bytes) -> Answer:
    before = _generation(request)
    written = 1
    # Reports of a level above one's own are refused; the default is level 0, the highest.
    floor = _text(request, "privlevel_floor", default="0")
    if floor != "0":
        _write(request, "privlevel", floor.encode())
        written += 1
    _write(request, "inblob", report_data)
    evidence = _read(request, "outblob")
    certificates, manifest = _read(request, "auxblob", b""), _read(request, "manifestblob", b"")
    if (taken := _generation(request) - before) != written:
        raise Failed(f"{request}: the security module took {taken} values, {written} were written")
    return Answer(provider, evidence, certificates, manifest)


def _generation(request: str) -> int:
    text = _text(request, "generation")
    if not (text.isascii() and text.isdigit()):
        raise Failed(f"{request}/generation is no number")
    return int(text)


def _text(request: str, name: str, default: str = "") -> str:
    return _read(request, name, default.encode()).decode("ascii", "replace").strip()


def _write(request: str, name: str, value: bytes) -> None:
    with open(f"{request}/{name}", "wb", buffering=0) as file:
        file.write(value)


def _read(request: str, name: str, default: bytes | None = None) -> bytes:
    """Read an attribute; the default is for one that this provider does not have."""
    try:
        with open(f"{request}/{name}", "rb", buffering=0) as file:
            content = bytearray()
            while part := file.read(65536):
                content += part
                if len(content) > MAX_BYTES:
                    raise Failed(f"{request}/{name} has more than {MAX_BYTES} bytes")
            return bytes(content)
    except FileNotFoundError:
        if default is None:
            raise
        return default

"""Asking the processor through its device: what kernels without configfs-tsm have.

Three drivers and their ioctls: ``/dev/sev-guest`` (Linux 5.19 and later), ``/dev/sev`` (the
5.x kernels of reference VMs), ``/dev/tdx_guest`` (Linux 6.2 and later). Numbers and
layouts: spec attestation.md 6.2, linux/sev-guest.h, linux/tdx-guest.h.
"""

from __future__ import annotations

import fcntl
import os
import struct
from array import array
from typing import Final

from uvmd.errors import Failed

#: Below the place of the device nodes; in this order, as the reference looks for them.
SEV: Final = "sev"
SEV_GUEST: Final = "sev-guest"
TDX_GUEST: Final = "tdx_guest"

REPORT_DATA_BYTES: Final = 64

_SEV_REPORT: Final = 0xC0285301
_SEV_GUEST_REPORT: Final = 0xC0205300
_TDX_REPORT: Final = 0xC4405401

_MESSAGE_VERSION: Final = 1
#: Types of the processor's messages: a request for a report, and the answer.
_REPORT_REQUEST: Final = 5
_REPORT_ANSWER: Final = 6

#: 64 bytes of the caller's, the privilege level, nothing more.
_REQUEST: Final = struct.Struct("<64sI28x")
#: Status, length of the report; the report begins after 32 bytes.
_ANSWER_HEAD: Final = struct.Struct("<II24x")
_SEV_ANSWER_BYTES: Final = 1280
_SEV_GUEST_ANSWER_BYTES: Final = 4000
_SEV_ARGUMENT: Final = struct.Struct("<BBBxH2xQH6xQI4x")
_SEV_GUEST_ARGUMENT: Final = struct.Struct("<B7xQQQ")
_TDREPORT_BYTES: Final = 1024


def read_snp_report(path: str, report_data: bytes) -> bytes:
    """Have the processor make a report that carries ``report_data`` (64 bytes), for level 0.

    Raises:
        Failed: the firmware's status, or an answer that is too short to be one.
        OSError: the device cannot be opened, or its driver refuses.
    """
    # The driver is given addresses: the buffers must stay where they are, and these do.
    request = array("B", _REQUEST.pack(report_data, 0))
    old = os.path.basename(path) == SEV
    answer = array("B", bytes(_SEV_ANSWER_BYTES if old else _SEV_GUEST_ANSWER_BYTES))
    where, length = answer.buffer_info()
    asked, _ = request.buffer_info()
    if old:
        argument = bytearray(
            _SEV_ARGUMENT.pack(
                _REPORT_REQUEST, _REPORT_ANSWER, _MESSAGE_VERSION, _REQUEST.size, asked, length, where, 0
            )
        )
        _ioctl(path, _SEV_REPORT, argument)
    else:
        argument = bytearray(_SEV_GUEST_ARGUMENT.pack(_MESSAGE_VERSION, asked, where, 0))
        _ioctl(path, _SEV_GUEST_REPORT, argument)
    return _report_in(path, answer.tobytes())


def _report_in(path: str, answer: bytes) -> bytes:
    status, size = _ANSWER_HEAD.unpack_from(answer)
    if status != 0:
        raise Failed(f"{path}: the firmware refused to make a report, status {status:#x}")
    if not 0 < size <= len(answer) - _ANSWER_HEAD.size:
        raise Failed(f"{path}: a report of {size} bytes does not fit in an answer of {len(answer)}")
    return answer[_ANSWER_HEAD.size : _ANSWER_HEAD.size + size]


def read_tdreport(path: str, report_data: bytes) -> bytes:
    """Have the TDX module make a TDREPORT that carries ``report_data`` (64 bytes).

    Raises:
        OSError: the device cannot be opened, or its driver refuses.
    """
    # Python keeps its lock during an ioctl with so large an argument; the module needs
    # microseconds, and nothing can stand between.
    argument = bytearray(report_data.ljust(REPORT_DATA_BYTES, b"\0") + bytes(_TDREPORT_BYTES))
    _ioctl(path, _TDX_REPORT, argument)
    return bytes(argument[REPORT_DATA_BYTES:])


def _ioctl(path: str, number: int, argument: bytearray) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, number, argument, True)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}{_firmware_error(number, argument)}", path) from None
    finally:
        os.close(fd)


def _firmware_error(number: int, argument: bytearray) -> str:
    """What the driver says beside the errno."""
    if number == _TDX_REPORT:
        return ""
    at, layout = (32, "<I") if number == _SEV_REPORT else (24, "<Q")
    (code,) = struct.unpack_from(layout, argument, at)
    return f" (firmware or hypervisor error {code:#x})" if code else ""

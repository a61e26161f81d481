"""A PTP clock of user space, /dev/ptp0, through CUSE: runs in the guest, where emulation has no such device.

What a program like chronyd sees is the kernel's own interface (linux/ptp_clock.h, linux/fuse.h):
the clock goes on with CLOCK_MONOTONIC_RAW, whatever is done to the time of day.
Usage: ptp_clock.py SECONDS, how far it is ahead of the time of day now.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import time

_IN = struct.Struct("<IIQQIIII")  # fuse_in_header: length, opcode, unique, node, uid, gid, pid
_OUT = struct.Struct("<IiQ")  # fuse_out_header: length, error, unique
_IOCTL_IN = struct.Struct("<QIIQII")  # handle, flags, command, argument, sizes
_OPEN, _RELEASE, _FLUSH, _INTERRUPT, _IOCTL, _INIT = 14, 18, 25, 36, 39, 4096
_PROTOCOL = (7, 31)

#: Of the ioctl's number, type and number count: PTP_CLOCK_GETCAPS, PTP_SYS_OFFSET_EXTENDED.
_CAPABILITIES, _OFFSETS = 0x3D01, 0x3D09
_MAX_SAMPLES = 25
_CLOCK_TIME = struct.Struct("<qII")  # ptp_clock_time: seconds, nanoseconds


def _stamp(ns: int) -> bytes:
    return _CLOCK_TIME.pack(ns // 10**9, ns % 10**9, 0)


def _offsets(asked: bytes, ahead_ns: int) -> bytes:
    """Answer with triples: time of day, this clock, time of day."""
    (samples,) = struct.unpack_from("<I", asked)
    answer = asked[:16]
    for _ in range(min(samples, _MAX_SAMPLES)):
        answer += _stamp(time.time_ns())
        answer += _stamp(time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) + ahead_ns)
        answer += _stamp(time.time_ns())
    return answer.ljust(len(asked), b"\0")


def _answer(opcode: int, body: bytes, ahead_ns: int) -> bytes:
    """Raise OSError for what this device cannot do."""
    if opcode == _INIT:
        return struct.pack("<18I", *_PROTOCOL, 0, 0, 4096, 4096, *(0,) * 12) + b"DEVNAME=ptp0\0"
    if opcode == _OPEN:
        return struct.pack("<QII", 0, 0, 0)
    if opcode in (_RELEASE, _FLUSH):
        return b""
    if opcode == _IOCTL:
        _, _, command, _, size, room = _IOCTL_IN.unpack_from(body)
        what, asked = command & 0xFFFF, body[_IOCTL_IN.size : _IOCTL_IN.size + size]
        done = struct.pack("<iIII", 0, 0, 0, 0)
        if what == _CAPABILITIES:
            return done + bytes(room)
        if what == _OFFSETS:
            return done + _offsets(asked, ahead_ns)
        raise OSError(errno.ENOTTY, "no such ioctl")
    raise OSError(errno.ENOSYS, "no such request")


def main() -> None:
    ahead_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) + int(sys.argv[1]) * 10**9
    device = os.open("/dev/cuse", os.O_RDWR)
    while True:
        request = os.read(device, 1 << 17)
        _, opcode, unique, *_ = _IN.unpack_from(request)
        if opcode == _INTERRUPT:
            continue
        error, answer = 0, b""
        try:
            answer = _answer(opcode, request[_IN.size :], ahead_ns)
        except OSError as failure:
            error = -failure.errno
        os.write(device, _OUT.pack(_OUT.size + len(answer), error, unique) + answer)


if __name__ == "__main__":
    main()

"""The two system calls of the monitor that Python 3.11 lacks: prctl(2) and tee(2)."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_libc.tee.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint]
_libc.tee.restype = ctypes.c_ssize_t

_PR_SET_CHILD_SUBREAPER = 36
_SPLICE_F_NONBLOCK = 2
_tee = _libc.tee
_get_errno = ctypes.get_errno


def become_subreaper() -> None:
    """Make every orphaned descendant our child (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        code = _get_errno()
        raise OSError(code, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(code)}")


def tee(source: int, target: int, count: int) -> int:
    """Duplicate up to count bytes from pipe to pipe without taking them; 0 is the end.

    Raises:
        BlockingIOError: the source is empty or the target full.
    """
    copied: int = _tee(source, target, count, _SPLICE_F_NONBLOCK)
    if copied < 0:
        code = _get_errno()
        raise OSError(code, os.strerror(code))
    return copied

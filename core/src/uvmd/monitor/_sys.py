"""What the monitor needs of the C library and Python 3.11 does not offer, or not fully.

prctl(2), tee(2), mallopt(3), and posix_spawn(3) once more: Python's own cannot name the two
signals that the C library keeps for itself (32 and 33), and glibc then leaves them
ignored in the child, which every container would inherit.
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_libc = ctypes.CDLL(None, use_errno=True)
_get_errno = ctypes.get_errno

_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_libc.tee.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint]
_libc.tee.restype = ctypes.c_ssize_t
_tee = _libc.tee

_PR_SET_CHILD_SUBREAPER = 36
_SPLICE_F_NONBLOCK = 2
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_SPAWN_SETPGROUP = 0x02
_SPAWN_SETSIGDEF = 0x04
_SPAWN_SETSIGMASK = 0x08
_SPAWN_SETSID = 0x80

# posix_spawnattr_t has 336 bytes in glibc and musl, posix_spawn_file_actions_t 80.
_OPAQUE_BYTES = 1024
_SIGSET_BYTES = 128


def become_subreaper() -> None:
    """Make every orphaned descendant our child (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise _error(_get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def return_large_blocks() -> None:
    """Have large blocks mapped one by one, so that a freed 16 MiB frame is gone (mallopt(3)).

    Left alone, glibc learns from the first such block to keep the next ones. Where there is
    no mallopt (musl) there is nothing to do either.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, 128 * 1024)
        _libc.mallopt(_M_TRIM_THRESHOLD, 256 * 1024)


def tee(source: int, target: int, count: int) -> int:
    """Duplicate up to count bytes from pipe to pipe without taking them; 0 is the end.

    Raises:
        BlockingIOError: the source is empty or the target full.
    """
    while True:
        copied: int = _tee(source, target, count, _SPLICE_F_NONBLOCK)
        if copied >= 0:
            return copied
        # The kernel looks for a signal, of which a child's end is one, before it finds that
        # nothing is there. Python's own calls are repeated likewise (PEP 475).
        if (code := _get_errno()) != errno.EINTR:
            raise _error(code, "tee")


class FileActions:
    """What becomes of our descriptors on their way into a child; ``close`` gives the memory back.

    Made before a child's limits are put on: the C library refuses a descriptor above the
    soft limit of that moment, which ours may be and which is no matter to dup2(2).
    """

    def __init__(self, sources: Sequence[int], cwd: bytes = b"", terminal: bytes = b"") -> None:
        """``sources`` become descriptors 0, 1, ...; none of them may be in that range itself.

        ``terminal``: the child leads a new session, and a pty's slave, its controlling
        terminal, is 0 to 2 in place of the first three sources.
        """
        self.leads_session = bool(terminal)
        self.opaque = ctypes.create_string_buffer(_OPAQUE_BYTES)
        _check(_libc.posix_spawn_file_actions_init(self.opaque), "posix_spawn_file_actions_init")
        try:
            self._fill(sources, cwd, terminal)
        except BaseException:
            self.close()
            raise

    def _fill(self, sources: Sequence[int], cwd: bytes, terminal: bytes) -> None:
        actions = self.opaque
        if terminal:
            # A session leader without a terminal that opens one gets it as its own.
            code = _libc.posix_spawn_file_actions_addopen(actions, 0, terminal, os.O_RDWR, 0)
            _check(code, "posix_spawn")
        for target, source in enumerate(sources):
            source = 0 if terminal and target < 3 else source
            if source != target:
                _check(_libc.posix_spawn_file_actions_adddup2(actions, source, target), "posix_spawn")
        if cwd:
            _check(_libc.posix_spawn_file_actions_addchdir_np(actions, cwd), "posix_spawn")

    def close(self) -> None:
        """Give the memory back."""
        _libc.posix_spawn_file_actions_destroy(self.opaque)


class PosixSpawn:
    """posix_spawn(3) with every signal at its default, none blocked, and a group of its own."""

    def __init__(self) -> None:
        self._group = _attributes(_SPAWN_SETPGROUP)
        self._session = _attributes(_SPAWN_SETSID)

    def spawn(
        self, program: bytes, argv: Sequence[bytes], env: Mapping[bytes, bytes], actions: FileActions
    ) -> int:
        """Start a program (looked up in our PATH if it has no slash); return its pid.

        Raises:
            OSError: as execve(2), chdir(2), open(2).
        """
        pid = ctypes.c_int()
        call = _libc.posix_spawn if b"/" in program else _libc.posix_spawnp
        attributes = self._session if actions.leads_session else self._group
        entries = [name + b"=" + value for name, value in env.items()]
        code = call(ctypes.byref(pid), program, actions.opaque, attributes, _strings(argv), _strings(entries))
        _check(code, os.fsdecode(program))
        return pid.value


def _attributes(flag: int) -> ctypes.Array[ctypes.c_char]:
    attributes = ctypes.create_string_buffer(_OPAQUE_BYTES)
    every_signal = ctypes.create_string_buffer(b"\xff" * _SIGSET_BYTES, _SIGSET_BYTES)
    no_signal = ctypes.create_string_buffer(_SIGSET_BYTES)
    _check(_libc.posix_spawnattr_init(attributes), "posix_spawnattr_init")
    _check(_libc.posix_spawnattr_setsigdefault(attributes, every_signal), "posix_spawnattr_setsigdefault")
    _check(_libc.posix_spawnattr_setsigmask(attributes, no_signal), "posix_spawnattr_setsigmask")
    _check(_libc.posix_spawnattr_setpgroup(attributes, 0), "posix_spawnattr_setpgroup")
    flags = ctypes.c_short(flag | _SPAWN_SETSIGDEF | _SPAWN_SETSIGMASK)
    _check(_libc.posix_spawnattr_setflags(attributes, flags), "posix_spawnattr_setflags")
    return attributes


def _strings(values: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(values) + 1))(*values, None)


def _check(code: int, what: str) -> None:
    if code != 0:
        raise _error(code, what)


def _error(code: int, what: str) -> OSError:
    return OSError(code, f"{what}: {os.strerror(code)}")

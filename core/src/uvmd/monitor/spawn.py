"""Starting programs: the only room of the project that forks.

Every child starts in a process group of its own with default signals, an empty signal
mask, umask 022, oom_score_adj 0 and no descriptor but those it is given. The monitor
keeps its own umask at 022 and its working directory at /, so posix_spawn(3) does nearly
everything (0.5 ms; fork and exec from Python take 0.9); only joining a cgroup needs
code between fork and exec.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource

from uvmd.monitor._sys import FileActions, PosixSpawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence
else:
    import _signal as signal  # the module around it costs the monitor 0.7 MiB of enums

_SERVICE_MANAGER_NAMES = (b"NOTIFY_SOCKET", b"LISTEN_", b"WATCHDOG_", b"UVMD_MONITOR_")
_MANY_DESCRIPTORS = 65_536
# The C library keeps these for itself and Python refuses to name them; nobody sets them.
_UNTOUCHABLE = {signal.SIGKILL, signal.SIGSTOP, 32, 33}


def clean_environment(env: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return K=V entries as a mapping, without what a service manager meant for us alone."""
    kept = exact_environment(env).items()
    return {name: value for name, value in kept if not name.startswith(_SERVICE_MANAGER_NAMES)}


def exact_environment(env: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return K=V entries as a mapping, exactly as the policy has allowed them."""
    pairs = (entry.partition(b"=") for entry in env)
    return {name: value for name, equals, value in pairs if name and equals}


# Not the stack: execve(2) stores that limit at its very end, over what was set meanwhile.
_LIMITS = {
    b"core": resource.RLIMIT_CORE,
    b"data": resource.RLIMIT_DATA,
    b"fsize": resource.RLIMIT_FSIZE,
    b"nofile": resource.RLIMIT_NOFILE,
}


def parse_limits(limits: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return ``NAME=NUMBER`` entries as limits of setrlimit(2).

    Raises:
        ValueError: another name, or no number.
    """
    found = []
    for entry in limits:
        name, _, number = entry.partition(b"=")
        if name not in _LIMITS or not number.isdigit() or int(number) >= 1 << 63:
            raise ValueError("a limit that is none")
        found.append((_LIMITS[name], int(number)))
    return found


class Spawner:
    """Starts children with the limits and the OOM score that they should see."""

    def __init__(self) -> None:
        self.devnull = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._spawn = PosixSpawn()
        # Held open: the day on which no descriptor is left must not give a child our score.
        self._oom_file, self._oom_score = _open_oom_score()
        # Each process takes up to eight descriptors of ours, and the usual soft limit is
        # 1024. Children must see the original one, so it is put back around each spawn.
        self._soft, self._hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        unlimited = self._hard == resource.RLIM_INFINITY
        most = _MANY_DESCRIPTORS if unlimited else min(self._hard, _MANY_DESCRIPTORS)
        self._raised = max(self._soft, most)
        self._set_limit(self._raised)

    def spawn(
        self,
        argv: Sequence[bytes],
        env: Mapping[bytes, bytes],
        stdio: tuple[int, int, int],
        fds: Sequence[int] = (),
        *,
        cwd: bytes = b"/",
        terminal: bytes = b"",
        cgroups: Sequence[bytes] = (),
        protected: bool = False,
        limits: Sequence[tuple[int, int]] = (),
    ) -> int:
        """Start a program (found in our PATH if its name has no slash) and return its pid.

        ``fds`` become 3, 4, ... in the child. ``terminal`` is the path of a pty slave: it
        becomes descriptors 0 to 2 and the controlling terminal of a new session.
        ``protected`` keeps our own oom_score_adj (the daemon). ``limits`` hold once this
        returns: the child may have run a moment without them.

        Raises:
            OSError: ENOENT, EACCES, ... from finding or executing the program.
        """
        if not argv or not argv[0]:
            raise OSError(errno.EINVAL, "no program to run")
        if any(b"\0" in text for text in (*argv, *env.values(), *env, cwd)):
            raise OSError(errno.EINVAL, "a zero byte in an argument, a variable or the directory")
        sources, lifted = _lift((*stdio, *fds))
        try:
            self._write_oom_score(self._oom_score if protected else 0)
            if cgroups:
                return self._fork(argv, env, sources, cwd, terminal, cgroups)
            pid = self._posix_spawn(argv, env, FileActions(sources, b"" if cwd == b"/" else cwd, terminal))
            _limit(pid, limits)
            return pid
        finally:
            self._write_oom_score(self._oom_score)
            for fd in lifted:
                os.close(fd)

    def _posix_spawn(self, argv: Sequence[bytes], env: Mapping[bytes, bytes], actions: FileActions) -> int:
        # Nothing here takes a descriptor: with more of them than the original limit none can be had.
        try:
            self._set_limit(self._soft)
            return self._spawn.spawn(argv[0], argv, env, actions)
        finally:
            self._set_limit(self._raised)
            actions.close()

    def _fork(
        self,
        argv: Sequence[bytes],
        env: Mapping[bytes, bytes],
        sources: Sequence[int],
        cwd: bytes,
        terminal: bytes,
        cgroups: Sequence[bytes],
    ) -> int:
        failed, report = os.pipe()
        try:
            pid = os.fork()
            if pid == 0:
                _become(argv, env, sources, cwd, terminal, cgroups, report, (self._soft, self._hard))
            os.close(report)
            report = -1
            # Ends at the child's exec; until then it only joins, duplicates and executes.
            reason = os.read(failed, 4)
        finally:
            os.close(failed)
            if report >= 0:
                os.close(report)
        if reason:
            os.waitpid(pid, 0)
            code = int.from_bytes(reason, "little")
            raise OSError(code, f"{os.fsdecode(argv[0])}: {os.strerror(code)}")
        return pid

    def _write_oom_score(self, score: int) -> None:
        if self._oom_file < 0 or not self._oom_score:
            return
        try:
            os.pwrite(self._oom_file, str(score).encode(), 0)
        except OSError:  # not allowed to lower it again: then it stays as it was for all
            pass

    def _set_limit(self, soft: int) -> None:
        if self._raised != self._soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, self._hard))


def _limit(pid: int, limits: Sequence[tuple[int, int]]) -> None:
    """Bound a child of ours that has just been started, or end it."""
    try:
        for what, most in limits:
            resource.prlimit(pid, what, (most, most))
    except (OSError, ValueError):
        os.kill(pid, signal.SIGKILL)
        raise


def _become(
    argv: Sequence[bytes],
    env: Mapping[bytes, bytes],
    sources: Sequence[int],
    cwd: bytes,
    terminal: bytes,
    cgroups: Sequence[bytes],
    report: int,
    limit: tuple[int, int],
) -> None:
    """Turn the forked child into the program; never returns."""
    try:
        for cgroup in cgroups:
            procs = os.open(cgroup + b"/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            os.write(procs, b"0")
            os.close(procs)
        os.chdir(cwd)
        # Clear of the numbers that are about to be written over.
        report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, len(sources))
        if terminal:
            os.setsid()
            slave = os.open(terminal, os.O_RDWR)
            sources = (slave, slave, slave, *sources[3:])
        else:
            os.setpgid(0, 0)
        for target, source in enumerate(sources):
            os.dup2(source, target)
        signal.set_wakeup_fd(-1)
        for number in set(range(1, signal.NSIG)) - _UNTOUCHABLE:
            signal.signal(number, signal.SIG_DFL)
        # The last thing: all the above needs descriptors, and ours may be above it.
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        (os.execve if b"/" in argv[0] else os.execvpe)(argv[0], list(argv), dict(env))
    except OSError as error:
        os.write(report, (error.errno or errno.EIO).to_bytes(4, "little"))
    finally:
        os._exit(127)


def _lift(fds: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the descriptors, none of them in the range into which they will be duplicated.

    Duplicating one after the other would otherwise overwrite a source not yet used. The
    second list is what the caller closes.
    """
    lifted = []
    sources = []
    for fd in fds:
        if fd < len(fds):
            fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(fds))
            lifted.append(fd)
        sources.append(fd)
    return sources, lifted


def _open_oom_score() -> tuple[int, int]:
    """Return a descriptor for our own oom_score_adj, and what it is."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # no /proc, or it may not be written: nothing to reset either
        return -1, 0
    return fd, int(os.pread(fd, 16, 0))

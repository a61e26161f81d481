"""A runtime that misbehaves at the verbs it is told to, and is the real one otherwise.

Its last words go where the runtimes put theirs: to the file after ``--log``, as a line of JSON.
"""

from __future__ import annotations

from pathlib import Path

from support import machine

WRAPPER = """#!/bin/sh
log=/dev/stderr
previous=
for word in "$@"; do
    [ "$previous" = --log ] && log=$word
    previous=$word
done
words() {{ echo '{{"level":"error","msg":"'"$1"'"}}' >>$log; }}
for word in "$@"; do
    [ -e {flags}/$word.hang ] && {{ {hang} & wait; }}
    [ -e {flags}/$word.fail ] && {{ words 'this runtime is broken on purpose'; exit 3; }}
    [ -e {flags}/$word.die ] && kill -KILL $$
    [ -e {flags}/$word.stop ] && {{ touch {flags}/stopped; kill -STOP $$; }}
    [ -e {flags}/$word.early ] && {{ echo 'too early for a log' >&2; exit 2; }}
    if [ -e {flags}/$word.late ]; then {real} "$@"; words 'failed after the deed'; exit 4; fi
    if [ -e {flags}/$word.undone ]; then {real} "$@"; kill -KILL $$; fi
done
exec {real} "$@"
"""
#: Recognised among all processes of the machine.
HANG = ("sleep", "6117")


class Misbehaving:
    """The program, in a folder of its own, and what it is told."""

    def __init__(self, folder: Path, runtime: str) -> None:
        self._flags = folder / "flags"
        self._flags.mkdir()
        self.runtime = runtime
        self.program = folder / runtime  # some code may look at the base name
        self.program.write_text(
            WRAPPER.format(flags=self._flags, real=machine.runtime_path(runtime), hang=" ".join(HANG))
        )
        self.program.chmod(0o755)

    def at(self, verb: str, how: str) -> None:
        """Misbehave at a verb: ``hang``, ``fail``, ``die``, ``stop``, ``early``, or, having done
        it, ``late`` (fail) or ``undone`` (die).
        """
        (self._flags / f"{verb}.{how}").touch()

    def mend(self) -> None:
        """Be the real one again."""
        for flag in self._flags.iterdir():
            flag.unlink()

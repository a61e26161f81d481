"""The folder of one daemon's runtime state: ours alone, owner-only, and the gate's memory in it."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from uvmd.errors import ConfigError
from uvmd.linux.files import unlink_if_there, write_whole

log = logging.getLogger(__name__)

_GATE = "gate.json"
_RESERVE = "gate.reserve"
#: How much longer the state may become by a cause that a door was closed for, and by a block.
_CAUSE_BYTES = 8192


class RunDir:
    """A claimed run directory; the claim ends with the process.

    Raises:
        ConfigError: it cannot be made, or another daemon uses it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            os.chmod(path, 0o700)
            self._claim = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            # Two daemons with one journal would unwind each other's containers.
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._claim)
            raise ConfigError(f"paths.run_dir {path} is in use by another uvmd") from None
        except OSError as error:
            raise ConfigError(f"paths.run_dir {path}: {error.strerror}") from error

    def save_gate(self, state: Mapping[str, Any]) -> None:
        """Keep what the gate must know again after a restart of the daemon.

        With room for it once more, set aside: a door that closes while the disk is full must
        not open when the daemon dies.

        Raises:
            OSError: it could not be written; what was kept before stays.
        """
        text = json.dumps(dict(state)).encode()
        try:
            self._write_gate(text)
        except OSError as error:
            if error.errno != errno.ENOSPC or not os.path.exists(f"{self.path}/{_RESERVE}"):
                raise
            unlink_if_there(f"{self.path}/{_RESERVE}")
            self._write_gate(text)
        self._set_aside(len(text) + _CAUSE_BYTES)

    def _write_gate(self, text: bytes) -> None:
        aside = f"{self.path}/{_GATE}.new"
        write_whole(aside, text)
        os.rename(aside, f"{self.path}/{_GATE}")

    def _set_aside(self, size: int) -> None:
        path = f"{self.path}/{_RESERVE}"
        try:
            if os.stat(path).st_size >= size:
                return
        except FileNotFoundError:
            pass
        try:
            # Not sparse: room that is written to is room that is there.
            write_whole(path, bytes(size))
        except OSError as error:
            log.warning(
                "no room could be set aside for the gate's state, ignoring", extra={"errno": error.errno}
            )

    def load_gate(self) -> dict[str, Any] | None:
        """Return what the gate kept, or None where no daemon of this VM had anything to keep.

        Raises:
            OSError, ValueError: it is there and cannot be read.
        """
        try:
            with open(f"{self.path}/{_GATE}", encoding="utf-8") as file:
                kept = json.load(file)
        except FileNotFoundError:
            return None
        if not isinstance(kept, dict):
            raise ValueError("no object")
        return kept

    def forget_gate(self) -> None:
        """Remove the gate's memory: the containers that it judged are gone.

        What is mounted outlives every daemon, and so does the record of it.
        """
        for name in (_GATE, _RESERVE):
            unlink_if_there(f"{self.path}/{name}")

    def close(self) -> None:
        """End the claim."""
        os.close(self._claim)

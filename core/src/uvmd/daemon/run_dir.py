"""The folder of one daemon's runtime state: ours alone, owner-only, and the gate's memory in it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from typing import Any

from uvmd.errors import ConfigError

_GATE = "gate.json"


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

        Raises:
            OSError: it could not be written; what was kept before stays.
        """
        aside = f"{self.path}/{_GATE}.new"
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(dict(state), file)
        os.rename(aside, f"{self.path}/{_GATE}")

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
        try:
            os.unlink(f"{self.path}/{_GATE}")
        except FileNotFoundError:
            return

    def close(self) -> None:
        """End the claim."""
        os.close(self._claim)

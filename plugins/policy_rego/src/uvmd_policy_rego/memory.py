"""What the daemon keeps of a policy, in memory and in its state, for the day when it must be made anew.

An object and a log of changes: a yes writes no more than it changes. What is on record
counts: what policyd knows beyond it was never answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uvmd.api import State
from uvmd.errors import Failed, PolicyLost, Refused
from uvmd_policy_rego.kept import Change, Kept, from_json
from uvmd_policy_rego.ledgers import Keys, Ledgers

VERSION = 2
#: Then the log is written into the object.
_LONGEST_LOG = 1000
Module = tuple[str, str, str, str]


class Memory:
    """See the module.

    Raises:
        Refused: it was kept by a version that this one does not know.
        OSError, ValueError: it cannot be read.
    """

    def __init__(self, state: State | None, policy: str) -> None:
        self._state = state
        self._policy = policy
        #: What the policy remembers from the start, which need not be on record.
        self._fresh: Sequence[Change] = ()
        self.reload()

    def reload(self) -> None:
        """Go back to what is on record."""
        self.kept = Kept()
        self.stdio: dict[str, bool] = {}
        self.mounts: list[dict[str, Any]] = []
        self.modules: list[Module] = []
        self.ledgers = Ledgers()
        self._length: int | None = None
        self.kept.apply(self._fresh)
        state = self._state.load() if self._state is not None else {}
        if state.get("policy") != self._policy:
            return
        if state.get("v") != VERSION:
            raise Refused(f"the policy's metadata were kept in version {state.get('v')}, not {VERSION}")
        self.kept = from_json(state["kept"])
        self.stdio, self.mounts = dict(state["stdio"]), list(state["mounts"])
        self.modules = [(issuer, feed, name, text) for issuer, feed, name, text in state["modules"]]
        self.ledgers.keys = _keys(state["ledgers"])
        entries = self._state.entries() if self._state is not None else []
        for entry in entries:
            self._take(entry)
        self._length = len(entries)

    def take(self, entry: Mapping[str, Any]) -> None:
        """Go on by what has changed, without recording it.

        Raises:
            PolicyLost: that makes no sense.
        """
        try:
            self._take(entry)
        except (KeyError, ValueError, TypeError) as error:
            raise PolicyLost(f"what the policy changed makes no sense: {type(error).__name__}") from None

    def _take(self, entry: Mapping[str, Any]) -> None:
        self.kept.apply(entry.get("changes", ()))
        self.stdio |= entry.get("stdio", {})
        self.mounts += entry.get("mounts", [])

    def asked_to_load(self, text: str) -> dict[str, Any]:
        """Return what policyd must be told to be where the record is."""
        return {
            "text": text,
            "policy": self._policy,
            "kept": self.kept.to_json() if self._length is not None else {},
            "modules": self.modules,
            "mounts": self.mounts,
        }

    @property
    def digest(self) -> str:
        """The digest of the metadata on record."""
        return self.kept.digest()

    @property
    def recorded(self) -> bool:
        """Whether anything is on record."""
        return self._length is not None

    def begin(self, changes: Sequence[Change]) -> None:
        """Take what a policy remembers from the start; it need not be on record."""
        self._fresh = changes
        self.kept = Kept()
        self.kept.apply(changes)

    def add(
        self,
        changes: Sequence[Change] = (),
        stdio: Mapping[str, bool] | None = None,
        mounts: Sequence[Mapping[str, Any]] = (),
        digest: str | None = None,
    ) -> None:
        """Record what has changed; ``digest`` is what policyd says of the metadata now.

        Raises:
            Failed: it could not be; what counts is the record from before.
            PolicyLost: the digests differ.
        """
        entry: dict[str, Any] = {}
        if changes:
            entry["changes"] = changes
        if stdio:
            entry["stdio"] = stdio
        if mounts:
            entry["mounts"] = mounts
        self.take(entry)
        if digest is not None and digest != self.digest:
            raise PolicyLost("the policy's metadata are not what was recorded of them")
        if not entry:
            return
        if self._length is None or self._length >= _LONGEST_LOG:
            self.save()
        elif self._state is not None:
            try:
                self._state.append(entry)
            except OSError as error:
                self._fail(error)
            self._length += 1

    def save(self) -> None:
        """Record everything.

        Raises:
            Failed: it could not be; what counts is the record from before.
        """
        if self._state is not None:
            try:
                self._state.save(
                    {
                        "v": VERSION,
                        "policy": self._policy,
                        "kept": self.kept.to_json(),
                        "stdio": self.stdio,
                        "mounts": self.mounts,
                        "modules": self.modules,
                        "ledgers": self.ledgers.keys,
                    }
                )
            except OSError as error:
                self._fail(error)
        self._length = 0

    def _fail(self, error: OSError) -> None:
        self.reload()
        raise Failed(f"the policy's metadata could not be kept: {error.strerror or error}") from error


def _keys(ledgers: Mapping[str, Any]) -> Keys:
    return {
        ledger: {kid: (key, tuple(by)) for kid, (key, by) in keys.items()} for ledger, keys in ledgers.items()
    }

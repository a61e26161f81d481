"""The keys by which receipts are validated, as trust lists have brought them."""

from __future__ import annotations

from collections.abc import Mapping

Keys = dict[str, dict[str, tuple[str, tuple[str, ...]]]]


class Ledgers:
    """Public keys of ledgers, by key id, and which trust lists offered each."""

    def __init__(self) -> None:
        self.keys: Keys = {}

    def merge(self, subject: str, ledgers: Mapping[str, Mapping[str, str]]) -> None:
        """Take in what a trust list of this subject offers; nothing is ever removed."""
        for ledger, offered in ledgers.items():
            known = self.keys.setdefault(ledger, {})
            for kid, key in offered.items():
                old = known.get(kid)
                same = old is not None and old[0] == key
                by = old[1] if old is not None and same else ()
                known[kid] = (key, by if subject in by else (*by, subject))

    def snapshot(self) -> Keys:
        """Return everything as it is."""
        return {ledger: dict(keys) for ledger, keys in self.keys.items()}

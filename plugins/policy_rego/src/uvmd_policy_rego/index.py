"""What can be looked up instead of searched: layer hashes, and containers by their layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class LayerIndex:
    """The candidates of a policy and its fragments, as they were when last refreshed."""

    def __init__(self) -> None:
        self._hashes: frozenset[str] = frozenset()
        self._containers: dict[tuple[str, ...], list[Any]] = {}

    def refresh(self, hashes: Iterable[Any], containers: Iterable[Any]) -> None:
        """Index these hashes and containers, in candidate order."""
        self._hashes = frozenset(one for one in hashes if isinstance(one, str))
        by_layers: dict[tuple[str, ...], list[Any]] = {}
        for container in containers:
            layers = container.get("layers") if isinstance(container, dict) else None
            if isinstance(layers, list) and all(isinstance(layer, str) for layer in layers):
                by_layers.setdefault(tuple(layers), []).append(container)
        self._containers = by_layers

    def hash_known(self, hash: object) -> bool:
        """Say whether some container has such a layer."""
        return isinstance(hash, str) and hash in self._hashes

    def containers_with_layers(self, topmost_first: object) -> list[Any]:
        """Return the containers of exactly these layers; policies list the base first."""
        if not isinstance(topmost_first, list) or not all(isinstance(h, str) for h in topmost_first):
            return []
        return self._containers.get(tuple(reversed(topmost_first)), [])

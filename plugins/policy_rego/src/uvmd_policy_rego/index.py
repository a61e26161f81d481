"""What can be looked up instead of searched: layer hashes, and containers by their layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uvmd_policy_rego.values import canonical


class LayerIndex:
    """The candidates of a policy and its fragments, as they were when last refreshed."""

    def __init__(self) -> None:
        self._hashes: frozenset[str] = frozenset()
        self._containers: dict[tuple[str, ...], list[Any]] = {}
        #: Every candidate, in order.
        self.candidates: list[Any] = []
        self._positions: dict[str, int] | None = None

    def refresh(self, hashes: Iterable[Any], containers: Iterable[Any]) -> None:
        """Index these hashes and containers, in candidate order."""
        self._hashes = frozenset(one for one in hashes if isinstance(one, str))
        by_layers: dict[tuple[str, ...], list[Any]] = {}
        self.candidates, self._positions = list(containers), None
        for container in self.candidates:
            layers = container.get("layers") if isinstance(container, dict) else None
            if isinstance(layers, list) and all(isinstance(layer, str) for layer in layers):
                by_layers.setdefault(tuple(layers), []).append(container)
        self._containers = by_layers

    def position(self, container: Any) -> int | None:
        """Return where a container stands among the candidates."""
        if self._positions is None:
            self._positions = {canonical(one): at for at, one in enumerate(self.candidates)}
        return self._positions.get(canonical(container))

    def hash_known(self, hash: object) -> bool:
        """Say whether some container has such a layer."""
        return isinstance(hash, str) and hash in self._hashes

    def containers_with_layers(self, topmost_first: object) -> list[Any]:
        """Return the containers of exactly these layers; policies list the base first."""
        if not isinstance(topmost_first, list) or not all(isinstance(h, str) for h in topmost_first):
            return []
        return self._containers.get(tuple(reversed(topmost_first)), [])

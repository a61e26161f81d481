"""What can be looked up instead of searched: layer hashes, and containers by their layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uvmd_policy_rego.kept import sha256
from uvmd_policy_rego.values import canonical


class LayerIndex:
    """The candidates of a policy and its fragments, as they were when last refreshed."""

    def __init__(self) -> None:
        self._hashes: frozenset[str] = frozenset()
        self._containers: dict[tuple[str, ...], list[Any]] = {}
        self._candidates: list[Any] = []
        self._ids: dict[str, str] = {}
        self._by_id: dict[str, Any] = {}
        self._id_by_identity: dict[int, tuple[Any, str]] = {}
        self._numbered: set[tuple[str, ...]] = set()
        #: Candidates that the engine has as data, and the place of each there.
        self._declared: list[Any] = []
        self._place_of: dict[int, int] = {}

    def declare(self, containers: Iterable[Any]) -> None:
        """Take these for what the engine has as data, where a place is as good as a container.

        Handed over as a whole at every question, they would take longer than the question.
        """
        self._declared = list(containers)
        self._place_of = {id(one): place for place, one in enumerate(self._declared)}

    def places(self, containers: list[Any]) -> list[int] | None:
        """Return where these are in the engine's data, None if one of them is not."""
        found = []
        for container in containers:
            place = self._place_of.get(id(container))
            # Looked at, not only its address: that may be another's by now.
            if place is None or self._declared[place] is not container:
                return None
            found.append(place)
        return found

    def declared(self, places: Iterable[int]) -> list[Any]:
        """Return the containers at these places of the engine's data."""
        return [self._declared[place] for place in places]

    def refresh(self, hashes: Iterable[Any], containers: Iterable[Any]) -> None:
        """Index these hashes and containers, in candidate order."""
        self._hashes = frozenset(one for one in hashes if isinstance(one, str))
        by_layers: dict[tuple[str, ...], list[Any]] = {}
        self._candidates = list(containers)
        self._ids, self._by_id, self._numbered = {}, {}, set()
        self._id_by_identity = {}
        for container in self._candidates:
            layers = _layers_of(container)
            if layers is not None:
                by_layers.setdefault(layers, []).append(container)
        self._containers = by_layers

    def ids(self, containers: list[Any]) -> list[str] | None:
        """Return what stands for these containers, None if one of them is no candidate.

        An id is made of what the container is: it outlives every change of the candidates.
        """
        found = []
        for container in containers:
            known = self._id_by_identity.get(id(container))
            # Looked at, not only its address: that may be another's by now.
            if known is None or known[0] is not container:
                text = self._id_of_equal(container)
                if text is None:
                    return None
                found.append(text)
            else:
                found.append(known[1])
        return found

    def shared(self, containers: list[Any]) -> list[Any]:
        """Return the same with the candidates themselves where these are their equals."""
        texts = map(self._id_of_equal, containers)
        return [
            one if text is None else self._by_id[text] for one, text in zip(containers, texts, strict=True)
        ]

    def _id_of_equal(self, container: Any) -> str | None:
        layers = _layers_of(container)
        if layers is not None and layers not in self._numbered:
            # Only of those that come up: of all of a large policy it takes long.
            self._numbered.add(layers)
            for candidate in self._containers.get(layers, ()):
                self._number(candidate)
        return self._ids.get(canonical(container))

    def by_ids(self, ids: list[str]) -> list[Any]:
        """Return the candidates that these ids stand for.

        Raises:
            KeyError: for one there is none.
        """
        if not self._by_id.keys() >= set(ids):
            for candidate in self._candidates:
                self._number(candidate)
        return [self._by_id[one] for one in ids]

    def _number(self, candidate: Any) -> None:
        text = canonical(candidate)
        one = self._ids.setdefault(text, _id_of(text))
        shared = self._by_id.setdefault(one, candidate)
        self._id_by_identity[id(shared)] = shared, one

    def hash_known(self, hash: object) -> bool:
        """Say whether some container has such a layer."""
        return isinstance(hash, str) and hash in self._hashes

    def containers_with_layers(self, topmost_first: object) -> list[Any]:
        """Return the containers of exactly these layers; policies list the base first."""
        if not isinstance(topmost_first, list) or not all(isinstance(h, str) for h in topmost_first):
            return []
        return self._containers.get(tuple(reversed(topmost_first)), [])


def _layers_of(container: Any) -> tuple[str, ...] | None:
    layers = container.get("layers") if isinstance(container, dict) else None
    if isinstance(layers, list) and all(isinstance(layer, str) for layer in layers):
        return tuple(layers)
    return None


def _id_of(text: str) -> str:
    digest: str = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return digest[:32]

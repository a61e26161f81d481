"""The metadata of a policy: what its rules remembered, by name a map or a set (policy.md 5).

Values are never changed in place, only replaced. So a snapshot is a copy of two levels
of dictionaries, whatever they hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from uvmd_policy_rego.kept import sha256
from uvmd_policy_rego.values import canonical


class MetadataError(Exception):
    """Operations that cannot be read or do not apply; the text is the reference's."""


class Operation(NamedTuple):
    """One change that a rule's result asks for."""

    kind: str
    name: str
    action: str
    key: str
    value: Any


class MetadataSet(dict[str, Any]):
    """Distinct JSON values in the order in which they came, by their canonical text."""


Held = dict[str, Any] | MetadataSet


class Store:
    """See the module. ``versions`` counts the changes of each name.

    ``touched`` holds, by name, the keys of what may have changed since it was emptied: of
    a set the canonical texts.
    """

    def __init__(self) -> None:
        self._names: dict[str, Held] = {}
        self.versions: dict[str, int] = {}
        #: Counts what made a difference.
        self.changes = 0
        self.touched: dict[str, dict[str, None]] = {}

    # Reading

    def names(self) -> frozenset[str]:
        """Return the names in use."""
        return frozenset(self._names)

    def document(self, name: str) -> list[Any]:
        """Return ``[value]`` of ``data.metadata.NAME``, ``[]`` if the name is unused."""
        held = self._names.get(name)
        if held is None:
            return []
        return [list(held.values())] if isinstance(held, MetadataSet) else [held]

    def entry(self, name: str, key: object) -> list[Any]:
        """Return ``[value]`` under a key of a map, ``[]`` if there is none."""
        held = self._names.get(name)
        if not isinstance(key, str) or held is None or isinstance(held, MetadataSet) or key not in held:
            return []
        return [held[key]]

    def entries(self, name: str, keys: list[object]) -> list[Any]:
        """Return what is under these keys of a map, as far as there is something."""
        return [one for key in keys for one in self.entry(name, key)]

    def held(self, name: str, key: str) -> list[Any]:
        """Return ``[value]`` under a key of a map or set, ``[]`` if there is none."""
        held = self._names.get(name, {})
        return [held[key]] if key in held else []

    def keys(self, name: str) -> list[str]:
        """Return the keys of a map, sorted as a policy sees them."""
        held = self._names.get(name)
        return [] if held is None or isinstance(held, MetadataSet) else sorted(held)

    def kind(self, name: str) -> str:
        """Return whether a name in use is a ``map`` or a ``set``."""
        return "set" if isinstance(self._names[name], MetadataSet) else "map"

    def digest(self) -> str:
        """Return the SHA-256 of everything, as the replay format has it."""
        whole = {name: self.document(name)[0] for name in self._names}
        digest: str = sha256(canonical(_listed(whole)).encode("utf-8", "surrogatepass")).hexdigest()
        return digest

    # Changing

    def apply(self, operations: Sequence[Operation]) -> None:
        """Carry out the operations in order; those before a failing one stay.

        Raises:
            MetadataError: one does not apply.
        """
        for operation in operations:
            self._apply(operation)
            self.versions[operation.name] = self.versions.get(operation.name, 0) + 1

    def _apply(self, operation: Operation) -> None:
        kind, name, action, key, value = operation
        if kind not in ("map", "set"):
            raise MetadataError(f"unrecognized metadata type: {kind}")
        new = name not in self._names
        fresh: Held = MetadataSet() if kind == "set" else {}
        held = self._names.setdefault(name, fresh)
        if isinstance(held, MetadataSet) is not (kind == "set"):
            has = self.kind(name)
            raise MetadataError(f"unable to get metadata: metadata {name} has the wrong type ({has})")
        touched = self.touched.setdefault(name, {})
        before = len(held), None if isinstance(held, MetadataSet) else held.get(key)
        if isinstance(held, MetadataSet):
            touched[_apply_to_set(held, action, value)] = None
        else:
            touched[key] = None
            _apply_to_map(held, name, action, key, value)
        after = len(held), None if isinstance(held, MetadataSet) else held.get(key)
        # A new name is seen by policies too.
        self.changes += new or before[0] != after[0] or not _is_same(before[1], after[1])

    def touch(self, name: str) -> None:
        """Have all of a name looked at again by who follows the changes."""
        if name in self._names:
            self.touched.setdefault(name, {}).update(dict.fromkeys(self._names[name]))

    def declare(self, name: str, kind: str | None) -> None:
        """Bring a name into use, or take it with all it holds out of it (None)."""
        if kind is None:
            self._names.pop(name, None)
        else:
            self._names.setdefault(name, MetadataSet() if kind == "set" else {})
        self._changed(name)

    def put(self, name: str, key: str, value: Any) -> None:
        """Put a value under a key; of a set the key is its canonical text."""
        self._names[name][key] = value
        self._changed(name)

    def drop(self, name: str, key: str) -> None:
        """Remove what is under a key."""
        self._names[name].pop(key, None)
        self._changed(name)

    def _changed(self, name: str) -> None:
        self.versions[name] = self.versions.get(name, 0) + 1
        self.changes += 1

    def snapshot(self) -> Mapping[str, Held]:
        """Return everything as it is."""
        return {name: type(held)(held) for name, held in self._names.items()}

    def restore(self, snapshot: Mapping[str, Held]) -> None:
        """Put everything back as it was."""
        self.changes += 1
        for name in {*self._names, *snapshot}:
            # Values are shared, so comparing what did not change costs next to nothing.
            if self._names.get(name) != snapshot.get(name):
                self.versions[name] = self.versions.get(name, 0) + 1
        self._names = {name: type(held)(held) for name, held in snapshot.items()}


def _is_same(one: Any, other: Any) -> bool:
    """Say whether nothing has changed; what is equal but another value counts as changed."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))
    return one is other or (isinstance(one, str) and isinstance(other, str) and one == other)


def _apply_to_map(held: dict[str, Any], name: str, action: str, key: str, value: Any) -> None:
    if action == "add":
        if key in held:
            raise MetadataError(f"cannot add metadata value, key {name}[{key}] already exists")
        held[key] = value
    elif action == "update":
        held[key] = value
    elif action == "remove":
        held.pop(key, None)
    else:
        raise MetadataError(f"unrecognized metadata action: {action} for map")


def _apply_to_set(held: MetadataSet, action: str, value: Any) -> str:
    text = canonical(value)
    if action == "add":
        held.setdefault(text, value)
    elif action == "remove":
        held.pop(text, None)
    else:
        raise MetadataError(f"unrecognized metadata action: {action} for set")
    return text


def parse_operations(metadata: object) -> list[Operation]:
    """Read the operations of a rule's result.

    Raises:
        MetadataError: one of them is not as policy.md 5.3 says.
    """
    if not isinstance(metadata, list):
        raise MetadataError("error loading metadata array: invalid type")
    try:
        return [_parse_operation(one) for one in metadata]
    except MetadataError as error:
        raise MetadataError(f"error loading metadata operation: {error}") from None


def _parse_operation(one: object) -> Operation:
    if not isinstance(one, dict):
        raise MetadataError("unable to load metadata object")
    texts = {"type": one.get("type", "map"), "name": one.get("name"), "action": one.get("action")}
    for field, text in texts.items():
        if not isinstance(text, str):
            raise MetadataError(f"unable to load metadata {field}")
    kind, name, action = texts["type"], texts["name"], texts["action"]
    key = one.get("key", "")
    if not isinstance(key, str):
        raise MetadataError("unable to load metadata key")
    if "value" not in one and (action != "remove" or kind == "set"):
        raise MetadataError("missing metadata value")
    if kind == "map" and "key" not in one:
        raise MetadataError("missing metadata key")
    return Operation(kind, str(name), str(action), key, one.get("value"))


def _listed(value: Any) -> Any:
    """Sort every list by its elements' JSON: sets and arrays then look alike."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((_listed(item) for item in value), key=canonical)
    return value

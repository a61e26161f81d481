"""What of an enforcer is kept over a restart of the daemon: one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from uvmd.errors import Refused
from uvmd_policy_rego.documents import Documents
from uvmd_policy_rego.store import MetadataSet
from uvmd_policy_rego.values import canonical

VERSION = 1
Keys = dict[str, dict[str, tuple[str, tuple[str, ...]]]]


class Saved(NamedTuple):
    """What an enforcer knows beside its documents."""

    policy: str
    stdio: dict[str, bool]
    mounts: list[dict[str, Any]]
    ledgers: Keys


def state_of(saved: Saved, documents: Documents) -> dict[str, Any]:
    """Return the object to keep."""
    metadata = documents.store.snapshot()
    sets = {name: held for name, held in metadata.items() if isinstance(held, MetadataSet)}
    others = {name: held for name, held in metadata.items() if name not in sets and name != "matches"}
    return {
        "v": VERSION,
        "policy": saved.policy,
        "stdio": saved.stdio,
        "mounts": saved.mounts,
        "ledgers": saved.ledgers,
        "maps": others,
        "matches": documents.packed_matches(),
        "sets": {name: list(held.values()) for name, held in sets.items()},
        "modules": [[*identity, *kept] for identity, kept in documents.kept.items()],
    }


def load_state(state: Mapping[str, Any], documents: Documents) -> Saved:
    """Put what was kept into fresh documents and return the rest.

    Raises:
        Refused: it was kept by a version that this one does not know.
    """
    if state.get("v") != VERSION:
        raise Refused(f"the policy's metadata were kept in version {state.get('v')}, not {VERSION}")
    sets = {
        name: MetadataSet((canonical(value), value) for value in values)
        for name, values in state["sets"].items()
    }
    documents.restore_all({**state["maps"], **sets})
    # Which candidates there are depends on the fragments, so these come first.
    if state["matches"]:
        documents.restore_all({**state["maps"], **sets, "matches": documents.unpack(state["matches"])})
    for issuer, feed, namespace, text in state["modules"]:
        documents.keep((issuer, feed), namespace, text)
    documents.extend_default_mounts(state["mounts"])
    ledgers = {
        ledger: {kid: (key, tuple(by)) for kid, (key, by) in keys.items()}
        for ledger, keys in state["ledgers"].items()
    }
    return Saved(state["policy"], dict(state["stdio"]), list(state["mounts"]), ledgers)

"""A policy's documents in an engine: what is loaded, asked, indexed and kept of fragments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from uvmd_policy_rego import defaults, lenient, modules, predicates
from uvmd_policy_rego.dialects import add_document
from uvmd_policy_rego.engine import Engine, EngineError, Function, Trials
from uvmd_policy_rego.index import LayerIndex
from uvmd_policy_rego.kept import Change, sha256
from uvmd_policy_rego.literals import split
from uvmd_policy_rego.patterns import anchor, translate
from uvmd_policy_rego.store import MetadataError, Operation, Store, parse_operations
from uvmd_policy_rego.values import canonical, compare_versions, parse_version, to_number


class Documents:
    """See the module.

    Raises:
        EngineError: the policy does not parse.
    """

    def __init__(
        self,
        text: str,
        default_mounts: Sequence[Mapping[str, Any]] = defaults.DEFAULT_MOUNTS,
        privileged_mounts: Sequence[Mapping[str, Any]] = defaults.PRIVILEGED_MOUNTS,
    ) -> None:
        self.store = Store()
        self.store.apply([Operation("map", "operatingsystem", "add", "ostype", "linux")])
        left, self._lists = split(text)
        # Whether an answer hangs on nothing but the question and what is remembered.
        self._pure = modules.is_pure(left)
        #: Whether the candidates are the same at every question.
        self.static = self._pure or modules.is_settled(left)
        self._frameworks = modules.frameworks_rules(left)
        self._reads_mounts = modules.reads_mounts(left)
        self.default_mounts = [dict(mount) for mount in default_mounts]
        self.added_mounts = 0
        self._mounts = {"default": predicates.Mounts(self.default_mounts)}
        self._privileged_mounts = [dict(mount) for mount in privileged_mounts]
        self._mounts["privileged"] = predicates.Mounts(self._privileged_mounts)
        self._index = LayerIndex()
        self._trials = Trials()
        self._indexed: int | None = None
        #: Layer hashes and containers without any fragment.
        self._own: tuple[list[Any], list[Any]] | None = None
        # The containers among them as the engine has them, where its lists are not the same.
        self._declared: dict[str, list[Any]] = {}
        # Containers that a result speaks of, by a text that nobody can guess: as a whole they
        # would be written out, read and compared again at each step.
        self._handles: dict[str, list[Any]] = {}
        self._seen = set(modules.METADATA_NAMES)
        #: Modules of fragments that stay, by issuer and feed: namespace and text.
        self.kept: dict[tuple[str, str], tuple[str, str]] = {}
        self._base = Engine(self._functions(), self._data())
        lookup = "indexed" if self._pure else "settled" if self.static else "live"
        for name, module in modules.own_modules(lookup).items():
            self._base.add_module(name, module)
        require_no_override(left)
        add_policy_module(self._base, "policy.rego", left)
        self._engine = self._base
        if self.static:
            self._refresh()

    def close(self) -> None:
        """Let the engines go."""
        del self._engine, self._base, self._trials

    # Questions

    def set_input(self, input: Mapping[str, Any], text: str | None = None) -> None:
        """Set what the next questions are about; ``text`` is the same as JSON, where it is at hand."""
        self._engine.set_input(json.dumps(input) if text is None else text)

    def find(self, path: str) -> list[Any]:
        """Return ``[value]`` of a document, ``[]`` if it is undefined.

        Raises:
            EngineError: the evaluation ended with an error.
        """
        if self._indexed_late():
            self._refresh()
        return self._engine.find(path)

    def rule_of(self, point: str) -> str:
        """Return where the rule of an enforcement point is: in the framework, if it is only that."""
        return f"data.{'framework' if point in self._frameworks else 'policy'}.{point}"

    def find_result(self, path: str) -> dict[str, Any]:
        """Return the object that a rule yields, empty if undefined, its metadata applied.

        Raises:
            EngineError, MetadataError: see the texts.
        """
        result, operations = self.find_result_alone(path)
        self.carry_out(operations)
        return result

    def find_result_alone(self, path: str) -> tuple[dict[str, Any], list[Operation]]:
        """Return the object that a rule yields, and what it wants done to the metadata.

        Raises:
            EngineError, MetadataError: see the texts.
        """
        found = self.find(path)
        if not found:
            return {}, []
        result = found[0]
        if not isinstance(result, dict):
            raise EngineError("unable to load results object from Rego query")
        wanted = parse_operations(result.pop("metadata")) if "metadata" in result else []
        operations = [self._whole(one) for one in wanted]
        self._handles.clear()
        return result, operations

    def _places_over(self, paths: object) -> list[list[int]]:
        """Return ``[places]`` of the containers with the layers that are mounted at these paths."""
        if not isinstance(paths, list):
            return []
        hashes = self.store.entries("devices", paths)
        known = len(hashes) == len(paths)
        return self._places([self._index.containers_with_layers(hashes)]) if known else []

    def _whole(self, operation: Operation) -> Operation:
        """Put the candidates themselves where a result has named them, by a handle or by an equal."""
        name, value = operation.name, operation.value
        if self.static and name == "matches" and isinstance(value, list):
            return operation._replace(value=self._index.shared(value))
        containers = self._handles.get(value) if isinstance(value, str) else None
        return operation if containers is None else operation._replace(value=containers)

    def _keep(self, containers: list[Any]) -> str:
        handle = f"uvmd {os.urandom(16).hex()}"
        self._handles[handle] = containers
        return handle

    def _env_rules_at(self, place: int, envs: Any) -> list[dict[str, Any]]:
        (container,) = self._index.declared((place,))
        if "env_rules" not in container:
            return []
        rules = container["env_rules"]
        listed = [*rules.values()] if isinstance(rules, dict) else rules
        if not isinstance(listed, list):
            return []
        return [predicates.env_rules(listed, envs, self._anchored)]

    def _same_capabilities_at(self, place: int, asked: Any) -> bool:
        return predicates.same_capabilities(self._index.declared((place,))[0].get("capabilities"), asked)

    def _kept_of(self, container: object, places: list[int]) -> str:
        before = self.store.entry("matches", container)[0]
        return self._keep([before[place] for place in places])

    def _places(self, found: list[Any]) -> list[list[int]]:
        """Return ``[places]`` of ``[containers]`` in the engine's data, ``[]`` if one is not there."""
        places = self._index.places(found[0]) if found and isinstance(found[0], list) else None
        return [] if places is None else [places]

    def carry_out(self, operations: Sequence[Operation]) -> None:
        """Do to the metadata what a rule wants.

        Raises:
            MetadataError: it cannot be done; what came before it is done.
        """
        if not operations:
            return
        new = {operation.name for operation in operations} - self._seen
        for name in new:
            if not modules.is_identifier(name):
                raise MetadataError("error loading metadata operation: the name is no identifier")
        try:
            self.store.apply(operations)
        except MetadataError as error:
            raise MetadataError(f"error applying metadata operations: {error}") from None
        finally:
            if new:
                self._show(new)

    def _show(self, names: set[str]) -> None:
        self._seen |= names
        module = modules.metadata_module(sorted(names))
        for engine in {id(e): e for e in (self._base, self._engine)}.values():
            engine.add_module(f"metadata/{'-'.join(sorted(names))}.rego", module)

    @property
    def state(self) -> object:
        """What an answer hangs on beside its question, None where that cannot be said."""
        pure = self._pure and self._engine is self._base
        return (self.store.changes, self.added_mounts) if pure else None

    # Fragments

    def with_module(self, identity: tuple[str, str], namespace: str, text: str) -> Engine:
        """Return the engine before, and let a fragment's module take part from now on.

        Raises:
            EngineError: it does not parse; nothing changed.
        """
        before = self._engine
        engine = self._assembled({**self.kept, identity: (namespace, text)})
        self._engine = engine
        return before

    def keep(self, identity: tuple[str, str], namespace: str, text: str) -> None:
        """Let the module take part for good; of one namespace the newest counts."""
        others = {who: kept for who, kept in self.kept.items() if who != identity and kept[0] != namespace}
        self.kept = {**others, identity: (namespace, text)}
        self._engine = self._assembled(self.kept)

    def without_module(self, identity: tuple[str, str]) -> None:
        """Take a fragment's module out, also one that had been kept before."""
        self.kept = {who: kept for who, kept in self.kept.items() if who != identity}
        self._engine = self._assembled(self.kept) if self.kept else self._base

    def _assembled(self, kept: Mapping[tuple[str, str], tuple[str, str]]) -> Engine:
        engine = self._base.clone()
        by_namespace = dict(kept.values())
        for namespace, text in by_namespace.items():
            require_no_override(text)
            add_policy_module(engine, f"{namespace}.rego", text)
        if self.added_mounts and any(map(modules.reads_mounts, by_namespace.values())):
            engine.replace_data(self._data())
        return engine

    # What outlives this process, as texts

    def changes(self) -> list[Change]:
        """Return what may have changed since this was asked last, as texts."""
        if self._indexed_late():
            self._refresh()
        found: list[Change] = []
        for name, keys in self.store.touched.items():
            found.append((name, self.store.kind(name), None, None))
            for key in keys:
                held = self.store.held(name, key)
                found.append((name, None, key, self._text_of(name, held[0]) if held else None))
        self.store.touched.clear()
        return found

    def apply(self, changes: Iterable[Change]) -> None:
        """Take over changes that :meth:`changes` of this or an earlier process has returned.

        Raises:
            KeyError, ValueError, TypeError: they are none, or name candidates that are not there.
        """
        for name, kind, key, text in changes:
            if key is None:
                self.store.declare(name, kind)
            elif text is None:
                self.store.drop(name, key)
            else:
                self.store.put(name, key, self._value_of(text))
        new = self.store.names() - self._seen
        if new:
            self._show(set(new))

    def _text_of(self, name: str, value: Any) -> str:
        if name == "matches" and self.static and isinstance(value, list):
            ids = self._index.ids(value)
            if ids is not None:
                return "#" + " ".join(ids)
        return "=" + canonical(value)

    def _value_of(self, text: str) -> Any:
        if text.startswith("="):
            return json.loads(text[1:])
        if self._indexed_late():
            self._refresh()
        return self._index.by_ids(text[1:].split())

    # What changes beside the metadata

    def extend_default_mounts(self, mounts: Sequence[Mapping[str, Any]]) -> None:
        """Add to the default mounts. Only policies that could look at them themselves pay for it."""
        self.default_mounts.extend(dict(mount) for mount in mounts)
        self.added_mounts += len(mounts)
        self._mounts["default"] = predicates.Mounts(self.default_mounts)
        if self._reads_mounts:
            self._base.replace_data(self._data())
        if self._engine is not self._base and (self._reads_mounts or self._fragments_read_mounts()):
            self._engine.replace_data(self._data())

    def _fragments_read_mounts(self) -> bool:
        return any(modules.reads_mounts(text) for _, text in self.kept.values())

    def _indexed_late(self) -> bool:
        return self.static and self._indexed != self.store.versions.get("issuers", 0)

    def _refresh(self) -> None:
        version = self.store.versions.get("issuers", 0)
        self._engine.set_input("{}") if self._indexed is None else None
        candidates = self._candidates()
        if self._indexed is None:
            self._declare(candidates[1])
        self._index.refresh(*candidates)
        self._indexed = version
        # Whether a candidate is one decides how it is kept.
        self.store.touch("matches")

    def _declare(self, own: list[Any]) -> None:
        """Have the engine know the policy's own candidates as data, if it does not know them as such."""
        if not (own and own == self._lists.get("containers")):
            self._declared = {"uvmd candidates": own}
            self._engine.add_data(self._declared)
        self._index.declare(own)

    def _candidates(self) -> tuple[list[Any], list[Any]]:
        """Return the layer hashes and the containers of the policy and its fragments."""
        if self._own is None or self._found("candidate_platform_rules"):
            own = self._found("layer_hashes"), self._found("candidate_containers")
            # Asked first without fragments. Platform rules change every container.
            self._own = self._own or own
            return own
        # What the policy declares stays as it is; of a large one it takes long to hand it over.
        hashes, containers = self._own
        return hashes + self._found("fragment_layer_hashes"), containers + self._found("fragment_containers")

    def _found(self, name: str) -> list[Any]:
        found = self._engine.find(f"data.framework.{name}")
        return found[0] if found and isinstance(found[0], list) else []

    def _data(self) -> dict[str, Any]:
        return {
            **({"policy": self._lists} if self._lists else {}),
            **self._declared,
            "defaultMounts": self.default_mounts,
            "privilegedMounts": self._privileged_mounts,
            "sandboxPrefix": defaults.SANDBOX_PREFIX,
            "hugePagesPrefix": defaults.HUGE_PAGES_PREFIX,
            "plan9Prefix": defaults.PLAN9_PREFIX,
            "defaultPrivilegedCapabilities": defaults.PRIVILEGED_CAPABILITIES,
            "defaultUnprivilegedCapabilities": defaults.UNPRIVILEGED_CAPABILITIES,
        }

    def _anchored(self, pattern: object) -> list[predicates.Pattern]:
        """Return a pattern, anchored, as it is and as the engine knows it; one that does not
        compile matches nothing.
        """
        whole = anchor(pattern)
        found = [] if whole is None else self._translated(whole)
        return [predicates.Pattern(whole, one) for one in found if whole is not None]

    def _mounts_left(
        self, own: list[Any], also: list[str], mounts: Any, places: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Hold mounts against a container's constraints and, where named, those of all."""
        constraints = [predicates.Mounts(own), *(self._mounts[name] for name in also)]
        prefixes = ((defaults.SANDBOX_PREFIX, "sandbox"), (defaults.HUGE_PAGES_PREFIX, "hugepages"))
        where = [(prefix, places.get(key)) for prefix, key in prefixes]
        there = predicates.Places(where, defaults.PLAN9_PREFIX)
        return predicates.mounts_left(constraints, mounts, there, self._anchored)

    def _translated(self, pattern: object) -> list[str]:
        """Return a pattern of a policy's own rules as the engine knows it, as it stands."""
        translated = translate(pattern) if isinstance(pattern, str) else None
        return [translated] if translated is not None and self._trials.compiles(translated) else []

    def _answers(self, builtin: str, arguments: list[Any]) -> bool:
        """Say whether a builtin takes these arguments; nothing else is evaluated by its name."""
        return builtin in lenient.TARGETS and self._trials.answers(builtin, arguments)

    def _functions(self) -> dict[str, Function]:
        """What our Rego asks Python for. A list of one value stands for defined."""
        return {
            "uvmd.metadata": (1, self.store.document),
            "uvmd.entry": (2, self.store.entry),
            "uvmd.entries": (2, self.store.entries),
            "uvmd.kept": (2, self._kept_of),
            "uvmd.kept_at": (1, lambda places: self._keep(self._index.declared(places))),
            "uvmd.places": (1, lambda container: self._places(self.store.entry("matches", container))),
            "uvmd.places_over": (1, self._places_over),
            "uvmd.keys": (1, self.store.keys),
            "uvmd.env_rules": (2, lambda rules, envs: predicates.env_rules(rules, envs, self._anchored)),
            "uvmd.env_rules_at": (2, self._env_rules_at),
            "uvmd.same_capabilities_at": (2, self._same_capabilities_at),
            "uvmd.mounts_left": (4, self._mounts_left),
            "uvmd.same_names": (2, predicates.same_names),
            "uvmd.same_capabilities": (2, predicates.same_capabilities),
            "uvmd.hash_known": (1, self._index.hash_known),
            "uvmd.containers_with_layers": (1, self._index.containers_with_layers),
            "uvmd.compare": (2, lambda a, b: _optional(compare_versions(a, b))),
            "uvmd.number": (1, lambda value: _optional(to_number(value))),
            "uvmd.anchor": (1, lambda pattern: _optional(anchor(pattern))),
            "uvmd.anchored": (1, lambda pattern: [one.translated for one in self._anchored(pattern)]),
            "uvmd.translated": (1, self._translated),
            "uvmd.is_version": (1, lambda text: parse_version(text) is not None),
            "uvmd.is_json": (1, lenient.is_json),
            "uvmd.answers": (2, self._answers),
            "semver.is_valid": (1, lambda text: parse_version(text) is not None),
            "semver.compare": (2, _required_order),
            "crypto.sha256": (1, lambda text: sha256(text.encode()).hexdigest()),
        }


def add_policy_module(engine: Engine, name: str, text: str) -> None:
    """Parse a policy or fragment as Rego v1, else as the v0 that older hosts accepted.

    Raises:
        EngineError: it is neither; the error is that of v1.
    """
    directed = lenient.directed(text)
    trial = Engine({}, {}) if lenient.may_have_operators(directed) else engine
    old = add_document(trial, name, directed)
    if trial is not engine:
        try:
            directed = lenient.without_operators(trial.syntax()[0])
        except RecursionError:
            pass  # nested too deeply to be looked at: its operators are the engine's
        engine.add_module(name, directed, old=old)
    for needed, module in lenient.modules_for(directed):
        if not engine.has_module(needed):
            engine.add_module(needed, module)


def require_no_override(text: str) -> None:
    """Refuse a text that would put something else in the place of what is Python's here.

    Raises:
        EngineError: names the document.
    """
    document = modules.overridden(text)
    if document is not None:
        raise EngineError(f"`with {document}` would have no effect on the framework's rules here")


def _optional(value: Any) -> list[Any]:
    return [] if value is None else [value]


def _required_order(a: object, b: object) -> int:
    order = compare_versions(a, b)
    if order is None:
        raise ValueError("semver.compare: not semantic versions")
    return order

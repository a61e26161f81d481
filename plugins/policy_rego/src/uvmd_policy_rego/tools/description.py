"""What a policy declares, as the rules will take it: versions, points, objects, switches.

The rules themselves are asked (what an older document is brought up to, which defaults a
missing rule has), so this cannot differ from what is enforced. What a policy computes with
rules of its own cannot be told from its text, and is named in ``untold``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from uvmd_policy_rego.engine import EngineError
from uvmd_policy_rego.session import Session
from uvmd_policy_rego.tools.literals import Placed
from uvmd_policy_rego.tools.reading import Document, NotRego, short_error
from uvmd_policy_rego.tools.writing import FLAGS, LISTS
from uvmd_policy_rego.values import compare_versions

#: Points of Windows guests, which a Linux guest never asks.
WINDOWS_POINTS: Final = frozenset(("mount_cims", "registry_changes", "log_provider"))
_KINDS: Final = {
    "containers": "container",
    "external_processes": "external_process",
    "fragments": "fragment",
    "platform_rules": "platform_rule",
    "transparency_trust_lists": "transparency_trust_list",
}
_OWN_VERSION: Final = "0.5.0"


@dataclass(frozen=True, slots=True)
class Item:
    """One object of a list: as declared, and as the rules take it (None: they drop it)."""

    index: int
    line: int
    declared: dict[str, Any]
    value: dict[str, Any] | None
    placed: Placed | None = None

    @property
    def name(self) -> str:
        """What tools call a container: ``name``, else ``id``."""
        for key in ("name", "id"):
            name = self.declared.get(key)
            if isinstance(name, str) and name:
                return name
        return ""


@dataclass(frozen=True, slots=True)
class Point:
    """Who decides at an enforcement point.

    ``framework``: the common rules; ``allow``, ``deny``: always; ``own``: a rule of the policy's
    own; ``default_allow``, ``default_deny``: the policy is older than the point; ``missing``:
    there is no rule where one must be, so all is denied; ``other``: points somewhere else.
    """

    name: str
    answer: str
    line: int = 0
    source: str = ""


@dataclass(slots=True)
class Description:
    """See the module."""

    document: Document
    api_version: Any = None
    framework_version: Any = None
    svn: Any = None
    points: dict[str, Point] = field(default_factory=dict)
    lists: dict[str, list[Item]] = field(default_factory=dict)
    #: A switch that something computes is None.
    flags: dict[str, Any] = field(default_factory=dict)
    #: What cannot be told, in sentences.
    untold: list[str] = field(default_factory=list)

    @property
    def is_fragment(self) -> bool:
        """Whether it is a fragment, which a policy must import."""
        return self.document.package != "policy"

    @property
    def containers(self) -> list[Item]:
        """The containers that the rules know."""
        return [one for one in self.lists["containers"] if one.value is not None]

    def items(self, name: str) -> list[Item]:
        """Return the objects of a list that count."""
        return [one for one in self.lists[name] if one.value is not None]

    def on(self, flag: str) -> bool:
        """Say whether a switch is set, which anything but false does; capabilities also need 0.2.2."""
        if flag == "allow_capability_dropping" and (
            compare_versions(self.framework_version, "0.2.2") in (None, -1)
        ):
            return False
        return self.flags.get(flag) is not False

    @property
    def open_door(self) -> bool:
        """Whether every container may run, whatever it is."""
        creating = self.points.get("create_container")
        return creating is not None and creating.answer == "allow"


def describe(document: Document) -> Description:
    """Describe a policy or fragment.

    Raises:
        NotRego: the rules cannot be asked about it; a list that is none, for one.
    """
    policy = document.package == "policy"
    for name in LISTS:
        literal = document.literal(name)
        if literal is not None and not isinstance(literal.value, list):
            text = f"{name} is no list: every question would end in an error"
            raise NotRego(text, document.line(literal))
    try:
        # A fragment's objects are brought up to date by the same functions of the framework.
        session = Session(document.text if policy else "package policy\n")
        try:
            return _Describer(document, session).whole()
        finally:
            session.close()
    except EngineError as error:
        raise NotRego(f"the engine refuses it: {short_error(error)}") from error


class _Describer:
    def __init__(self, document: Document, session: Session) -> None:
        self._document, self._session = document, session
        self._found = Description(document)

    def whole(self) -> Description:
        found = self._found
        found.api_version = self._version("api_version", "api_svn")
        found.framework_version = self._version("framework_version", "framework_svn")
        svn = self._document.literal("svn")
        found.svn = None if svn is None else svn.plain()
        for name in LISTS:
            found.lists[name] = self._items(name)
        if not found.is_fragment:
            for name in FLAGS:
                found.flags[name] = self._flag(name)
            found.points = {point.name: point for point in self._points()}
        return found

    def _version(self, name: str, old: str) -> Any:
        for one in (name, old):
            if self._document.named(one):
                values = self._values(one)
                if not values:
                    self._found.untold.append(f"{one} is computed, so which rules hold cannot be told.")
                    return None
                return values[0]
        return None

    def _values(self, name: str) -> list[Any]:
        """Return ``[value]`` of what the policy says under a name, ``[]`` if it cannot be told."""
        literal = self._document.literal(name)
        if literal is not None:
            return [literal.plain()]
        if self._document.static and not self._found.is_fragment:
            try:
                self._session.documents.set_input({})
                return self._session.documents.find(f"data.policy.{name}")
            except EngineError:
                return []
        return []

    def _flag(self, name: str) -> Any:
        if not self._document.named(name):
            return False
        values = self._values(name)
        if values:
            return values[0]
        if not self._document.static:
            self._found.untold.append(f"{name} is computed by a rule of the policy's own.")
            return None
        return False  # undefined counts as off

    def _items(self, name: str) -> list[Item]:
        if not self._document.named(name):
            return []
        literal = self._document.literal(name)
        values = self._values(name)
        if not values:
            what = name.replace("_", " ")
            self._found.untold.append(f"The {what} are computed by a rule; what they hold cannot be told.")
            return []
        declared = values[0] if isinstance(values[0], list) else []
        taken = self._taken(_KINDS[name], declared)
        if name == "transparency_trust_lists" and not self._found.is_fragment:
            taken = declared  # the policy's own are read whatever its version
        items = []
        for index, one in enumerate(declared):
            placed = None if literal is None else literal.find(index)
            value = taken[index] if isinstance(taken[index], dict) else None
            shown = one if isinstance(one, dict) else {}
            items.append(Item(index, self._document.line(placed), shown, value, placed))
        return items

    def _taken(self, kind: str, declared: list[Any]) -> list[Any]:
        """Return each object as the rules take it, None for one that they drop."""
        if self._found.framework_version == _OWN_VERSION:
            return declared
        documents = self._session.documents
        documents.set_input({"values": declared, "version": self._found.framework_version})
        query = f'[data.framework.apply_defaults("{kind}", [one], input.version) | some one in input.values]'
        try:
            found = documents.find(query)
        except EngineError:
            found = []
        # Of a version that the rules do not know nothing is taken at all.
        if not found or len(found[0]) != len(declared):
            return [None] * len(declared)
        return [one[0] if one else None for one in found[0]]

    def _points(self) -> Iterable[Point]:
        known = self._session.documents.find("data.api.enforcement_points")[0]
        for name in known:
            if name in WINDOWS_POINTS:
                continue
            yield self._point(name, known[name])

    def _point(self, name: str, info: dict[str, Any]) -> Point:
        statements = self._document.named(name)
        if not statements:
            return Point(name, self._without_rule(info))
        first = statements[0]
        line = 0 if self._document.legacy else first.line
        answer = "own"
        if len(statements) == 1 and first.kind == "alias":
            answer = "framework" if first.target == f"data.framework.{name}" else "other"
        elif len(statements) == 1 and first.kind == "literal" and first.value is not None:
            allowed = first.value.find("allowed")
            value = None if allowed is None else allowed.value
            answer = "allow" if value is True else "deny"
        if answer == "own":
            self._found.untold.append(
                f"{name} is decided by a rule of the policy's own (line {line});"
                " what that allows cannot be told from here."
            )
        source = "\n".join(one.source for one in statements)
        return Point(name, answer, line, source)

    def _without_rule(self, info: dict[str, Any]) -> str:
        order = compare_versions(self._found.api_version, info["introducedVersion"])
        if order is None:
            return "missing"  # no usable version: everything is denied
        if order >= 0:
            return "missing"
        if info["use_framework"]:
            return "framework"
        return "default_allow" if info["default_results"].get("allowed") is True else "default_deny"

"""How a plugin adds a resource type to ModifySettings: find, plan, ask, apply.

A *type* is declared by :class:`ResourceType` and served by a :class:`Handler`. For each
request core decodes the settings, lets the handler *find* what it needs (slow, unlocked),
takes the lock, asks for a *plan* (fast, reads only), puts the plan's questions to the
policy, enters its claims in the mount table, and only then runs its *apply*, with the
very values that the policy saw. When apply raises, core runs the undo stack and puts the
policy's metadata and the table back.

Lies on the path of the start, as every plugin's ``plugin.py`` imports it: hence named
tuples, which cost a sixth of what a dataclass costs to make.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from uvmd.api.names import MODIFY_RESOURCE
from uvmd.errors import Refused

if TYPE_CHECKING:
    from uvmd.api.environment import Environment
    from uvmd.api.policy import Decision
    from uvmd.api.transaction import Undo
    from uvmd.api.wire import WireModel

#: What apply returns and core keeps: plain JSON, ``v`` for its version, no secrets.
Record = dict[str, Any]
MAX_RECORD_BYTES = 4096
#: A default that nobody can write into.
_EMPTY: Mapping[Any, Any] = MappingProxyType({})
#: Hands a descriptor to core, which closes it after the request.
Keep = Callable[[int], None]
#: The policy's decisions, in the order of the plan's questions.
Answers = tuple["Decision", ...]


class Target(enum.Enum):
    """What a request of the type is addressed to."""

    VM = "vm"
    CONTAINER = "container"


class Verb(enum.Enum):
    """A request type, in the wire's spelling."""

    ADD = "Add"
    REMOVE = "Remove"
    UPDATE = "Update"


class ResourceType(NamedTuple):
    """One resource type, declared by the hook ``resource_types``.

    Args:
        name: as the host sends it; a third party's begins with its domain and ``/``.
        handler: ``"package.module:Class"``, imported when the first request comes.
        target: the VM or a container.
        verbs: the request types it serves.
        points: by verb, the enforcement points that its plans may ask. A verb that is
            not named may ask ``modify_resource``, which is all that a third party may.
        latched: refused in a strict VM that is inconsistent.
    """

    name: str
    handler: str
    target: Target = Target.VM
    verbs: Sequence[Verb] = (Verb.ADD, Verb.REMOVE)
    points: Mapping[Verb, Sequence[str]] = _EMPTY
    latched: bool = True

    def points_of(self, verb: Verb) -> tuple[str, ...]:
        """The points that a plan for ``verb`` may ask."""
        return tuple(self.points.get(verb, (MODIFY_RESOURCE,)))


class Found(tuple[Any, ...]):
    """What :meth:`Handler.find` found: any values, handed to the plan as they are."""

    __slots__ = ()

    def __new__(cls, *values: Any) -> Found:
        return super().__new__(cls, values)


class Context:
    """What finding may rely on.

    ``deadline`` is on the monotonic clock. ``strict`` holds for this finding: should a
    policy come into force before the plan, core lets the handler find again.
    """

    __slots__ = ("_keep", "deadline", "strict")

    def __init__(self, deadline: float, strict: bool, keep: Keep) -> None:
        self.deadline = deadline
        self.strict = strict
        self._keep = keep

    def keep(self, fd: int) -> int:
        """Keep a descriptor open until the request is over; core closes it. Returns it."""
        self._keep(fd)
        return fd


class Question(NamedTuple):
    """One question to the policy.

    At ``modify_resource`` core fills in ``resource_type``, ``request_type``, ``target``
    (the id that the request is addressed to) and ``settings`` (as decoded, by their wire
    names), so that a policy can rely on them whatever the handler wrote; what the
    handler adds, such as a hash that it found, stands beside them.

    Args:
        point: one that the type declares.
        input: the policy's ``input``.
        refusal: goes before the reason of a denial: ``"overlay creation denied by policy: "``.
    """

    point: str
    input: Mapping[str, Any] = _EMPTY
    refusal: str = ""


class Kind(enum.Enum):
    """What a claim stands for; the values are those of error texts."""

    READ_ONLY = "RO"
    READ_WRITE = "RW"
    OVERLAY = "Overlay"
    #: A link to a device's node, where nothing is mounted.
    BLOCK_DEVICE = "BlockDev"
    #: A directory that is at another path too.
    BIND = "Bind"


class Claim(NamedTuple):
    """An entry of the mount table that a plan makes, or (in ``releases``) takes away.

    Args:
        target: the path in the VM. Cleaned by the table.
        source: what is mounted there: a device, a port and share, for an overlay its own
            path. Empty in a release: whatever it is.
        kind: None in a release: whatever it is.
        encrypted: None in a release: not stated.
        uses: paths on which this one rests; what contains them cannot be released.
        owner_container: core unmounts and releases it when that container is deleted.
    """

    target: str
    source: str = ""
    kind: Kind | None = None
    encrypted: bool | None = None
    uses: Sequence[str] = ()
    owner_container: str = ""


def _nothing(undo: Undo, answers: Answers) -> None:
    return None


class Plan(NamedTuple):
    """What is to be asked, claimed and done. Made by reading only.

    ``apply(undo, answers)`` changes the system. After each step it registers the
    opposite at ``undo``; before a step that has none it calls
    ``undo.point_of_no_return``. Its first lines check host-chosen paths: before the
    policy said yes, a host must not learn what exists.

    ``prepare(keep)`` is called once before ``apply``, while the policy is asked where that
    takes time. It does what of ``apply`` changes nothing and never waits, not for a file
    system either. What it raises counts only after a yes.
    """

    questions: Sequence[Question]
    apply: Callable[[Undo, Answers], Record | None]
    claims: Sequence[Claim] = ()
    releases: Sequence[Claim] = ()
    prepare: Callable[[Keep], None] | None = None

    @classmethod
    def nothing(cls) -> Plan:
        """Return the plan of a request that asks for no change; the only one without questions."""
        return _NOTHING


_NOTHING = Plan((), _nothing)


class Mount(NamedTuple):
    """One entry of the mount table, as a plan may see it."""

    target: str
    source: str
    kind: Kind
    encrypted: bool
    uses: int


class Mounts(Protocol):
    """The mount table, to read."""

    def at(self, path: str) -> Mount | None:
        """The entry at exactly this path."""

    def containing(self, path: str) -> Mount | None:
        """The deepest entry that is this path or contains it."""

    def is_encrypted(self, path: str) -> bool:
        """Whether the deepest entry containing the path is read-write and encrypted."""

    def of_source(self, source: str) -> Sequence[Mount]:
        """The entries that come from this source."""


class Containers(Protocol):
    """The containers, to read."""

    def status(self, container_id: str) -> str | None:
        """``creating``, ``created``, ``running`` or ``stopped``; None for an unknown id."""

    def using_root(self, path: str) -> Sequence[str]:
        """Ids of created and running containers whose root is this path."""


class View(NamedTuple):
    """What a plan may read besides what was found. Valid while the plan is made."""

    strict: bool
    target: str
    mounts: Mounts
    containers: Containers


class Handler:
    """Base of every handler: one instance a daemon, called from several threads.

    Override what the type's verbs need. Raise an error of :mod:`uvmd.errors` whose text
    says what was tried, on what, and the errno; it never quotes the settings. The text
    of any other exception but OSError is kept from the host.
    """

    #: The type's settings; core decodes and validates.
    settings: ClassVar[type[WireModel]]

    def __init__(self, env: Environment) -> None:
        self.env = env

    def identity(self, settings: Any) -> str:
        """Name the thing that a request is about, the same for add and remove.

        Core locks the name while it works on the request, and files the record under it,
        so begin with what kind of name it is: ``path:/run/x``, ``device:0:1``. Core cleans
        the path of a name that begins with ``path:``.
        """
        raise Refused(f"{type(self).__name__} does not say what its requests are about")

    def keys(self, settings: Any, found: Found) -> Iterable[str]:
        """Name what else is locked in a VM that is not strict; in a strict one all is."""
        return ()

    def find(self, settings: Any, verb: Verb, ctx: Context) -> Found:
        """Look for what the request names, and wait for it until ``ctx.deadline``.

        Slow and unlocked. Reads hardware only, and only what the request names.
        """
        return Found()

    def add(self, settings: Any, found: Found, view: View, record: Record | None) -> Plan:
        """Plan an Add. ``record`` is what an earlier one left under this identity."""
        raise Refused(f"{type(self).__name__} does not support Add")

    def remove(self, settings: Any, found: Found, view: View, record: Record | None) -> Plan:
        """Plan a Remove of what ``record`` tells; None when nothing is known of it."""
        raise Refused(f"{type(self).__name__} does not support Remove")

    def update(self, settings: Any, found: Found, view: View, record: Record | None) -> Plan:
        """Plan an Update."""
        raise Refused(f"{type(self).__name__} does not support Update")


class Registered:
    """A resource type as core serves it: the declaration, whose it is, and its handler."""

    def __init__(
        self, type: ResourceType, plugin: str, third_party: bool, make: Callable[[], Handler]
    ) -> None:
        self.type = type
        self.plugin = plugin
        self.third_party = third_party
        self._make = make
        self._handler: Handler | None = None
        self._lock = threading.Lock()

    def handler(self) -> Handler:
        """Return the one handler, made on first use. Raises what importing or making it raises."""
        if self._handler is None:
            with self._lock:
                if self._handler is None:
                    self._handler = self._make()
        return self._handler

"""``CombinedLayers``: a container's root, put together from read-only layers and a scratch.

What is decided here by reading only: the questions, in the order in which the reference
asks them, and what the mount table is told. The steps are in ``layout``.
"""

from __future__ import annotations

from collections.abc import Iterator

from uvmd.api import (
    Answers,
    Claim,
    Environment,
    Found,
    Handler,
    Keep,
    Kind,
    Plan,
    Question,
    Record,
    Undo,
    Unfinished,
    View,
)
from uvmd.errors import InUse
from uvmd_storage_overlay import layout
from uvmd_storage_overlay.layout import Layout, Ready
from uvmd_storage_overlay.settings import (
    CombinedLayersSettings,
    bundle_of,
    needs_bind,
    owner_of,
    quoted,
    require_addable,
    require_root_path,
    require_strict_places,
)


class CombinedLayers(Handler):
    """There is nothing to find: layers and scratch are other requests' mounts."""

    settings = CombinedLayersSettings

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._unfinished = Unfinished(env.state)

    def identity(self, settings: CombinedLayersSettings) -> str:
        return f"path:{settings.container_root_path}"

    def keys(self, settings: CombinedLayersSettings, found: Found) -> Iterator[str]:
        yield f"container:{owner_of(settings)}"
        yield f"path:{bundle_of(settings.container_root_path)}"
        yield from (f"path:{layer.path}" for layer in settings.layers)
        if settings.scratch_path:
            yield f"path:{settings.scratch_path}"

    def add(self, settings: CombinedLayersSettings, found: Found, view: View, record: Record | None) -> Plan:
        if view.strict:
            require_strict_places(settings)
        require_addable(settings)
        self._unfinished.look(view.mounts)
        target, scratch, owner = settings.container_root_path, settings.scratch_path, owner_of(settings)
        layers = tuple(layer.path for layer in settings.layers)
        bundle, on_scratch = bundle_of(target), needs_bind(scratch, bundle_of(target))
        # A bind outlives its overlay, up to the container's delete; a further overlay finds it there.
        binds = on_scratch and not is_bind(view, bundle, f"{scratch}/bundle")
        parts = Layout(target, layers, scratch, binds)
        ready = Ready()

        def prepare(keep: Keep) -> None:
            nonlocal ready
            ready = layout.get_ready(parts, keep)

        def apply(undo: Undo, answers: Answers) -> Record:
            self._unfinished.settle(layout.take_away)
            self._unfinished.begin(target, {"backing": parts.backing if binds else ""})
            undo.callback(self._unfinished.end, target, step="forget what was begun")
            return {"v": 1, "owner": owner, **layout.combine(parts, undo, ready)}

        uses = (*layers, *filter(None, (scratch, bundle if on_scratch else "")))
        claims = [Claim(target, target, Kind.OVERLAY, uses=uses)]
        if binds:
            bind = Claim(bundle, parts.backing, Kind.BIND, uses=(scratch,), owner_container=owner)
            claims.insert(0, bind)
        return Plan(questions(settings, view), apply, claims=claims, prepare=prepare)

    def remove(
        self, settings: CombinedLayersSettings, found: Found, view: View, record: Record | None
    ) -> Plan:
        target = settings.container_root_path
        require_root_path(target)
        self._unfinished.look(view.mounts)
        bundle = bundle_of(target)
        bind = view.mounts.at(bundle)
        # Core takes the bind away when it deletes the container. Of one that was never
        # created nobody will ask the delete.
        leaves = (
            record is not None
            and bind is not None
            and bind.kind is Kind.BIND
            and view.containers.status(record["owner"]) is None
        )

        def apply(undo: Undo, answers: Answers) -> None:
            # Not before the policy: what runs is not for everybody to ask.
            for container in view.containers.using_root(target):
                status = view.containers.status(container)
                raise InUse(f"overlay {quoted(target)} is in use by a {status} container")
            self._unfinished.settle(layout.take_away)
            if record is None:
                return  # never ours, or gone already: not a path to unmount
            undo.point_of_no_return(f"unmounting overlay at {target}")
            layout.take_apart(target, record["made"])
            if leaves and bind is not None:
                layout.unbind(bundle, bind.source, record["bundle_made"])
            self._unfinished.end(target)

        releases = [Claim(target, target, Kind.OVERLAY)]
        if leaves:
            releases.append(Claim(bundle, kind=Kind.BIND))
        question = Question(
            "unmount_overlay", {"unmountTarget": target}, "overlay removal denied by policy: "
        )
        return Plan((question,), apply, releases=releases)


def is_bind(view: View, bundle: str, backing: str) -> bool:
    """Tell whether an earlier request has put the bundle there already."""
    there = view.mounts.at(bundle)
    return there is not None and there.kind is Kind.BIND and there.source == backing


def questions(settings: CombinedLayersSettings, view: View) -> list[Question]:
    """What an Add asks, in the reference's order and words."""
    asked = []
    scratch = settings.scratch_path
    if scratch:
        asked.append(
            Question(
                "scratch_mount",
                {"target": scratch, "encrypted": view.mounts.is_encrypted(scratch)},
                "scratch mounting denied by policy: ",
            )
        )
    asked.append(
        Question(
            "mount_overlay",
            {
                "containerID": settings.container_id,
                "layerPaths": [layer.path for layer in settings.layers],
                "target": settings.container_root_path,
            },
            "overlay creation denied by policy: ",
        )
    )
    return asked

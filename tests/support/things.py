"""A resource type whose handler does, at every step, what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uvmd.api import (
    Answers,
    Claim,
    Context,
    Field,
    Found,
    Handler,
    Kind,
    Plan,
    Question,
    Record,
    ResourceType,
    Target,
    Undo,
    Verb,
    View,
    WireModel,
)
from uvmd.api.testing import Workbench, fake_environment

NAME = "example.com/Thing"
ID = "ab" * 32


class ThingSettings(WireModel):
    path: str = Field("", alias="Path")


class Thing(Handler):
    """A thing at a path; every step can be made to do something else."""

    settings = ThingSettings

    def __init__(self) -> None:
        super().__init__(fake_environment())
        self.steps: list[str] = []
        self.before: dict[str, Callable[[], object]] = {}
        self.plan: object = None
        self.made: Record | None = {"v": 1}
        self.irreversible = False
        self.records: list[Record | None] = []
        self.views: list[View] = []
        self.answers: list[Answers] = []

    def step(self, name: str) -> None:
        self.steps.append(name)
        self.before.get(name, lambda: None)()

    def identity(self, settings: ThingSettings) -> str:
        return f"path:{settings.path}"

    def find(self, settings: ThingSettings, verb: Verb, ctx: Context) -> Found:
        self.step(f"find {'strict' if ctx.strict else 'loose'}")
        return Found("found", ctx)

    def add(self, settings: ThingSettings, found: Found, view: View, record: Record | None) -> Plan:
        return self.make("add", settings, view, record)

    def remove(self, settings: ThingSettings, found: Found, view: View, record: Record | None) -> Plan:
        return self.make("remove", settings, view, record)

    def make(self, verb: str, settings: ThingSettings, view: View, record: Record | None) -> Plan:
        self.step("plan")
        self.records.append(record)
        self.views.append(view)
        if self.plan is not None:
            return self.plan  # type: ignore[return-value]

        def apply(undo: Undo, answers: Answers) -> Record | None:
            self.answers.append(answers)
            undo.callback(self.step, "undo")
            if self.irreversible:
                undo.point_of_no_return(f"umount {settings.path}")
            self.step("apply")
            return self.made

        claim = Claim(settings.path, "thing", Kind.READ_WRITE)
        changes: dict[str, Any] = {"claims" if verb == "add" else "releases": (claim,)}
        return Plan((Question("modify_resource", {"hash": "abc"}),), apply, **changes)


THING = ResourceType(NAME, "nowhere:Thing")
IN_CONTAINER = ResourceType("example.com/Inside", "nowhere:Thing", Target.CONTAINER)


def bench(**more: Any) -> tuple[Workbench, Thing]:
    thing = Thing()
    handlers = {NAME: thing, IN_CONTAINER.name: thing}
    return Workbench([THING, IN_CONTAINER], handlers=handlers, **more), thing


def raising(error: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


SETTINGS = {"Path": "/run/thing"}


def done(undo: Undo, answers: Answers) -> None:
    """An apply that must not be reached."""
    raise AssertionError("applied")

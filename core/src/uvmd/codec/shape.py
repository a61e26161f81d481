"""What a wire model says about nesting, so that the decoder can clean a value for it.

Cleaning is what Go's decoder does silently and pydantic does not: fold the keys of each
known object, let a null leave the default, and turn a null inside a list or a map into
the zero value of its type. Free-form values (``Any``, maps to ``Any``) stay as they are:
their keys are data.
"""

from __future__ import annotations

import types
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Protocol, Union, get_args, get_origin

from uvmd.codec.fold import KeySentTwice, Names, folded

if TYPE_CHECKING:
    from uvmd.api.wire import WireModel

_ZERO: dict[Any, Any] = {str: "", int: 0, bool: False, float: 0.0}


class Shape(Protocol):
    """A place in a model below which there is something to clean or to name."""

    def clean(self, value: Any, strict: bool) -> Any: ...

    def step(self, element: str | int) -> tuple[str, Shape | None]:
        """Return how ``element`` of an error's location is written, and what is below it."""


class ObjectShape:
    """An object with known keys."""

    def __init__(self) -> None:
        self.names = Names(())
        self.children: dict[str, Shape] = {}

    def clean(self, value: Any, strict: bool) -> Any:
        if type(value) is not dict:
            return value
        found = {key: item for key, item in folded(value, self.names, strict).items() if item is not None}
        for name, child in self.children.items():
            if name in found:
                try:
                    found[name] = child.clean(found[name], strict)
                except KeySentTwice as error:
                    error.path.insert(0, name)
                    raise
        return found

    def step(self, element: str | int) -> tuple[str, Shape | None]:
        return f".{element}", self.children.get(str(element))


class _ManyShape:
    """A list or a map: its items have one shape, and a zero that stands for null."""

    def __init__(self, child: Shape | None, zero: Any) -> None:
        self.child = child
        self.zero = zero

    def item(self, value: Any, strict: bool) -> Any:
        if value is None:
            return self.zero
        return value if self.child is None else self.child.clean(value, strict)


class ListShape(_ManyShape):
    def clean(self, value: Any, strict: bool) -> Any:
        if type(value) is not list or (self.child is None and None not in value):
            return value
        return [self.item(item, strict) for item in value]

    def step(self, element: str | int) -> tuple[str, Shape | None]:
        return f"[{element}]", self.child


class MapShape(_ManyShape):
    def clean(self, value: Any, strict: bool) -> Any:
        if type(value) is not dict or (self.child is None and None not in value.values()):
            return value
        return {key: self.item(item, strict) for key, item in value.items()}

    def step(self, element: str | int) -> tuple[str, Shape | None]:
        # The key of a map is part of the body, and bodies are not quoted.
        return "[*]", self.child


@cache
def shape_of(model: type[WireModel]) -> ObjectShape:
    """Return the shape of ``model``; worked out once."""
    return _object_shape(model, {})


def where(shape: Shape | None, location: tuple[str | int, ...]) -> str:
    """Write an error's location as a dotted path; stops where the model's knowledge ends."""
    path = ""
    for element in location:
        if shape is None:
            break
        step, shape = shape.step(element)
        path += step
    return path


def _object_shape(model: type[WireModel], known: dict[type, ObjectShape]) -> ObjectShape:
    if model in known:
        return known[model]
    shape = known[model] = ObjectShape()
    fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    shape.names = Names(fields)
    for name, annotation in fields.items():
        child, _ = _below(annotation, known)
        if child is not None:
            shape.children[name] = child
    return shape


def _below(annotation: Any, known: dict[type, ObjectShape]) -> tuple[Shape | None, Any]:
    """Return the shape of a type, if it has one, and its zero value."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _below(arguments[0], known)
    if origin in (Union, types.UnionType):
        found = [_below(one, known) for one in arguments if one is not type(None)]
        shape = next((shape for shape, _ in found if shape is not None), None)
        return shape, None if type(None) in arguments else found[0][1]
    if origin in (list, tuple):
        return ListShape(*_below(arguments[0], known)), []
    if origin is dict:
        return MapShape(*_below(arguments[1], known)), {}
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        return _object_shape(annotation, known), {}
    return None, _ZERO.get(annotation)

"""From text or plain values to an instance of a wire model.

pydantic is not imported here: whoever passes a model has it loaded already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from uvmd.codec.fold import KeySentTwice
from uvmd.codec.shape import ObjectShape, shape_of, where
from uvmd.codec.text import parse
from uvmd.errors import InvalidMessage

if TYPE_CHECKING:
    from uvmd.api.wire import WireModel

M = TypeVar("M", bound="WireModel")

#: JSON's words for what pydantic says in Python's.
_REASONS = {
    "bool_type": "should be true or false",
    "dict_type": "should be an object",
    "float_type": "should be a number",
    "int_type": "should be an integer",
    "list_type": "should be a list",
    "missing": "is missing",
    "model_type": "should be an object",
    "string_type": "should be a string",
    "tuple_type": "should be a list",
}


def decode(text: bytes | str, model: type[M], *, what: str, strict: bool = False) -> M:
    """Return the message that ``text`` is.

    Raises:
        InvalidMessage: it cannot be decoded; names the field and the reason.
    """
    return decode_value(parse(text, what=what, strict=strict), model, what=what, strict=strict)


def decode_value(value: Any, model: type[M], *, what: str, strict: bool = False) -> M:
    """Return the message that ``value``, a result of ``parse`` or a part of it, is.

    Null is an empty object. Keys are folded, also in nested models; ``strict`` refuses two
    keys of one object that differ only in case.

    Raises:
        InvalidMessage: as :func:`decode`.
    """
    if value is None:
        value = {}
    if type(value) is not dict:
        raise InvalidMessage(f"{what}: should be an object")
    shape = shape_of(model)
    try:
        return model.model_validate(shape.clean(value, strict))
    except KeySentTwice as error:
        raise InvalidMessage(f"{what}.{'.'.join(error.path)} is sent twice") from None
    except ValueError as error:
        raise InvalidMessage(_describe(error, shape, what)) from None


def _describe(error: ValueError, shape: ObjectShape, what: str) -> str:
    """Say of the first thing that is wrong where and why; never show the value."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return f"{what}: cannot be decoded"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    reason = _REASONS.get(first["type"]) or first["msg"].replace("Input should be", "should be")
    return f"{what}{where(shape, first['loc'])}: {reason}"

"""What a model of something that came over the wire looks like.

This is the only module of ``uvmd.api`` that imports pydantic; nothing on the path to the
first connection may import it. Folding of keys, ``null`` and limits on depth and integers
are the decoder's work (``uvmd.codec``), done before a model sees the value. A model says
which keys there are, what type each has, and what a missing key means::

    class RamdiskSettings(WireModel):
        mount_path: str = Field("", alias="MountPath")
        size_mib: U32 = Field(0, alias="SizeMiB")

The alias is the wire's spelling and the only name under which a value is accepted: were
the attribute's name accepted too, one body could say two things. A key that is missing
or null takes the default; a field without a default must be sent.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, Strict

__all__ = ["I32", "I64", "U8", "U16", "U32", "U64", "Field", "Items", "WireModel"]

T = TypeVar("T")

U8 = Annotated[int, Field(ge=0, le=0xFF)]
U16 = Annotated[int, Field(ge=0, le=0xFFFF)]
U32 = Annotated[int, Field(ge=0, le=0xFFFF_FFFF)]
U64 = Annotated[int, Field(ge=0, le=0xFFFF_FFFF_FFFF_FFFF)]
I32 = Annotated[int, Field(ge=-0x8000_0000, le=0x7FFF_FFFF)]
I64 = Annotated[int, Field(ge=-0x8000_0000_0000_0000, le=0x7FFF_FFFF_FFFF_FFFF)]

#: A JSON array, kept as a tuple. Only the container is lenient; its items stay strict.
Items = Annotated[tuple[T, ...], Strict(False)]


class WireModel(BaseModel):
    """A message, a settings object, or a part of one.

    Types are strict (``"1"``, ``1.0`` and ``true`` are no integers), unknown keys are
    ignored because a newer host may send them, errors never show the value, and the
    validator is built when it is first used. Instances are frozen: what the policy saw
    is what ``apply`` gets. Give a field that holds a secret ``repr=False``.
    """

    model_config = ConfigDict(
        strict=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        defer_build=True,
        # A host may name a field model_something; pydantic would only warn about it.
        protected_namespaces=(),
    )

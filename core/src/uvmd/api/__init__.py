"""The counter at which plugins are served: everything a plugin may import from core.

Names are loaded when they are first used, because this package lies on the path of every
start and ``WireModel`` brings pydantic with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvmd.api.policy import Decision, Enforcer
    from uvmd.api.transaction import RollbackFailed, Undo, transaction
    from uvmd.api.wire import I32, I64, U8, U16, U32, U64, Field, Items, WireModel

__all__ = [
    "I32",
    "I64",
    "U8",
    "U16",
    "U32",
    "U64",
    "Decision",
    "Enforcer",
    "Field",
    "Items",
    "RollbackFailed",
    "Undo",
    "WireModel",
    "transaction",
]

_HOME = {
    "policy": ("Decision", "Enforcer"),
    "transaction": ("RollbackFailed", "Undo", "transaction"),
    "wire": ("I32", "I64", "U8", "U16", "U32", "U64", "Field", "Items", "WireModel"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value

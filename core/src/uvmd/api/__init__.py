"""The counter at which plugins are served: everything a plugin may import from core.

Names are loaded when they are first used, because this package lies on the path of every
start: ``WireModel`` and ``ConfigModel`` bring pydantic with them, ``hookimpl`` pluggy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvmd.api.containers import (
        Additions,
        ContainerEvent,
        ContainerRequest,
        NetworkProvider,
        Shaper,
        Span,
    )
    from uvmd.api.envelopes import EnvelopeReader, Fragment, LedgerKeys, TrustList
    from uvmd.api.environment import (
        Completed,
        Dial,
        Environment,
        Limits,
        MakeService,
        Platform,
        Run,
        Service,
        State,
    )
    from uvmd.api.hooks import GROUP, Named, Requirement, hookimpl
    from uvmd.api.policy import Decision, Enforcer
    from uvmd.api.resources import (
        Answers,
        Claim,
        Containers,
        Context,
        Found,
        Handler,
        Keep,
        Kind,
        Mount,
        Mounts,
        Plan,
        Question,
        Record,
        Registered,
        ResourceType,
        Target,
        Verb,
        View,
    )
    from uvmd.api.services import VmProperty, VmService, VmView
    from uvmd.api.settings import ConfigModel
    from uvmd.api.transaction import RollbackFailed, Undo
    from uvmd.api.unfinished import Unfinished
    from uvmd.api.wire import I32, I64, U8, U16, U32, U64, Field, Items, WireModel

__all__ = [
    "Additions",
    "ContainerEvent",
    "ContainerRequest",
    "NetworkProvider",
    "Shaper",
    "Span",
    "Completed",
    "Dial",
    "Environment",
    "Limits",
    "MakeService",
    "Platform",
    "Run",
    "Service",
    "State",
    "EnvelopeReader",
    "Fragment",
    "LedgerKeys",
    "TrustList",
    "GROUP",
    "Named",
    "Requirement",
    "hookimpl",
    "Decision",
    "Enforcer",
    "Answers",
    "Claim",
    "Containers",
    "Context",
    "Found",
    "Handler",
    "Keep",
    "Kind",
    "Mount",
    "Mounts",
    "Plan",
    "Question",
    "Record",
    "Registered",
    "ResourceType",
    "Target",
    "Verb",
    "View",
    "VmProperty",
    "VmService",
    "VmView",
    "ConfigModel",
    "RollbackFailed",
    "Undo",
    "Unfinished",
    "I32",
    "I64",
    "U8",
    "U16",
    "U32",
    "U64",
    "Field",
    "Items",
    "WireModel",
]

_HOME = {
    "containers": ("Additions", "ContainerEvent", "ContainerRequest", "NetworkProvider", "Shaper", "Span"),
    "environment": (
        "Completed",
        "Dial",
        "Environment",
        "Limits",
        "MakeService",
        "Platform",
        "Run",
        "Service",
        "State",
    ),
    "envelopes": ("EnvelopeReader", "Fragment", "LedgerKeys", "TrustList"),
    "hooks": ("GROUP", "Named", "Requirement", "hookimpl"),
    "policy": ("Decision", "Enforcer"),
    "resources": (
        "Answers",
        "Claim",
        "Containers",
        "Context",
        "Found",
        "Handler",
        "Keep",
        "Kind",
        "Mount",
        "Mounts",
        "Plan",
        "Question",
        "Record",
        "Registered",
        "ResourceType",
        "Target",
        "Verb",
        "View",
    ),
    "services": ("VmProperty", "VmService", "VmView"),
    "settings": ("ConfigModel",),
    "transaction": ("RollbackFailed", "Undo"),
    "unfinished": ("Unfinished",),
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

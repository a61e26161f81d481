"""``"package.module:attribute"``: something that is imported when it is first used."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from uvmd.errors import ConfigError

_NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_REFERENCE = re.compile(rf"{_NAME}:{_NAME}", re.ASCII)


def check_reference(reference: object, what: str) -> str:
    """Return the reference if it is well formed; imports nothing.

    Raises:
        ConfigError: it is not ``module:attribute``.
    """
    if not isinstance(reference, str) or not _REFERENCE.fullmatch(reference):
        raise ConfigError(f'{what}: "{reference!s:.128}" is not of the form package.module:attribute')
    return reference


def resolve(reference: str, what: str) -> Any:
    """Import the module and return the attribute.

    Raises:
        ConfigError: the import fails, whatever it raises, or there is no such attribute.
    """
    module, _, attribute = reference.partition(":")
    try:
        value: Any = import_module(module)
        for name in attribute.split(".") if attribute else ():
            value = getattr(value, name)
    except Exception as error:
        raise ConfigError(f"{what}: cannot import {reference}: {type(error).__name__}: {error}") from error
    return value

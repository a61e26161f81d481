"""The short texts by which people give sizes, users, volumes; parsers touch nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from uvmd.client.errors import SpecError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
PROPAGATION = ("shared", "rshared", "slave", "rslave", "private", "rprivate")
_MOUNT_OPTIONS = frozenset(
    ("ro", "rw", "bind", "rbind", "nosuid", "suid", "nodev", "dev", "noexec", "exec", *PROPAGATION)
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount: a path of the VM at a path of the container."""

    source: str
    destination: str
    options: tuple[str, ...] = ()


def parse_user(text: str) -> dict[str, Any]:
    """Turn ``user[:group]``, names or numbers, into an OCI user; empty is root.

    The guest looks names up in the container's own passwd and group files, and lets later
    execs without a user of their own take the container's (spec containers.md 7.2, 11.3).
    """
    return {"uid": 0, "gid": 0, **({"username": text} if text else {})}


def parse_size(text: str) -> int:
    """Turn ``64m``, ``1.5G``, ``4096`` into bytes (units are powers of 1024).

    Raises:
        SpecError: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise SpecError(f"size {text!r}: expected a number with k, m, g or t, like 64m")
    size = int(float(match[1]) * _UNITS[match[2].lower()])
    if not 0 < size < 1 << 63:
        raise SpecError(f"size {text!r} is out of range")
    return size


def parse_volume(text: str) -> Mount:
    """Turn ``SOURCE:DESTINATION[:OPTION,...]`` into a mount.

    Raises:
        SpecError: a path is not absolute or an option is unknown.
    """
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise SpecError(f"volume {text!r}: expected SOURCE:DESTINATION or SOURCE:DESTINATION:ro")
    options = tuple(parts[2].split(",")) if len(parts) == 3 else ()
    unknown = [option for option in options if option not in _MOUNT_OPTIONS]
    if unknown:
        raise SpecError(f"volume {text!r}: unknown option {unknown[0]!r}; try ro or rw")
    for path in parts[:2]:
        if not path.startswith("/"):
            raise SpecError(f"volume {text!r}: {path!r} must be an absolute path")
    return Mount(parts[0], parts[1], options)


def parse_annotation(text: str) -> tuple[str, str]:
    """Turn ``KEY=VALUE`` into its parts.

    Raises:
        SpecError: there is no key or no ``=``.
    """
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise SpecError(f"annotation {text!r}: expected KEY=VALUE")
    return key, value

"""``vsock[:CID[:PORT]]``, ``unix:PATH`` or ``stdio[:unix:PATH]``: what it means to the monitor."""

from __future__ import annotations

import os
from dataclasses import dataclass

from uvmd.errors import ConfigError

HOST_CID = 2
BRIDGE_PORT = 0x40000000

_MAX_U32 = 0xFFFFFFFF
# unix(7): sun_path holds 108 bytes with its final zero; "_" and a port are appended to it.
_MAX_PATH_BYTES = 107 - len("_4294967295")
_EXPECTED = (
    "say vsock, vsock:CID or vsock:CID:PORT (the host is CID 2, the bridge port 1073741824), "
    "unix:PATH (stdio port N is then PATH_N), or stdio, stdio:unix:PATH"
)


@dataclass(frozen=True, slots=True)
class Transport:
    """Where the bridge and the stdio ports are: what ``Link`` takes, word for word."""

    bridge: str
    streams: str


def parse_transport(text: str) -> Transport:
    """Parse the value of ``--transport``.

    Raises:
        ConfigError: it is none; the text says what was expected.
    """
    kind, _, rest = text.partition(":")
    if kind == "vsock":
        cid, port = _parse_vsock(text, rest if ":" in text else None)
        return Transport(f"vsock:{cid}:{port}", f"vsock:{cid}")
    if kind == "unix":
        path = _parse_path(text, rest)
        return Transport(f"unix:{path}", f"unix:{path}")
    if kind == "stdio":
        if text == "stdio":
            return Transport("stdio", f"vsock:{HOST_CID}")
        inner, _, path = rest.partition(":")
        if inner == "unix":
            return Transport("stdio", f"unix:{_parse_path(text, path)}")
    raise ConfigError(f"transport {text!r} is not known: {_EXPECTED}")


def _parse_vsock(text: str, rest: str | None) -> tuple[int, int]:
    if rest is None:
        return HOST_CID, BRIDGE_PORT
    cid, colon, port = rest.partition(":")
    return (
        _parse_number(text, "CID", cid),
        _parse_number(text, "port", port) if colon else BRIDGE_PORT,
    )


def _parse_number(text: str, what: str, digits: str) -> int:
    try:
        number = int(digits, 0)
    except ValueError:
        raise ConfigError(f"transport {text!r}: {what} {digits!r} is not a number; {_EXPECTED}") from None
    if not 0 <= number < _MAX_U32:
        raise ConfigError(f"transport {text!r}: {what} {number} is outside 0..{_MAX_U32 - 1}")
    return number


def _parse_path(text: str, path: str) -> str:
    if not path:
        raise ConfigError(f"transport {text!r}: a path is missing after unix:")
    if "\0" in path:
        raise ConfigError(f"transport {text!r}: the path contains a zero byte")
    path = os.path.abspath(path)
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise ConfigError(
            f"transport {text!r}: the path may have {_MAX_PATH_BYTES} bytes at most, "
            "because the number of a stdio port is appended to it"
        )
    return path

"""Messages of rtnetlink, laid out by pyroute2; the only module that touches it.

Of pyroute2 we use the message classes. Its package imports everything else that it has
when it is imported (asyncio, databases, other protocols: 20 MiB and 110 ms of CPU time,
measured with 0.9.7), and its sockets run an event loop each. So the modules with the
classes are imported below an empty package of the same name, which is taken away again
at once: 3 MiB, 30 ms. Whoever imports pyroute2 later gets the real one.
"""

from __future__ import annotations

import errno
import functools
import importlib
import importlib.util
import struct
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any, Final

# linux/netlink.h, linux/rtnetlink.h
NLM_F_REQUEST: Final = 0x001
NLM_F_ACK: Final = 0x004
NLM_F_DUMP: Final = 0x300
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
RTM_NEWLINK: Final = 16
RTM_GETLINK: Final = 18
RTM_SETLINK: Final = 19
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_NEWRULE: Final = 32
RTM_DELRULE: Final = 33

_HEADER_SIZE: Final = 16
_LINK: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ATTRIBUTE: Final = struct.Struct("=HH")
_U32: Final = struct.Struct("=I")
_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4

Attributes = Iterable[tuple[str, Any]]
_KINDS: Final = {"link": "ifinfmsg", "address": "ifaddrmsg", "route": "rtmsg", "rule": "fibmsg"}
_PACKAGE: Final = "pyroute2"


@functools.cache
def _classes() -> dict[str, Any]:
    """The classes by kind; the first call imports them."""
    real = sys.modules.get(_PACKAGE)
    if real is None:
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {_PACKAGE!r}", name=_PACKAGE)
        hollow = types.ModuleType(_PACKAGE)
        hollow.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[_PACKAGE] = hollow
    try:
        return {
            kind: getattr(importlib.import_module(f"{_PACKAGE}.netlink.rtnl.{name}"), name)
            for kind, name in _KINDS.items()
        }
    finally:
        if real is None:
            del sys.modules[_PACKAGE]


def encode(kind: str, type_: int, flags: int, fields: Mapping[str, int], attributes: Attributes) -> bytes:
    """Return one message of a kind (``link``, ``address``, ``route``, ``rule``), its sequence number 0."""
    message = _classes()[kind]()
    message.update(fields)
    message["attrs"] = list(attributes)
    message["header"]["type"] = type_
    message["header"]["flags"] = flags
    message.encode()
    return bytes(message.data)


def read_link(data: bytes) -> tuple[int, int, str, int]:
    """Read a message about a link: index, flags, name, MTU.

    By hand: pyroute2 would decode all that the kernel tells of a link, for half of the
    time that everything else takes.
    """
    _, _, index, flags, _ = _LINK.unpack_from(data, _HEADER_SIZE)
    name, mtu, at = "", 0, _HEADER_SIZE + _LINK.size
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if not _ATTRIBUTE.size <= length <= len(data) - at:
            raise OSError(errno.EBADMSG, "an attribute of netlink with an impossible length")
        value = data[at + _ATTRIBUTE.size : at + length]
        if kind == _IFLA_IFNAME:
            name = value.rstrip(b"\0").decode(errors="surrogateescape")
        elif kind == _IFLA_MTU and len(value) == _U32.size:
            (mtu,) = _U32.unpack(value)
        at += (length + 3) & ~3
    return index, flags, name, mtu

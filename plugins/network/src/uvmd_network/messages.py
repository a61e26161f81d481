"""Messages of rtnetlink, laid out by pyroute2; the only module that touches it.

Of pyroute2 we use the message classes. Its package imports everything else that it has
when it is imported (asyncio, databases, other protocols: 20 MiB and 110 ms of CPU time,
measured with 0.9.7), and its sockets run an event loop each. So the modules with the
classes are imported below an empty package of the same name, which is taken away again
at once: 3 MiB, 30 ms. Whoever imports pyroute2 later gets the real one.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
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


def decode_link(data: bytes) -> tuple[int, int, dict[str, Any]]:
    """Read a message about a link: its index, its flags, and the attributes that we look at."""
    message = _classes()["link"](data)
    message.decode()
    wanted = ("IFLA_IFNAME", "IFLA_MTU")
    return message["index"], message["flags"], {name: message.get_attr(name) for name in wanted}

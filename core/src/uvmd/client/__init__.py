"""The host's side of the bridge as a library: uvmctl, the bench and plugins' verbs use it.

``connect()`` gives a negotiated :class:`~uvmd.client.client.Client`; its methods are the
bridge's messages. Blocking, thread-safe, no threads of its own until streams are copied::

    from uvmd.client import connect

    with connect() as client:
        client.create("c1", bundle="/run/gcs/c/c1", spec=spec)
        client.start("c1")
        with client.run_init("c1", stdout=True) as init:
            print(init.collect().status)
        client.delete("c1")

Kept out: anything that prints or ends a program (``cli``), and the daemon's own rooms.
"""

from __future__ import annotations

from uvmd.client.address import Address, default_address, parse_address
from uvmd.client.client import Client, Notification
from uvmd.client.connection import Connection, Pending
from uvmd.client.connector import connect
from uvmd.client.errors import (
    AddressError,
    BadResponse,
    ClientError,
    ConnectionLost,
    ConnectTimeout,
    RemoteError,
    ResponseTimeout,
    SpecError,
    StreamError,
)
from uvmd.client.listener import Listener
from uvmd.client.process import Output, Process
from uvmd.client.protocol import NULL_ID
from uvmd.client.spec import ContainerOptions, build_process, build_spec, bundle_path
from uvmd.client.streams import Stdio

__all__ = [
    "NULL_ID",
    "Address",
    "AddressError",
    "BadResponse",
    "Client",
    "ClientError",
    "ConnectTimeout",
    "Connection",
    "ConnectionLost",
    "ContainerOptions",
    "Listener",
    "Notification",
    "Output",
    "Pending",
    "Process",
    "RemoteError",
    "ResponseTimeout",
    "SpecError",
    "Stdio",
    "StreamError",
    "build_process",
    "build_spec",
    "bundle_path",
    "connect",
    "default_address",
    "parse_address",
]

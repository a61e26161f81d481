"""How the host is reached: ``--transport`` in words, and the dialler that plugins get.

The daemon opens no host connection itself. This room turns the operator's words into
what the monitor dials, and asks the monitor for the rest.
"""

from uvmd.transport.dialer import Dialer
from uvmd.transport.parse import Transport, parse_transport

__all__ = ["Dialer", "Transport", "parse_transport"]

"""What can go wrong on the host's side of the bridge.

Kept apart from ``uvmd.errors``' tree, which names conditions *inside* the VM; both share
its root, so ``except UvmdError`` catches either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uvmd.errors import UvmdError


class ClientError(UvmdError):
    """Base of the client's own errors."""


class AddressError(ClientError):
    """The address does not say where to listen, or listening there is impossible."""


class ConnectTimeout(ClientError):
    """No daemon connected in time, or another process kept the address all the while."""


class ConnectionLost(ClientError):
    """The connection ended; what was outstanding will not be answered on it."""


class ResponseTimeout(ClientError):
    """No response within the caller's time. A late one will be ignored."""


class BadResponse(ClientError):
    """The daemon answered with something that cannot be read."""


class SpecError(ClientError):
    """The wanted container cannot be described; the text names the flag or field."""


class StreamError(ClientError):
    """A process's stream could not be opened."""


class RemoteError(ClientError):
    """The daemon refused or failed a request.

    ``code`` is the HRESULT as an unsigned number, ``name`` its name in the protocol's
    table (empty when it is not in there), ``records`` the response's ``ErrorRecords``.
    """

    def __init__(
        self, request: str, code: int, name: str, message: str, records: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.request = request
        self.code = code
        self.name = name
        self.message = message
        self.records = tuple(records)
        super().__init__(f"{self.label}: {message}" if message else self.label)

    @property
    def label(self) -> str:
        """The code as people read it: ``SYSTEM_NOT_FOUND (0xC037010E)``."""
        return f"{self.name or 'HRESULT'} (0x{self.code:08X})"

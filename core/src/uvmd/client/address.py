"""Where the host listens: the bridge, the stdio ports beside it, and who may use them.

The guest dials, the host listens (spec bridge.md 1). An address is written as

``unix:PATH``
    the bridge on the socket PATH, stdio port N on ``PATH_N``;
``vsock`` or ``vsock:PORT``
    the bridge on that port (default 0x40000000), stdio ports beside it.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass

from uvmd.client.errors import AddressError

BRIDGE_PORT = 0x40000000
#: Where commands and ``uvmctl host`` listen unless told otherwise.
DEFAULT = "unix:/run/uvmd/host.sock"
#: Environment variable that overrides DEFAULT.
VARIABLE = "UVMD_HOST"
#: sockaddr_un.sun_path holds 108 bytes with its final zero (unix(7)).
MAX_PATH_BYTES = 107
#: What is appended to a path: "_" and a port of ten digits.
SUFFIX_BYTES = 11
_ANY_PORT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address. ``path`` is empty for vsock, ``port`` is unused for unix."""

    path: str
    port: int = BRIDGE_PORT

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"vsock:{self.port}"

    @property
    def serve_hint(self) -> str:
        """The daemon's ``--transport`` that reaches this address."""
        return f"unix:{self.path}" if self.path else f"vsock:2:{self.port}"

    @property
    def lock_path(self) -> str:
        """The file whose lock says whose turn it is to listen here."""
        return f"{self.path}.lock" if self.path else os.path.join(runtime_dir(), f"vsock-{self.port}.lock")

    @property
    def control_path(self) -> str:
        """The socket on which ``uvmctl host`` shares its connection."""
        return f"{self.path}.ctl" if self.path else os.path.join(runtime_dir(), f"vsock-{self.port}.ctl")

    def listen(self, port: int | None = None) -> Listening:
        """Listen for the bridge, or for one stdio port.

        Raises:
            AddressError: the address is taken or cannot be used.
        """
        try:
            if self.path:
                return _listen_unix(self.path if port is None else f"{self.path}_{port}")
            return _listen_vsock(self.port if port is None else port)
        except OSError as error:
            where = self if port is None else f"port {port} of {self}"
            raise AddressError(f"cannot listen on {where}: {error.strerror}") from error


class Listening:
    """A listening socket that removes its path when it is closed."""

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.sock = sock
        self.path = path

    def close(self) -> None:
        """Stop listening. May be called twice."""
        if self.sock.fileno() < 0:
            return
        # The name goes first: a peer that still finds it must find a listener.
        if self.path:
            unlink_quietly(self.path)
        self.sock.close()


def parse_address(text: str) -> Address:
    """Parse an address (see the module's text).

    Raises:
        AddressError: it is none; the text says why.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix":
        if not rest:
            raise AddressError(f"address {text!r}: a path is missing after unix:")
        path = os.path.abspath(rest)
        if len(os.fsencode(path)) + SUFFIX_BYTES > MAX_PATH_BYTES:
            raise AddressError(
                f"address {text!r}: the path may have {MAX_PATH_BYTES - SUFFIX_BYTES} bytes at most, "
                "because stdio ports append to it"
            )
        return Address(path)
    if kind == "vsock":
        if not rest:
            return Address("")
        try:
            port = int(rest, 0)
        except ValueError:
            raise AddressError(f"address {text!r}: {rest!r} is no port number") from None
        if not 0 < port < _ANY_PORT:
            raise AddressError(f"address {text!r}: the port must be in 1..{_ANY_PORT - 1}")
        return Address("", port)
    raise AddressError(f"address {text!r}: expected unix:PATH or vsock[:PORT]")


def default_address() -> Address:
    """Return the address of ``UVMD_HOST``, else the built-in one."""
    return parse_address(os.environ.get(VARIABLE) or DEFAULT)


def runtime_dir() -> str:
    """Return the directory for files that a vsock address has no path for."""
    if os.geteuid() == 0:
        return "/run/uvmd"
    return os.path.join(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/uvmd-{os.geteuid()}", "uvmd")


def ensure_parent(path: str) -> None:
    """Make the parent directory if it is one of ours; anybody else's must exist.

    Raises:
        AddressError: it does not exist or cannot be made.
    """
    parent = os.path.dirname(path)
    if os.path.isdir(parent):
        return
    if parent not in ("/run/uvmd", runtime_dir()):
        raise AddressError(f"the directory {parent} does not exist")
    try:
        os.makedirs(parent, mode=0o700, exist_ok=True)
    except OSError as error:
        raise AddressError(f"cannot make {parent}: {error.strerror}") from error


def listen_for_clients(address: Address) -> socket.socket:
    """Return the control socket of an address whose lock the caller holds.

    Raises:
        AddressError: the path cannot be used.
    """
    path = address.control_path
    ensure_parent(path)
    # Under the lock, whatever socket is there belongs to a process that is gone.
    unlink_quietly(path)
    try:
        sock = bind_private(path)
    except OSError as error:
        raise AddressError(f"cannot listen on {path}: {error.strerror}") from error
    sock.setblocking(False)
    return sock


def bind_private(path: str, backlog: int = 16) -> socket.socket:
    """Return a unix socket that listens on *path* and that only its owner may use."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # Linux gives the name the mode that the socket has at bind, so there is no moment
        # in which others could connect, and no umask to change under other threads.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(path)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def unlink_quietly(path: str) -> None:
    """Remove a name; one that is gone already is what was wanted."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _listen_unix(path: str) -> Listening:
    ensure_parent(path)
    return Listening(bind_private(path), path)


def _listen_vsock(port: int) -> Listening:
    try:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.ENODEV):
            raise AddressError("this kernel has no vsock; use unix:PATH") from error
        raise
    try:
        sock.bind((socket.VMADDR_CID_ANY, port))
        sock.listen(16)
    except BaseException:
        sock.close()
        raise
    return Listening(sock, "")

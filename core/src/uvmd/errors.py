"""Every error that uvmd raises on purpose: one tree, no opinion about the wire.

``bridge/hresult.py`` maps this tree to HRESULTs (spec bridge.md 5.3); nobody else knows
that HRESULTs exist. What a class stands for is a *condition*, never a room of the code::

    UvmdError
    ├── ConfigError              the daemon refuses to start
    ├── ProtocolError            a peer broke the framing; its connection is dropped
    ├── InvalidMessage           a body, nested JSON or settings object cannot be decoded
    ├── UnsupportedProtocol      the negotiated version ranges do not overlap
    ├── UnknownMessage           no handler for this message in this version
    ├── ContainerNotFound
    ├── ContainerExists
    ├── ContainerStopped         the container's init process is gone
    ├── InvalidContainerId       the runtime refuses the id's format
    ├── InvalidState             still being created, still running, already started
    ├── NotFound
    │   ├── ProcessNotFound
    │   └── NamespaceNotFound
    ├── WaitTimeout              WaitForProcess ran out of time
    ├── Refused                  understood, and not done
    │   ├── PolicyDenied         the policy said no, or could not say yes
    │   │   └── PolicyLost       what the policy remembers is lost: it can never say yes again
    │   ├── Inconsistent         an undo failed in a strict VM; changes are closed
    │   └── InUse                something still needs what was to be removed
    └── Failed                   tried, and the system said no
        ├── RuntimeFailed        the OCI runtime; carries its own last words
        └── DeadlineExceeded     something else than WaitForProcess took too long

An error's text says what was tried, on what, and the errno. It never quotes a request's
body: bodies carry environments and policies.
"""

from __future__ import annotations


class UvmdError(Exception):
    """Base of every deliberate error."""


class ConfigError(UvmdError):
    """The configuration, a flag or the set of plugins does not allow a start."""


class ProtocolError(UvmdError):
    """A peer broke the framing. The connection cannot go on."""


class InvalidMessage(UvmdError):
    """A body, a nested JSON text or a settings object cannot be decoded.

    The text names the field (dotted path from the body's root) and the reason.
    """


class UnsupportedProtocol(UvmdError):
    """Negotiate offered a range without our version."""


class UnknownMessage(UvmdError):
    """No handler for this message in the selected protocol version."""


class ContainerNotFound(UvmdError):
    """No container of that id is known."""


class ContainerExists(UvmdError):
    """A container of that id is already known."""


class ContainerStopped(UvmdError):
    """The container's init process has exited."""


class InvalidContainerId(UvmdError):
    """The id cannot name a container."""


class InvalidState(UvmdError):
    """The container is not in a state in which this can be done."""


class NotFound(UvmdError):
    """Something that the request names is not there."""


class ProcessNotFound(NotFound):
    """No such process, or it is already gone."""


class NamespaceNotFound(NotFound):
    """No such network namespace."""


class WaitTimeout(UvmdError):
    """The process did not exit within the request's time."""


class Refused(UvmdError):
    """The request was understood and is not carried out."""


class PolicyDenied(Refused):
    """The policy denied it, or failed to allow it."""


class PolicyLost(PolicyDenied):
    """What the policy remembers is no longer what was decided. The gate closes the door."""


class Inconsistent(Refused):
    """What the kernel holds is no longer what was recorded; changes are refused."""


class InUse(Refused):
    """A container, overlay or mount still needs it."""


class Failed(UvmdError):
    """It was tried and the system refused."""


class RuntimeFailed(Failed):
    """The OCI runtime failed; the text carries its own last words."""


class DeadlineExceeded(Failed):
    """An operation (not WaitForProcess) ran out of its time."""

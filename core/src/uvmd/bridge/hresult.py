"""The one table from errors to HRESULTs (spec bridge.md 5), and the words around it.

Nobody else knows that HRESULTs exist. On the wire they are *signed* 32-bit numbers.
"""

from __future__ import annotations

from enum import IntEnum

from uvmd import errors


class HResult(IntEnum):
    """The codes a guest answers with, unsigned."""

    S_OK = 0x0000_0000
    E_NOTIMPL = 0x8000_4001
    E_FAIL = 0x8000_4005
    E_INVALIDARG = 0x8007_0057
    NOT_FOUND = 0x8007_0490
    # The host's own constant is 0xC0370105, so it never recognises this one. Kept as the
    # reference sends it: old hosts and tests know it (spec bridge.md 5.1).
    INVALID_STATE = 0x8037_0105
    TIMEOUT = 0xC037_0109
    UNKNOWN_MESSAGE = 0xC037_010B
    UNSUPPORTED_PROTOCOL_VERSION = 0xC037_010C
    INVALID_JSON = 0xC037_010D
    SYSTEM_NOT_FOUND = 0xC037_010E
    SYSTEM_ALREADY_EXISTS = 0xC037_010F
    SYSTEM_ALREADY_STOPPED = 0xC037_0110

    @property
    def signed(self) -> int:
        """The number as the wire has it."""
        return to_signed(self.value)


#: A class that is missing here has its parent's code; Failed has none of its own.
TABLE: dict[type[BaseException], HResult] = {
    errors.InvalidMessage: HResult.INVALID_JSON,
    errors.UnsupportedProtocol: HResult.UNSUPPORTED_PROTOCOL_VERSION,
    errors.UnknownMessage: HResult.E_NOTIMPL,
    errors.ContainerNotFound: HResult.SYSTEM_NOT_FOUND,
    errors.ContainerExists: HResult.SYSTEM_ALREADY_EXISTS,
    errors.ContainerStopped: HResult.SYSTEM_ALREADY_STOPPED,
    errors.InvalidContainerId: HResult.E_INVALIDARG,
    errors.InvalidState: HResult.INVALID_STATE,
    errors.NotFound: HResult.NOT_FOUND,
    errors.WaitTimeout: HResult.TIMEOUT,
    # A refusal is E_FAIL whatever made it: the reference hides why a policy said no.
    errors.Refused: HResult.E_FAIL,
}

#: Causes that are looked at; a chain may be a ring.
MAX_CHAIN = 16


def of_error(error: BaseException) -> HResult:
    """Return the code that answers ``error``.

    The first error of the chain, from the outside inwards along explicit causes, that has
    a code decides; none: E_FAIL.
    """
    cause: BaseException | None = error
    for _ in range(MAX_CHAIN):
        if cause is None:
            break
        for kind in type(cause).__mro__:
            if kind in TABLE:
                return TABLE[kind]
        cause = cause.__cause__
    return HResult.E_FAIL


def to_signed(code: int) -> int:
    """Return an unsigned 32-bit code as the wire's signed number."""
    return code - 0x1_0000_0000 if code >= 0x8000_0000 else code


def to_unsigned(number: int) -> int:
    """Return a ``Result`` of the wire as the unsigned code that people write in hex."""
    return number & 0xFFFF_FFFF


def name_of(number: int) -> str:
    """Return the name of a code, signed or not; hex if it has none."""
    code = to_unsigned(number)
    try:
        return HResult(code).name
    except ValueError:
        return f"0x{code:08X}"


def text_of(code: HResult) -> str:
    """Return the text of an error that is only a code (spec bridge.md 5.2)."""
    return f"HRESULT: 0x{code:08x}"

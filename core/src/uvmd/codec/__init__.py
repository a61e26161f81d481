"""JSON as the wire has it (spec bridge.md 3), for everyone who is handed some.

``parse`` turns text into plain values and never needs pydantic; ``decode`` goes on to an
instance of a wire model. Whatever cannot be decoded raises ``InvalidMessage`` with the
dotted name of the field and the reason, and never with the value: bodies carry
environments and policies. Kept out: what a message means, and HRESULTs.
"""

from uvmd.codec.decode import decode, decode_value
from uvmd.codec.fold import Names, fold
from uvmd.codec.text import MAX_DEPTH, MAX_DIGITS, MAX_VALUES, dumps, parse

__all__ = [
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_VALUES",
    "Names",
    "decode",
    "decode_value",
    "dumps",
    "fold",
    "parse",
]

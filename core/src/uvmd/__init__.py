"""uvmd, the guest daemon of a utility VM.

Kept empty on purpose: this module is imported by every process at every start.
"""

__version__ = "0.1.0"

"""Settings of uvmd for several modules of tests: one text, so that they share a saved guest."""

from __future__ import annotations

#: Layers need their hash tree, and what does not come is given up soon.
IMPATIENT = """
[plugin.storage_scsi]
verity = "always"
device_timeout_s = 6.0
mount_timeout_s = 20.0

[plugin.plan9]
mount_timeout_s = 8.0
unmount_timeout_s = 3.0
"""

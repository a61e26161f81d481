"""Persistent memory of a utility VM: VPMemDevice."""

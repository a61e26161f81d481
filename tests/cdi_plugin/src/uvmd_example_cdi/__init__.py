"""Devices, mounts and environment from CDI files: the example of a shaper for uvmd."""

"""Primitives of the kernel, without opinions: each function does one thing and raises OSError.

Kept out: policy, the bridge, and what a container is. Imports nothing of ours but errors.
"""

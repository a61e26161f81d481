"""Shaping a specification: pure functions from dict to new dict, one module a subject.

They copy the levels that they change and leave their argument alone. What they need of the
system (accounts of the image, device nodes) is handed in.
"""

"""OCI specifications and the OCI runtime.

The specification is a plain dict: ``fields`` gives its keys the right spelling and its values
the right types once, at the door, and only this room looks inside. Kept out: containers as
records, the policy, streams.
"""

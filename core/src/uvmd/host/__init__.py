"""Containers, processes and pods: what the VM holds, and the operations on it.

One operation a module in ``operations``; all that a host can ask goes through ``host.Host``.
Kept out: frames, the bridge's socket and HRESULTs.
"""

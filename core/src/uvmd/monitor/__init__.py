"""The small process that outlives the daemon: it owns children, streams and the bridge socket.

``link`` is the daemon's side of the conversation; everything else runs in the monitor,
imports nothing but the standard library, and as little of that as it can.
"""

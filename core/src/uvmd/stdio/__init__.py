"""What is asked of the monitor for the streams of processes.

The monitor owns the connections, pipes and terminals; this room only names them and opens
the tee file. Kept out: relaying, which survives the daemon in the monitor.
"""

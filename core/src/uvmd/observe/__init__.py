"""What people may see of a running daemon: log lines and spans, scrubbed by default."""

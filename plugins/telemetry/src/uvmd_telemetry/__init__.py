"""Metrics and traces of a utility VM. Uses public hooks only, and changes nothing."""

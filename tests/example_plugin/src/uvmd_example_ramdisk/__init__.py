"""A sized tmpfs as a device of a utility VM: the example of a uvmd plugin."""

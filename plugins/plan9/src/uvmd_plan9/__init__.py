"""Shared directories of the host: the resource type MappedDirectory."""

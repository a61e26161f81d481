"""Assigned PCI devices: the resource type VPCIDevice."""

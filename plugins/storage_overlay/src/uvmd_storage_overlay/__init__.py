"""Layers of a container put together by overlayfs: the resource type CombinedLayers."""

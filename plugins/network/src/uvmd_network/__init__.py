"""The network of pods: the resource type Network and the provider of container networks."""

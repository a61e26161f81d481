# Looking through everything at every question: for policies whose declarations may
# differ from one question to the next.
package framework

deviceHash_ok if input.deviceHash in layer_hashes

overlay_matches := [container |
	some container in candidate_containers
	layerPaths_ok(container.layers)
]

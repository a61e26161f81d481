# Asking the indexes, which were made when the policy or a fragment was loaded.
package framework

deviceHash_ok if uvmd.hash_known(input.deviceHash)

# The policy's own candidates, where Python knows them by their places: of a container it
# would have to hand over all at every question. Fragments' containers it does hand over.
declared := data["uvmd candidates"]

declared := data.policy.containers if not data["uvmd candidates"]

# The candidates of one container, undefined before its overlay is there.
matches := [declared[at] | some at in found[0]] if {
	found := uvmd.places(input.containerID)
	count(found) > 0
}

matches := uvmd.entry("matches", input.containerID)[0] if {
	count(uvmd.places(input.containerID)) == 0
}

# Exactly these layers, so each need not be compared again.
overlay_places := uvmd.places_over(input.layerPaths)[0]

overlay_matches := [declared[at] | some at in overlay_places] if overlay_places

overlay_matches := uvmd.containers_with_layers(requested_layers) if {
	not overlay_places
	every_layer_known
}

overlay_kept := uvmd.kept_at(overlay_places)

overlay_kept := overlay_matches if not overlay_places

by_place(containers) := uvmd.kept(input.containerID, [at |
	some container in containers
	at := min({i | some i, before in matches; before == container})
])

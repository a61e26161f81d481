# Asking the indexes, which were made when the policy or a fragment was loaded. Only for policies
# without rules of their own, which could look at what here is a place or a handle.
package framework

deviceHash_ok if uvmd.hash_known(input.deviceHash)

# The policy's own candidates, where Python knows them by their places: of a container it
# would have to hand over all at every question. Fragments' containers it does hand over.
declared := data["uvmd candidates"]

declared := data.policy.containers if not data["uvmd candidates"]

# The candidates of one container, undefined before its overlay is there.
matches := [declared[at] | some at in declared_places] if declared_places

matches := uvmd.entry("matches", input.containerID)[0] if not declared_places

declared_places := uvmd.places(input.containerID)[0]

# The same as of a match itself, without handing over what Python has.
envs_of(place, env_list) := uvmd.env_rules_at(declared_places[place], env_list)[0]

envs_of(place, env_list) := sorted_out(matches[place].env_rules, env_list) if not declared_places

caps_of_ok(place, _, caps_list) if {
	matches[place].capabilities != null
	uvmd.same_capabilities_at(declared_places[place], caps_list)
}

caps_of_ok(place, privileged, caps_list) if {
	not has_declared_caps(place)
	caps_ok(get_capabilities(matches[place], privileged), caps_list)
}

has_declared_caps(place) if {
	declared_places
	matches[place].capabilities != null
}

# Exactly these layers, so each need not be compared again.
overlay_places := uvmd.places_over(input.layerPaths)[0]

overlay_found if count(overlay_places) > 0

overlay_found if count(overlay_elsewhere) > 0

overlay_elsewhere := overlay_matches if not overlay_places

overlay_matches := uvmd.containers_with_layers(requested_layers) if every_layer_known

overlay_matches := [] if not every_layer_known

overlay_kept := uvmd.kept_at(overlay_places)

overlay_kept := overlay_elsewhere

# By a handle: as a whole they would be written out, read and compared again at each step.
kept_matches(places) := uvmd.kept(input.containerID, places)

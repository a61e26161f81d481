# Looking through everything at every question: for policies whose declarations may
# differ from one question to the next.
package framework

deviceHash_ok if input.deviceHash in layer_hashes

# The candidates of one container, undefined before its overlay is there.
matches := uvmd.entry("matches", input.containerID)[0]

overlay_matches := [container |
	some container in candidate_containers
	layerPaths_ok(container.layers)
]

overlay_found if count(overlay_matches) > 0

overlay_kept := overlay_matches

kept_matches(places) := matches_at(places)

envs_of(place, env_list) := sorted_out(matches[place].env_rules, env_list)

caps_of_ok(place, privileged, caps_list) if caps_ok(get_capabilities(matches[place], privileged), caps_list)

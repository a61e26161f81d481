# Candidates as a whole, for policies with rules of their own: these see every document as it is.
package framework

# The candidates of one container, undefined before its overlay is there.
matches := uvmd.entry("matches", input.containerID)[0]

overlay_found if count(overlay_matches) > 0

overlay_kept := overlay_matches

kept_matches(places) := matches_at(places)

envs_of(place, env_list) := sorted_out(matches[place].env_rules, env_list)

caps_of_ok(place, privileged, caps_list) if caps_ok(get_capabilities(matches[place], privileged), caps_list)

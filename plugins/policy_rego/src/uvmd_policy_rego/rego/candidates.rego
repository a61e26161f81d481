# Everything that the policy and its loaded fragments declare: what a request may be.
package framework

loaded_fragments := [fragment |
	some issuer in data.metadata.issuers
	some feed in issuer.feeds
	some fragment in feed
]

default policy_containers := []

policy_containers := apply_defaults("container", data.policy.containers, policy_framework_version)

fragment_containers := [container |
	some fragment in loaded_fragments
	some container in each(fragment.containers)
]

plain_containers := array.concat(policy_containers, fragment_containers)

candidate_containers := plain_containers if count(candidate_platform_rules) == 0

candidate_containers := apply_platform_rules(plain_containers, candidate_platform_rules) if {
	count(candidate_platform_rules) > 0
}

layer_hashes contains layer if {
	some container in each(data.policy.containers)
	some layer in each(container.layers)
}

layer_hashes contains layer if some layer in fragment_layer_hashes

fragment_layer_hashes contains layer if {
	some container in fragment_containers
	some layer in each(container.layers)
}

# Platform rules: each container once for every rule.

default policy_platform_rules := []

policy_platform_rules := apply_defaults("platform_rule", data.policy.platform_rules, policy_framework_version)

fragment_platform_rules := [rule |
	some fragment in loaded_fragments
	some rule in each(fragment.platform_rules)
]

candidate_platform_rules := array.concat(policy_platform_rules, fragment_platform_rules)

apply_platform_rules(containers, rules) := [variant |
	some container in containers
	some rule in each(rules)
	variant := apply_single_platform_rule(container, rule)
]

apply_single_platform_rule(container, rule) := object.union(container, {
	"env_rules": array.concat(object.get(container, "env_rules", []), object.get(rule, "env_rules", [])),
	"mounts": array.concat(object.get(container, "mounts", []), object.get(rule, "mounts", [])),
})

# External processes. A policy from before 0.5.0 that says nothing of them allows none,
# not even those of fragments: its list, and with it the sum, is undefined.

default candidate_external_processes := []

candidate_external_processes := array.concat(policy_external_processes, fragment_external_processes)

policy_external_processes := apply_defaults(
	"external_process", data.policy.external_processes,
	policy_framework_version,
)

policy_external_processes := [] if {
	order(policy_framework_version, version) == 0
	not data.policy.external_processes
}

policy_external_processes := [] if not usable(policy_framework_version)

usable(v) if order(v, version) <= 0

fragment_external_processes := [process |
	some fragment in loaded_fragments
	some process in each(fragment.external_processes)
]

default policy_fragments := []

policy_fragments := apply_defaults("fragment", data.policy.fragments, policy_framework_version)

fragment_fragments := [fragment |
	some loaded in loaded_fragments
	some fragment in each(loaded.fragments)
]

candidate_fragments := array.concat(policy_fragments, fragment_fragments)

default policy_transparency_trust_lists := []

policy_transparency_trust_lists := data.policy.transparency_trust_lists

fragment_transparency_trust_lists := [list |
	some fragment in loaded_fragments
	some list in each(fragment.transparency_trust_lists)
]

candidate_transparency_trust_lists := array.concat(
	policy_transparency_trust_lists,
	fragment_transparency_trust_lists,
)

# Flags. Whatever is not false counts as set, as it does for the rules that read them.

default allow_properties_access := false

allow_properties_access := data.policy.allow_properties_access

default allow_dump_stacks := false

allow_dump_stacks := data.policy.allow_dump_stacks

default allow_runtime_logging := false

allow_runtime_logging := data.policy.allow_runtime_logging

default allow_host_network := false

allow_host_network := data.policy.allow_host_network

default allow_environment_variable_dropping := false

allow_environment_variable_dropping := data.policy.allow_environment_variable_dropping

default allow_unencrypted_scratch := false

allow_unencrypted_scratch := data.policy.allow_unencrypted_scratch

default allow_log_provider_dropping := false

allow_log_provider_dropping := data.policy.allow_log_provider_dropping

default allow_capability_dropping := false

allow_capability_dropping := data.policy.allow_capability_dropping if {
	order(policy_framework_version, "0.2.2") >= 0
}

# What it means that a request is as a container, or a process, was declared.
package framework

# Nothing is wrong with a document that has no list where one could be: it is as if
# there were no element. The engine would end the whole question.
each(values) := values if is_array(values)

each(values) := values if is_set(values)

each(values) := values if is_object(values)

# The same as an array.
listed(values) := values if is_array(values)

listed(values) := [value | some value in values] if is_set(values)

listed(values) := [value | some value in values] if is_object(values)

listed_or_none(values) := listed(values)

listed_or_none(values) := [] if not listed(values)

# Textual on purpose: alternatives are not grouped and an escaped dollar counts as an
# end, because policies were written and reviewed under these rules.
anchor_pattern(pattern) := uvmd.anchor(pattern)[0]

# A pattern that does not compile has no translation and matches nothing.
pattern_matches(pattern, value) if {
	is_string(value)
	regex.match(uvmd.anchored(pattern)[0], value)
}

command_ok(command) if command == input.argList

workingDirectory_ok(working_dir) if working_dir == input.workingDir

privileged_ok(_) if input.privileged == false

privileged_ok(allow_elevated) if {
	input.privileged == true
	allow_elevated == true
}

noNewPrivileges_ok(no_new_privileges) if {
	no_new_privileges
	input.noNewPrivileges == true
}

noNewPrivileges_ok(no_new_privileges) if no_new_privileges == false

seccomp_ok(hash) if hash == input.seccompProfileSHA256

devices_ok if {
	is_array(input.devices)
	count(input.devices) == 0
}

signal_ok(signals) if input.signal in signals

# Users and groups

idName_ok(_, "any", _) := true

idName_ok(pattern, "id", value) if pattern == value.id

idName_ok(pattern, "name", value) if pattern == value.name

idName_ok(pattern, "re2", value) if pattern_matches(pattern, value.name)

user_ok(user) if {
	user.umask == input.umask
	idName_ok(user.user_idname.pattern, user.user_idname.strategy, input.user)
	every group in input.groups {
		some rule in each(user.group_idnames)
		idName_ok(rule.pattern, rule.strategy, group)
	}
}

# Environment

env_pattern_ok(pattern, "string", value) if pattern == value

env_pattern_ok(pattern, "re2", value) if pattern_matches(pattern, value)

env_rule_ok(rule, env) if {
	rule.pattern != null
	rule.strategy != null
	env_pattern_ok(rule.pattern, rule.strategy, env)
}

env_rule_ok(rule, env) if {
	rule.name != null
	rule.name_strategy != null
	rule.value != null
	rule.value_strategy != null
	is_string(env)
	at := indexof(env, "=")
	at >= 0
	env_pattern_ok(rule.name, rule.name_strategy, substring(env, 0, at))
	env_pattern_ok(rule.value, rule.value_strategy, substring(env, at + 1, -1))
}

env_required_rule_ok(rule, _) if not rule.required

env_required_rule_ok(rule, env_list) if {
	rule.required
	some env in each(env_list)
	env_rule_ok(rule, env)
}

# Rules and variables, sorted out by what patterns have still to be tried on.
sorted_out(rules, env_list) := uvmd.env_rules(listed(rules), env_list)

# Which of the entries match some rule.
known_envs(rules, env_list) := found.exact | {env |
	some env in found.left
	env_matched(found, env)
} if {
	found := sorted_out(rules, env_list)
}

env_matched(found, env) if {
	is_string(env)
	some pattern in found.patterns
	regex.match(pattern, env)
}

env_matched(found, env) if {
	is_string(env)
	some rule in found.split
	env_rule_ok(rule, env)
}

required_envs_ok(rules, env_list) if required_found(sorted_out(rules, env_list), env_list)

required_found(found, env_list) if {
	every rule in found.required {
		env_required_rule_ok(rule, env_list)
	}
}

envList_ok(rules, env_list) if {
	is_list(env_list)
	all_envs_found(sorted_out(rules, env_list), env_list)
}

all_envs_found(found, env_list) if {
	required_found(found, env_list)
	every env in found.left {
		env_matched(found, env)
	}
}

valid_envs_subset(rules) := known_envs(rules, input.envList)

valid_envs_for_all(_) := input.envList if not allow_environment_variable_dropping

valid_envs_for_all(items) := best[0] if {
	allow_environment_variable_dropping
	subsets := [valid_envs_subset(item.env_rules) | some item in items]
	count(subsets) > 0
	most := max([count(subset) | some subset in subsets])
	best := [subset | some subset in subsets; count(subset) == most]
	every subset in best {
		subset == best[0]
	}
}

# Capabilities

default_privileged_capabilities := {
	"bounding": {name | some name in data.defaultPrivilegedCapabilities},
	"effective": {name | some name in data.defaultPrivilegedCapabilities},
	"inheritable": {name | some name in data.defaultPrivilegedCapabilities},
	"permitted": {name | some name in data.defaultPrivilegedCapabilities},
	"ambient": set(),
}

default_unprivileged_capabilities := {
	"bounding": {name | some name in data.defaultUnprivilegedCapabilities},
	"effective": {name | some name in data.defaultUnprivilegedCapabilities},
	"inheritable": set(),
	"permitted": {name | some name in data.defaultUnprivilegedCapabilities},
	"ambient": set(),
}

get_capabilities(container, _) := container.capabilities if container.capabilities != null

get_capabilities(container, true) := default_privileged_capabilities if {
	container.capabilities == null
	container.allow_elevated
}

get_capabilities(container, false) := default_unprivileged_capabilities if {
	container.capabilities == null
	container.allow_elevated
}

get_capabilities(container, _) := default_unprivileged_capabilities if {
	container.capabilities == null
	not container.allow_elevated
}

capability_sets := ["bounding", "effective", "inheritable", "permitted", "ambient"]

same_names(allowed, asked) if uvmd.same_names(allowed, asked)

is_list(value) if is_array(value)

is_list(value) if is_set(value)

capsList_ok(allowed, asked) if same_names(allowed, asked)

caps_ok(allowed, asked) if uvmd.same_capabilities(allowed, asked)

filter_capsList_by_allowed(allowed, asked) := {name |
	some name in each(asked)
	name in allowed
}

filter_capsList_for_single_container(allowed) := {name: kept |
	some name in capability_sets
	kept := filter_capsList_by_allowed(allowed[name], input.capabilities[name])
}

# The fullest of what single containers would keep; several where they differ.
largest_caps_sets_for_all(containers, privileged) := [kept |
	some kept in filtered
	caps_score(kept) == most
] if {
	filtered := [kept |
		some container in containers
		kept := filter_capsList_for_single_container(get_capabilities(container, privileged))
		count(kept) == count(capability_sets)
	]
	count(filtered) > 0
	most := max([caps_score(kept) | some kept in filtered])
}

caps_score(caps) := sum([count(names) | some names in caps])

all_caps_sets_are_equal(sets) := sets[0] if {
	every caps in sets {
		caps == sets[0]
	}
}

valid_caps_for_all(_, _) := input.capabilities if not allow_capability_dropping

valid_caps_for_all(containers, privileged) := all_caps_sets_are_equal(largest_caps_sets_for_all(
	containers,
	privileged,
)) if {
	allow_capability_dropping
}

# Mounts. Python compares; what it returns is left to be matched with patterns and shares.

mountSource_ok(constraint, source) if {
	mount := {"destination": "/", "type": "", "options": [], "source": source}
	left := uvmd.mounts_left([object.union(mount, {"source": constraint})], [], [mount], places)
	every one in left {
		source_left_ok(one)
	}
}

mountConstraint_ok(constraint, mount) if {
	every one in uvmd.mounts_left([constraint], [], [mount], places) {
		source_left_ok(one)
	}
}

# Where the prefixes of a source are in this request.
places := {"sandbox": object.get(input, "sandboxDir", null), "hugepages": object.get(input, "hugePagesDir", null)}

source_left_ok(one) if {
	some pattern in one.patterns
	regex.match(pattern, one.source)
}

source_left_ok(one) if {
	one.plan9
	uvmd.entry("p9mounts", one.source)[0] == input.containerID
}

mount_left_ok(one, _) if source_left_ok(one)

# The sandbox container may always write to sysfs; no workload runs in it.
mount_left_ok(_, mount) if {
	input.isSandboxContainer
	mount.type == "sysfs"
	mount.source == "sysfs"
	mount.destination == "/sys"
	same_names(["nosuid", "noexec", "nodev", "rw"], mount.options)
}

also(allow_elevated) := ["default", "privileged"] if allow_elevated

also(allow_elevated) := ["default"] if not allow_elevated

mounts_ok(own, allow_elevated, mounts) if {
	every one in uvmd.mounts_left(listed_or_none(own), also(allow_elevated), mounts, places) {
		mount_left_ok(one, mounts[one.at])
	}
}

mount_ok(mounts, allow_elevated, mount) if mounts_ok(mounts, allow_elevated, [mount])

mountList_ok(mounts, allow_elevated) if {
	is_array(input.mounts)
	mounts_ok(mounts, allow_elevated, input.mounts)
}

# Layers: the request names the topmost first, a policy the base first.

layerHashes_ok(layers, hashes) if {
	is_array(layers)
	n := count(layers)
	count(hashes) == n
	every i, hash in hashes {
		layers[(n - 1) - i] == hash
	}
}

# At once: one call of Python takes as long as the rest of the rule.
requested_layers := uvmd.entries("devices", [path | some path in each(input.layerPaths)])

every_layer_known if {
	is_array(input.layerPaths)
	count(requested_layers) == count(input.layerPaths)
}

layerPaths_ok(layers) if {
	every_layer_known
	layerHashes_ok(layers, requested_layers)
}

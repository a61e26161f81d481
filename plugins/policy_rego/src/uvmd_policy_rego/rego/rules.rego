# The enforcement points: when each is allowed, and what is remembered of it.
package framework

# Storage. Entries are looked up one by one: scratch_mounts grows with every container there was.

device_mounted(target) if uvmd.entry("devices", target)[0]

device_mounted(target) if uvmd.entry("rw_devices", target)[0]

mount_target_ok if pattern_matches(input.mountPathRegex, input.target)

default mount_device := {"allowed": false}

mount_device := {
	"allowed": true,
	"metadata": [{"name": "devices", "action": "add", "key": input.target, "value": input.deviceHash}],
} if {
	not device_mounted(input.target)
	deviceHash_ok
	mount_target_ok
}

rwmount_device_encrypt_ok if allow_unencrypted_scratch

rwmount_device_encrypt_ok if input.encrypted

allowed_scratch_fs("ext4") := true

allowed_scratch_fs("xfs") := true

default rw_mount_device := {"allowed": false}

rw_mount_device := {
	"allowed": true,
	"metadata": [{"name": "rw_devices", "action": "add", "key": input.target, "value": true}],
} if {
	not device_mounted(input.target)
	rwmount_device_encrypt_ok
	input.ensureFilesystem
	allowed_scratch_fs(input.filesystem)
	mount_target_ok
}

# Block devices are handed to nobody: what is on them cannot be measured.

default mount_blockdev := {"allowed": false}

default unmount_blockdev := {"allowed": false}

default unmount_device := {"allowed": false}

unmount_device := {
	"allowed": true,
	"metadata": [{"name": "devices", "action": "remove", "key": input.unmountTarget}],
} if {
	uvmd.entry("devices", input.unmountTarget)[0]
}

default rw_unmount_device := {"allowed": false}

rw_unmount_device := {
	"allowed": true,
	"metadata": [{"name": "rw_devices", "action": "remove", "key": input.unmountTarget}],
} if {
	uvmd.entry("rw_devices", input.unmountTarget)[0]
}

overlay_exists if uvmd.entry("matches", input.containerID)[0]

overlay_mounted(target) if uvmd.entry("overlayTargets", target)[0]

default mount_overlay := {"allowed": false}

mount_overlay := {
	"allowed": true,
	"metadata": [
		{"name": "matches", "action": "add", "key": input.containerID, "value": overlay_kept},
		{"name": "overlayTargets", "action": "add", "key": input.target, "value": true},
	],
} if {
	not overlay_exists
	not overlay_mounted(input.target)
	overlay_found
}

default unmount_overlay := {"allowed": false}

unmount_overlay := {
	"allowed": true,
	"metadata": [{"name": "overlayTargets", "action": "remove", "key": input.unmountTarget}],
} if {
	overlay_mounted(input.unmountTarget)
}

default plan9_mount := {"allowed": false}

plan9_mounted(target) if uvmd.entry("p9mounts", target)[0]

plan9_mount := {
	"allowed": true,
	"metadata": [{"name": "p9mounts", "action": "add", "key": input.target, "value": id}],
} if {
	not plan9_mounted(input.target)
	some id in uvmd.keys("matches")
	pattern_matches(concat("", ["^", input.rootPrefix, "/", id, input.mountPathPrefix, "$"]), input.target)
}

default plan9_unmount := {"allowed": false}

plan9_unmount := {
	"allowed": true,
	"metadata": [{"name": "p9mounts", "action": "remove", "key": input.unmountTarget}],
} if {
	plan9_mounted(input.unmountTarget)
}

scratch_mounted(target) if uvmd.entry("scratch_mounts", target)[0]

scratch_encrypt_ok if allow_unencrypted_scratch

scratch_encrypt_ok if input.encrypted

default scratch_mount := {"allowed": false}

scratch_mount := {
	"allowed": true,
	"metadata": [{
		"name": "scratch_mounts", "action": "add",
		"key": input.target, "value": {"encrypted": input.encrypted},
	}],
} if {
	not scratch_mounted(input.target)
	scratch_encrypt_ok
}

default scratch_unmount := {"allowed": false}

scratch_unmount := {
	"allowed": true,
	"metadata": [{"name": "scratch_mounts", "action": "remove", "key": input.unmountTarget}],
} if {
	scratch_mounted(input.unmountTarget)
}

# Containers. Each step narrows the candidates of the step before; what is left is
# what later requests are held against.

container_started if uvmd.entry("started", input.containerID)[0]

default container_privileged := false

container_privileged := uvmd.entry("started", input.containerID)[0].privileged

update_matches(places) := {
	"name": "matches", "action": "update",
	"key": input.containerID, "value": kept_matches(places),
}

matches_at(places) := [matches[place] | some place in places]

security_ok(container) if {
	noNewPrivileges_ok(container.no_new_privileges)
	user_ok(container.user)
	privileged_ok(container.allow_elevated)
}

# What the reasons need too: without seccomp and devices.
createable(container) if {
	command_ok(container.command)
	workingDirectory_ok(container.working_dir)
	security_ok(container)
	mountList_ok(container.mounts, container.allow_elevated)
}

create_places := [place |
	some place, container in matches
	createable(container)
	seccomp_ok(container.seccomp_profile_sha256)
]

create_matches := matches_at(create_places)

with_envs(items, env_list) := [item |
	some item in items
	envList_ok(item.env_rules, env_list)
]

places_with_envs(places, env_list) := [place |
	some place in places
	is_list(env_list)
	all_envs_found(envs_of(place, env_list), env_list)
]

with_caps(containers, privileged, caps_list) := [container |
	some container in containers
	caps_ok(get_capabilities(container, privileged), caps_list)
]

places_with_caps(places, privileged, caps_list) := [place |
	some place in places
	caps_of_ok(place, privileged, caps_list)
]

agreed_stdio(items) := items[0].allow_stdio_access if {
	every item in items {
		item.allow_stdio_access == items[0].allow_stdio_access
	}
}

default create_container := {"allowed": false}

create_container := {
	"allowed": true,
	"env_list": env_list,
	"caps_list": caps_list,
	"allow_stdio_access": stdio,
	"metadata": [
		update_matches(possible),
		{
			"name": "started", "action": "add",
			"key": input.containerID, "value": {"privileged": input.privileged},
		},
	],
} if {
	not container_started
	devices_ok
	count(create_places) > 0
	env_list := valid_envs_for_all(create_matches)
	fitting := places_with_envs(create_places, env_list)
	count(fitting) > 0
	caps_list := valid_caps_for_all(matches_at(fitting), input.privileged)
	possible := places_with_caps(fitting, input.privileged, caps_list)
	count(possible) > 0
	stdio := agreed_stdio(matches_at(possible))
}

# One entry for every pair of a container and one of its exec processes.
exec_places := [place |
	some place, container in matches
	workingDirectory_ok(container.working_dir)
	noNewPrivileges_ok(container.no_new_privileges)
	user_ok(container.user)
	some process in each(container.exec_processes)
	command_ok(process.command)
]

exec_matches := matches_at(exec_places)

default exec_in_container := {"allowed": false}

exec_in_container := {
	"allowed": true,
	"env_list": env_list,
	"caps_list": caps_list,
	"metadata": [update_matches(possible)],
} if {
	container_started
	count(exec_places) > 0
	env_list := valid_envs_for_all(exec_matches)
	fitting := places_with_envs(exec_places, env_list)
	count(fitting) > 0
	caps_list := valid_caps_for_all(matches_at(fitting), container_privileged)
	possible := places_with_caps(fitting, container_privileged, caps_list)
	count(possible) > 0
}

external_process_ok(process) if {
	command_ok(process.command)
	workingDirectory_ok(process.working_dir)
}

external_matches := [process |
	some process in candidate_external_processes
	external_process_ok(process)
]

default exec_external := {"allowed": false}

exec_external := {"allowed": true, "env_list": env_list, "allow_stdio_access": stdio} if {
	count(external_matches) > 0
	env_list := valid_envs_for_all(external_matches)
	fitting := with_envs(external_matches, env_list)
	count(fitting) > 0
	stdio := agreed_stdio(fitting)
}

default shutdown_container := {"allowed": false}

shutdown_container := {
	"allowed": true,
	"metadata": [{"name": "matches", "action": "remove", "key": input.containerID}],
} if {
	container_started
}

signal_places := [place |
	some place, container in matches
	signal_ok(container.signals)
] if {
	input.isInitProcess
}

signal_places := [place |
	some place, container in matches
	some process in each(container.exec_processes)
	command_ok(process.command)
	signal_ok(process.signals)
] if {
	not input.isInitProcess
}

default signal_container_process := {"allowed": false}

signal_container_process := {"allowed": true, "metadata": [update_matches(signal_places)]} if {
	container_started
	count(signal_places) > 0
}

# What a third party's resource types ask: nothing here knows them, a policy must.
default modify_resource := {"allowed": false}

# Flags

default get_properties := {"allowed": false}

get_properties := {"allowed": true} if allow_properties_access

default dump_stacks := {"allowed": false}

dump_stacks := {"allowed": true} if allow_dump_stacks

default runtime_logging := {"allowed": false}

runtime_logging := {"allowed": true} if allow_runtime_logging

default host_network := {"allowed": false}

host_network := {"allowed": true} if allow_host_network

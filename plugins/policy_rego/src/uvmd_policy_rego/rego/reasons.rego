# Why not: asked with the input of the request that was denied, and in `rule` its point.
# Every reason is a rule that decided, or what it is made of, found not to hold.
package framework

reason := {"errors": errors, "error_objects": error_objects}

default error_objects := null

error_objects := matches if input.rule == "create_container"

error_objects := [process |
	some container in matches
	some process in each(container.exec_processes)
] if {
	input.rule == "exec_in_container"
}

error_objects := candidate_external_processes if input.rule == "exec_external"

error_objects := candidate_fragments if input.rule == "load_fragment"

named(items) := concat(",", items)

env_name(env) := split(env, "=")[0]

# Any rule

errors contains sprintf("framework_version is missing. Current version: %s", [version]) if {
	policy_framework_version == null
}

errors contains ahead("framework_version", policy_framework_version) if {
	order(policy_framework_version, version) > 0
}

ahead(what, v) := concat("", [what, " is ahead of the current version: ", v, " is greater than ", version])

# Storage

errors contains "blockdev mounts are not supported" if input.rule in ["mount_blockdev", "unmount_blockdev"]

errors contains "deviceHash not found" if {
	input.rule == "mount_device"
	not deviceHash_ok
}

errors contains "device already mounted at path" if {
	input.rule in ["mount_device", "rw_mount_device"]
	device_mounted(input.target)
}

errors contains "mountpoint invalid" if {
	input.rule in ["mount_device", "rw_mount_device"]
	not mount_target_ok
}

errors contains "no device at path to unmount" if {
	input.rule in ["unmount_device", "rw_unmount_device"]
	not device_mounted(input.unmountTarget)
}

errors contains "received read-only unmount request, but device provided is read-write" if {
	input.rule == "unmount_device"
	not data.metadata.devices[input.unmountTarget]
	data.metadata.rw_devices[input.unmountTarget]
}

errors contains "received read-write unmount request, but device provided is read-only" if {
	input.rule == "rw_unmount_device"
	not data.metadata.rw_devices[input.unmountTarget]
	data.metadata.devices[input.unmountTarget]
}

errors contains concat(" ", [
	"unencrypted scratch not allowed, non-readonly mount request for SCSI disk",
	"must request encryption",
]) if {
	input.rule == "rw_mount_device"
	not rwmount_device_encrypt_ok
}

errors contains "ensureFilesystem must be set on rw device mounts" if {
	input.rule == "rw_mount_device"
	not input.ensureFilesystem
}

errors contains "rw device mounts uses a filesystem that is not allowed" if {
	input.rule == "rw_mount_device"
	not allowed_scratch_fs(input.filesystem)
}

errors contains "overlay has already been mounted" if {
	input.rule == "mount_overlay"
	overlay_exists
}

errors contains "no matching containers for overlay" if {
	input.rule == "mount_overlay"
	not overlay_found
}

errors contains "no overlay at path to unmount" if {
	input.rule == "unmount_overlay"
	not overlay_mounted(input.unmountTarget)
}

errors contains "device already mounted at path" if {
	input.rule == "plan9_mount"
	plan9_mounted(input.target)
}

errors contains "no device at path to unmount" if {
	input.rule == "plan9_unmount"
	not plan9_mounted(input.unmountTarget)
}

errors contains "scratch already mounted at path" if {
	input.rule == "scratch_mount"
	scratch_mounted(input.target)
}

errors contains "unencrypted scratch not allowed" if {
	input.rule == "scratch_mount"
	not scratch_encrypt_ok
}

errors contains "no scratch at path to unmount" if {
	input.rule == "scratch_unmount"
	not scratch_mounted(input.unmountTarget)
}

# Containers and processes

errors contains "container already started" if {
	input.rule == "create_container"
	container_started
}

errors contains "container not started" if {
	input.rule in ["exec_in_container", "shutdown_container", "signal_container_process"]
	not container_started
}

errors contains "privileged escalation not allowed" if {
	input.rule == "create_container"
	not some_privileged_ok
}

some_privileged_ok if {
	some container in matches
	privileged_ok(container.allow_elevated)
}

errors contains "invalid command" if {
	input.rule in ["create_container", "exec_in_container", "exec_external"]
	not some_command_ok
}

some_command_ok if {
	input.rule == "create_container"
	some container in matches
	command_ok(container.command)
}

some_command_ok if {
	input.rule == "exec_in_container"
	some container in matches
	some process in each(container.exec_processes)
	command_ok(process.command)
}

some_command_ok if {
	input.rule == "exec_external"
	some process in candidate_external_processes
	command_ok(process.command)
}

# Whose environment, and what else, a request of this kind is held against.
considered := matches if input.rule in ["create_container", "exec_in_container"]

considered := candidate_external_processes if input.rule == "exec_external"

considered_envs := {env |
	some item in each(considered)
	some env in known_envs(item.env_rules, input.envList)
}

unknown_envs := [env_name(env) |
	some env in each(input.envList)
	not env in considered_envs
]

errors contains concat("", ["invalid env list: ", named(unknown_envs)]) if {
	input.rule in ["create_container", "exec_in_container", "exec_external"]
	count(unknown_envs) > 0
}

errors contains "invalid env list" if {
	input.rule == "create_container"
	every container in matches {
		createable(container)
		count(known_envs(container.env_rules, input.envList)) < count({env | some env in each(input.envList)})
	}
}

errors contains "missing required environment variable" if {
	input.rule == "create_container"
	not container_started
	some container in matches
	createable(container)
	not required_envs_ok(container.env_rules, input.envList)
}

errors contains "missing required environment variable" if {
	input.rule == "exec_in_container"
	container_started
	some container in exec_matches
	not required_envs_ok(container.env_rules, input.envList)
}

errors contains "missing required environment variable" if {
	input.rule == "exec_external"
	some process in external_matches
	not required_envs_ok(process.env_rules, input.envList)
}

errors contains "invalid working directory" if {
	input.rule in ["create_container", "exec_in_container", "exec_external"]
	not some_working_directory_ok
}

some_working_directory_ok if {
	some item in considered
	workingDirectory_ok(item.working_dir)
}

unknown_mounts := [mount.destination |
	some mount in each(input.mounts)
	not some_mount_ok(mount)
]

some_mount_ok(mount) if {
	some container in matches
	mount_ok(container.mounts, container.allow_elevated, mount)
}

errors contains concat("", ["invalid mount list: ", named(unknown_mounts)]) if {
	input.rule == "create_container"
	count(unknown_mounts) > 0
}

errors contains "invalid noNewPrivileges" if {
	input.rule == "create_container"
	not some_no_new_privileges_ok
}

some_no_new_privileges_ok if {
	some container in matches
	noNewPrivileges_ok(container.no_new_privileges)
}

errors contains "invalid user" if {
	input.rule == "create_container"
	not some_user_ok
}

some_user_ok if {
	some container in matches
	user_ok(container.user)
}

errors contains "invalid seccomp" if {
	input.rule == "create_container"
	not some_seccomp_ok
}

some_seccomp_ok if {
	some container in matches
	seccomp_ok(container.seccomp_profile_sha256)
}

errors contains "devices not supported" if {
	input.rule == "create_container"
	not devices_ok
}

# Hosts know these two from every denial of an exec: they are looked for in the
# processes, where no tool writes them.
errors contains "invalid noNewPrivileges" if {
	input.rule == "exec_in_container"
	not some_process_no_new_privileges_ok
}

some_process_no_new_privileges_ok if {
	some container in matches
	some process in each(container.exec_processes)
	command_ok(process.command)
	workingDirectory_ok(process.working_dir)
	noNewPrivileges_ok(process.no_new_privileges)
}

errors contains "invalid user" if {
	input.rule == "exec_in_container"
	not some_process_user_ok
}

some_process_user_ok if {
	some container in matches
	some process in each(container.exec_processes)
	command_ok(process.command)
	workingDirectory_ok(process.working_dir)
	user_ok(process.user)
}

# The last steps of narrowing, taken again as far as they go

narrowed := with_envs(create_matches, valid_envs_for_all(create_matches)) if {
	input.rule == "create_container"
	not container_started
}

narrowed := with_envs(exec_matches, valid_envs_for_all(exec_matches)) if {
	input.rule == "exec_in_container"
	container_started
}

asked_privileged := input.privileged if input.rule == "create_container"

asked_privileged := container_privileged if input.rule == "exec_in_container"

errors contains "capabilities don't match" if {
	count(narrowed) > 0
	caps_list := valid_caps_for_all(narrowed, asked_privileged)
	count(with_caps(narrowed, asked_privileged, caps_list)) == 0
}

without_seccomp := [container |
	some container in matches
	createable(container)
]

errors contains "containers only distinguishable by capabilties" if {
	input.rule == "create_container"
	allow_capability_dropping
	not container_started
	fitting := with_envs(without_seccomp, valid_envs_for_all(without_seccomp))
	count(fitting) > 0
	sets := largest_caps_sets_for_all(fitting, input.privileged)
	not all_caps_sets_are_equal(sets)
}

errors contains "containers only distinguishable by allow_stdio_access" if {
	input.rule == "create_container"
	caps_list := valid_caps_for_all(narrowed, input.privileged)
	possible := with_caps(narrowed, input.privileged, caps_list)
	stdio_differs(possible)
}

errors contains "external processes only distinguishable by allow_stdio_access" if {
	input.rule == "exec_external"
	stdio_differs(with_envs(external_matches, valid_envs_for_all(external_matches)))
}

stdio_differs(items) if {
	some item in items
	item.allow_stdio_access != items[0].allow_stdio_access
}

errors contains "target isn't allowed to receive the signal" if {
	input.rule == "signal_container_process"
	not count(signal_places) > 0
}

# Which versions the policy and a fragment are written for, and what older documents
# are brought up to.
package framework

version := "0.5.0"

is_linux if {
	some system in data.metadata.operatingsystem
	system == "linux"
}

is_windows if {
	some system in data.metadata.operatingsystem
	system == "windows"
}

# -1, 0 or 1; undefined unless both are semantic versions.
order(a, b) := uvmd.compare(a, b)[0]

default policy_api_version := null

policy_api_version := data.policy.api_version

policy_api_version := data.policy.api_svn

default policy_framework_version := null

policy_framework_version := data.policy.framework_version

policy_framework_version := data.policy.framework_svn

default fragment_framework_version := null

fragment_framework_version := data[input.namespace].framework_version

fragment_framework_version := data[input.namespace].framework_svn

default enforcement_point_info := {
	"available": false,
	"default_results": {"allow": false},
	"unknown": true,
	"invalid": false,
	"version_missing": false,
	"use_framework": false,
}

enforcement_point_info := {
	"available": false,
	"default_results": {"allow": false},
	"unknown": false,
	"invalid": false,
	"version_missing": true,
	"use_framework": false,
} if {
	policy_api_version == null
}

enforcement_point_info := {
	"available": order(policy_api_version, point.introducedVersion) >= 0,
	"default_results": point.default_results,
	"unknown": false,
	"invalid": false,
	"version_missing": false,
	"use_framework": point.use_framework,
} if {
	policy_api_version != null
	point := data.api.enforcement_points[input.name]
	order(data.api.version, point.introducedVersion) >= 0
}

enforcement_point_info := {
	"available": false,
	"default_results": {"allow": false},
	"unknown": false,
	"invalid": true,
	"version_missing": false,
	"use_framework": false,
} if {
	policy_api_version != null
	point := data.api.enforcement_points[input.name]
	order(data.api.version, point.introducedVersion) < 0
}

# What a document of version v declares, as the rules here expect it.

apply_defaults(_, values, v) := values if order(v, version) == 0

apply_defaults("container", values, v) := [checked |
	some value in each(values)
	checked := check_container(value, v)
] if {
	order(v, version) < 0
}

apply_defaults("external_process", values, v) := [checked |
	some value in each(values)
	checked := check_external_process(value, v)
] if {
	order(v, version) < 0
}

apply_defaults("fragment", values, v) := [checked |
	some value in each(values)
	checked := check_fragment(value, v)
] if {
	order(v, version) < 0
}

# Trust lists and platform rules came with 0.5.0: no older document can mean them.
apply_defaults("transparency_trust_list", _, v) := [] if order(v, version) < 0

apply_defaults("platform_rule", _, v) := [] if order(v, version) < 0

check_container(container, v) := {
	"command": container.command,
	"env_rules": container.env_rules,
	"layers": container.layers,
	"mounts": container.mounts,
	"allow_elevated": container.allow_elevated,
	"working_dir": container.working_dir,
	"exec_processes": container.exec_processes,
	"allow_stdio_access": container.allow_stdio_access,
	"signals": check_signals(container, v),
	"no_new_privileges": check_no_new_privileges(container, v),
	"user": check_user(container, v),
	"capabilities": check_capabilities(container, v),
	"seccomp_profile_sha256": check_seccomp_profile_sha256(container, v),
}

check_signals(container, v) := container.signals if order(v, "0.4.1") >= 0

# Documents of that time relied on a host being able to end what it started.
check_signals(container, v) := array.concat(container.signals, [9, 15]) if order(v, "0.4.1") < 0

check_no_new_privileges(container, v) := container.no_new_privileges if order(v, "0.2.0") >= 0

check_no_new_privileges(_, v) := false if order(v, "0.2.0") < 0

check_user(container, v) := container.user if order(v, "0.2.1") >= 0

check_user(_, v) := {
	"umask": "0022",
	"user_idname": {"pattern": "", "strategy": "any"},
	"group_idnames": [{"pattern": "", "strategy": "any"}],
} if {
	order(v, "0.2.1") < 0
}

check_capabilities(container, v) := container.capabilities if order(v, "0.2.2") >= 0

check_capabilities(_, v) := null if order(v, "0.2.2") < 0

check_seccomp_profile_sha256(container, v) := container.seccomp_profile_sha256 if order(v, "0.2.3") >= 0

check_seccomp_profile_sha256(_, v) := "" if order(v, "0.2.3") < 0

check_external_process(process, _) := {
	"command": process.command,
	"env_rules": process.env_rules,
	"working_dir": process.working_dir,
	"allow_stdio_access": process.allow_stdio_access,
}

check_fragment(fragment, _) := {
	"issuer": fragment.issuer,
	"feed": fragment.feed,
	"minimum_svn": fragment.minimum_svn,
	"includes": fragment.includes,
	"required_receipts": object.get(fragment, "required_receipts", []),
	"parameters": object.get(fragment, "parameters", {}),
}

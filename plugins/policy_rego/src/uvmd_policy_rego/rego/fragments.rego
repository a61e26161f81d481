# Signed documents that add to the policy, and the lists of keys behind their receipts.
package framework

number(value) := uvmd.number(value)[0]

# Version texts compare with version texts, numbers with numbers.
svn_ok(svn, minimum) if order(svn, minimum) >= 0

svn_ok(svn, minimum) if number(svn) >= number(minimum)

fragment_svn := data[input.namespace].svn

fragment_issuer_feed_ok(fragment) if {
	fragment.issuer == input.issuer
	fragment.feed == input.feed
}

matching_fragments := [fragment |
	some fragment in candidate_fragments
	fragment_issuer_feed_ok(fragment)
]

header_svn_ok(_) if not input.has_header_svn

header_svn_ok(minimum) if {
	input.has_header_svn
	svn_ok(input.header_svn, minimum)
}

svn_ok_if_defined(minimum) if {
	fragment_svn
	not input.has_header_svn
	svn_ok(fragment_svn, minimum)
}

svn_ok_if_defined(minimum) if {
	fragment_svn
	input.has_header_svn
	number(input.header_svn) == number(fragment_svn)
	svn_ok(fragment_svn, minimum)
}

svn_ok_if_defined(minimum) if {
	not fragment_svn
	input.has_header_svn
	svn_ok(input.header_svn, minimum)
}

# Receipts

required_receipts(fragment) := object.get(fragment, "required_receipts", [])

receipt_requirement_satisfied("*") if count(each(input.receipts)) > 0

# A trust list may name its ledgers as it likes: none stands for a subject.
receipt_requirement_satisfied(requirement) if {
	is_string(requirement)
	requirement != "*"
	not startswith(requirement, "TTL:")
	some receipt in each(input.receipts)
	receipt.issuer == requirement
}

receipt_requirement_satisfied(requirement) if {
	is_string(requirement)
	startswith(requirement, "TTL:")
	subject := substring(requirement, 4, -1)
	some receipt in each(input.receipts)
	subject in receipt.ttl_subjects
}

fragment_receipts_ok(fragment) if {
	every requirement in required_receipts(fragment) {
		receipt_requirement_satisfied(requirement)
	}
}

# Parameters: those that loaded fragments handed on, then the policy's own.

handed_parameters := [entry.parameters |
	some entry in data.metadata.fragment_parameters
	fragment_issuer_feed_ok(entry)
]

own_parameters := [fragment.parameters |
	some fragment in policy_fragments
	fragment_issuer_feed_ok(fragment)
	fragment.parameters
]

fragment_parameters_for := array.concat(handed_parameters, own_parameters)

default load_fragment := {"allowed": false}

# Before a line of the fragment is parsed: may such a fragment be loaded at all?
load_fragment := {"allowed": true, "parameters": fragment_parameters_for} if {
	not input.fragment_loaded
	some fragment in matching_fragments
	header_svn_ok(fragment.minimum_svn)
	fragment_receipts_ok(fragment)
}

load_fragment := {
	"allowed": true,
	"add_module": "namespace" in fragment.includes,
	"metadata": array.concat([update_issuer(extract_fragment_includes(fragment.includes))], parameter_updates),
} if {
	input.fragment_loaded
	some fragment in matching_fragments
	svn_ok_if_defined(fragment.minimum_svn)
}

# What the fragment declares

default declared_containers := []

declared_containers := apply_defaults("container", data[input.namespace].containers, fragment_framework_version)

default declared_fragments := []

declared_fragments := apply_defaults("fragment", data[input.namespace].fragments, fragment_framework_version)

default declared_external_processes := []

declared_external_processes := apply_defaults(
	"external_process",
	data[input.namespace].external_processes, fragment_framework_version,
)

default declared_transparency_trust_lists := []

declared_transparency_trust_lists := apply_defaults(
	"transparency_trust_list",
	data[input.namespace].transparency_trust_lists, fragment_framework_version,
)

default declared_platform_rules := []

declared_platform_rules := apply_defaults(
	"platform_rule",
	data[input.namespace].platform_rules, fragment_framework_version,
)

extract_fragment_includes(includes) := {name: values |
	declared := {
		"containers": declared_containers,
		"fragments": declared_fragments,
		"external_processes": declared_external_processes,
		"transparency_trust_lists": declared_transparency_trust_lists,
		"platform_rules": declared_platform_rules,
	}
	some name in includes
	values := declared[name]
} if {
	is_array(includes)
	usable(fragment_framework_version)
}

issuer_exists if uvmd.entry("issuers", input.issuer)[0]

issuer_feeds := object.get(uvmd.entry("issuers", input.issuer)[0], "feeds", {})

default known_feeds := {}

known_feeds := issuer_feeds

feed_exists if known_feeds[input.feed]

update_issuer(object_of_fragment) := {
	"name": "issuers", "action": "update", "key": input.issuer,
	"value": {"feeds": object.union(known_feeds, {input.feed: array.concat(
		[object_of_fragment],
		object.get(known_feeds, input.feed, []),
	)})},
}

parameter_updates := [{
	"name": "fragment_parameters", "action": "add", "type": "set",
	"value": {"issuer": fragment.issuer, "feed": fragment.feed, "parameters": fragment.parameters},
} |
	some fragment in declared_fragments
	fragment.parameters
]

# Lists of ledger keys

ttl_matches := [list |
	some list in candidate_transparency_trust_lists
	list.issuer == input.issuer
	list.subject == input.subject
	svn_ok(input.svn, list.minimum_svn)
]

ttl_allowed_ledgers := {ledger |
	some list in ttl_matches
	some ledger in each(list.allowed_ledgers)
}

ttl_ledgers := {ledger | some ledger in each(input.ledgers)} if "*" in ttl_allowed_ledgers

ttl_ledgers := {ledger |
	some ledger in each(input.ledgers)
	ledger in ttl_allowed_ledgers
} if {
	not "*" in ttl_allowed_ledgers
}

default load_transparency_trust_list := {"allowed": false}

load_transparency_trust_list := {"allowed": true, "allowed_ledgers": ttl_ledgers} if count(ttl_ledgers) > 0

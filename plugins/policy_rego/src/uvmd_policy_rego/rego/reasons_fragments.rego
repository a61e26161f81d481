# Why a fragment or a list of ledger keys was not loaded.
package framework

issuer_known if {
	some fragment in candidate_fragments
	fragment.issuer == input.issuer
}

errors contains "invalid fragment issuer" if {
	input.rule == "load_fragment"
	not issuer_known
}

errors contains "invalid fragment feed" if {
	input.rule == "load_fragment"
	issuer_known
	count(matching_fragments) == 0
}

loading if {
	input.rule == "load_fragment"
	input.fragment_loaded
}

errors contains "fragment svn is below the specified minimum" if {
	loading
	count(matching_fragments) > 0
	not svn_types_differ
	not some_svn_ok
}

some_svn_ok if {
	some fragment in matching_fragments
	svn_ok(fragment_svn, fragment.minimum_svn)
}

some_svn_ok if {
	some fragment in matching_fragments
	svn_ok(input.header_svn, fragment.minimum_svn)
	input.has_header_svn
}

is_version(value) if order(value, value) == 0

is_numeric(value) if number(value) == number(value)

svn_types_differ if {
	some fragment in matching_fragments
	is_numeric(fragment_svn)
	is_version(fragment.minimum_svn)
}

svn_types_differ if {
	some fragment in matching_fragments
	is_version(fragment_svn)
	is_numeric(fragment.minimum_svn)
}

svn_types_differ if {
	some fragment in matching_fragments
	input.has_header_svn
	is_version(fragment.minimum_svn)
}

errors contains "fragment svn and the specified minimum are different types" if {
	loading
	svn_types_differ
}

errors contains sprintf("svn in header %v does not match svn in fragment rego %v", [input.header_svn, fragment_svn]) if {
	loading
	input.has_header_svn
	fragment_svn
	not number(input.header_svn) == number(fragment_svn)
}

errors contains "missing fragment svn in either header or rego payload" if {
	loading
	not input.has_header_svn
	not fragment_svn
}

errors contains concat("", ["missing receipt from ", requirement]) if {
	input.rule == "load_fragment"
	not input.fragment_loaded
	some fragment in matching_fragments
	some requirement in required_receipts(fragment)
	not receipt_requirement_satisfied(requirement)
}

errors contains sprintf("fragment framework_version is missing. Current version: %s", [version]) if {
	loading
	fragment_framework_version == null
}

errors contains ahead("fragment framework_version", fragment_framework_version) if {
	loading
	order(fragment_framework_version, version) > 0
}

errors contains "no TTL candidate matches the provided TTL's issuer, subject and svn" if {
	input.rule == "load_transparency_trust_list"
	count(ttl_matches) == 0
}

errors contains "The provided TTL does not contain any ledgers it is allowed to load" if {
	input.rule == "load_transparency_trust_list"
	count(ttl_matches) > 0
	count(ttl_ledgers) == 0
}

# Builtins as the reference has them: one that is given a wrong type, or what it cannot
# read, is undefined. The engine's own end the whole question. Calls in policies and
# fragments are directed here when they are loaded; our rules check before they call.
package uvmd.lenient

collection(x) if is_array(x)

collection(x) if is_set(x)

collection(x) if is_object(x)

collection(x) if is_string(x)

listed(x) if is_array(x)

listed(x) if is_set(x)

texts(x) if {
	listed(x)
	every one in x {
		is_string(one)
	}
}

numbers(x) if {
	listed(x)
	every one in x {
		is_number(one)
	}
}

sets(x) if {
	is_set(x)
	every one in x {
		is_set(one)
	}
}

union_(x) := union(x) if sets(x)

intersection_(x) := intersection(x) if sets(x)

count_(x) := count(x) if collection(x)

sum_(x) := sum(x) if numbers(x)

product_(x) := product(x) if numbers(x)

max_(x) := max(x) if listed(x)

min_(x) := min(x) if listed(x)

sort_(x) := sort(x) if listed(x)

startswith_(a, b) := startswith(a, b) if {
	is_string(a)
	is_string(b)
}

endswith_(a, b) := endswith(a, b) if {
	is_string(a)
	is_string(b)
}

contains_(a, b) := contains(a, b) if {
	is_string(a)
	is_string(b)
}

indexof_(a, b) := indexof(a, b) if {
	is_string(a)
	is_string(b)
}

substring_(a, b, c) := substring(a, b, c) if {
	is_string(a)
	is_number(b)
	is_number(c)
	b >= 0
}

lower_(a) := lower(a) if is_string(a)

upper_(a) := upper(a) if is_string(a)

trim_space_(a) := trim_space(a) if is_string(a)

trim_(a, b) := trim(a, b) if {
	is_string(a)
	is_string(b)
}

trim_left_(a, b) := trim_left(a, b) if {
	is_string(a)
	is_string(b)
}

trim_right_(a, b) := trim_right(a, b) if {
	is_string(a)
	is_string(b)
}

trim_prefix_(a, b) := trim_prefix(a, b) if {
	is_string(a)
	is_string(b)
}

trim_suffix_(a, b) := trim_suffix(a, b) if {
	is_string(a)
	is_string(b)
}

replace_(a, b, c) := replace(a, b, c) if {
	is_string(a)
	is_string(b)
	is_string(c)
}

split_(a, b) := split(a, b) if {
	is_string(a)
	is_string(b)
}

concat_(a, b) := concat(a, b) if {
	is_string(a)
	texts(b)
}

sprintf_(a, b) := sprintf(a, b) if {
	is_string(a)
	is_array(b)
	# Sets of objects cannot be handed to the trial; how many values there are can.
	uvmd.answers("sprintf", [a, json.unmarshal(json.marshal(b))])
}

to_number_(a) := uvmd.number(a)[0]

abs_(a) := abs(a) if is_number(a)

array_concat(a, b) := array.concat(a, b) if {
	is_array(a)
	is_array(b)
}

array_slice(a, b, c) := array.slice(a, b, c) if {
	is_array(a)
	is_number(b)
	is_number(c)
}

object_get(a, b, c) := object.get(a, b, c) if is_object(a)

object_keys(a) := object.keys(a) if is_object(a)

object_union(a, b) := object.union(a, b) if {
	is_object(a)
	is_object(b)
}

object_remove(a, b) := object.remove(a, b) if {
	is_object(a)
	listed(b)
}

object_remove(a, b) := object.remove(a, b) if {
	is_object(a)
	is_object(b)
}

semver_compare(a, b) := uvmd.compare(a, b)[0]

semver_is_valid(a) := uvmd.is_version(a)

regex_match(pattern, value) := regex.match(uvmd.translated(pattern)[0], value) if is_string(value)

regex_split(pattern, value) := regex.split(uvmd.translated(pattern)[0], value) if is_string(value)

regex_find_n(pattern, value, n) := found if {
	known := uvmd.translated(pattern)[0]
	uvmd.answers("regex.find_n", [known, value, n])
	found := regex.find_n(known, value, n)
}

regex_find_all_string_submatch_n(pattern, value, n) := found if {
	known := uvmd.translated(pattern)[0]
	uvmd.answers("regex.find_all_string_submatch_n", [known, value, n])
	found := regex.find_all_string_submatch_n(known, value, n)
}

regex_replace(text, pattern, value) := replaced if {
	known := uvmd.translated(pattern)[0]
	uvmd.answers("regex.replace", [text, known, value])
	replaced := regex.replace(text, known, value)
}

crypto_sha256(a) := crypto.sha256(a) if is_string(a)

json_unmarshal(a) := json.unmarshal(a) if json_is_valid(a)

json_is_valid(a) := uvmd.is_json(a)

base64_decode(a) := base64.decode(a) if {
	is_string(a)
	base64.is_valid(a)
}

# Operators.

plus(a, b) := a + b if {
	is_number(a)
	is_number(b)
}

minus(a, b) := a - b if {
	is_number(a)
	is_number(b)
}

minus(a, b) := a - b if {
	is_set(a)
	is_set(b)
}

times(a, b) := a * b if {
	is_number(a)
	is_number(b)
}

divided(a, b) := a / b if {
	is_number(a)
	is_number(b)
	b != 0
}

remainder(a, b) := a % b if {
	whole(a)
	whole(b)
	b != 0
}

whole(a) if {
	is_number(a)
	a == floor(a)
}

either(a, b) := a | b if {
	is_set(a)
	is_set(b)
}

both(a, b) := a & b if {
	is_set(a)
	is_set(b)
}

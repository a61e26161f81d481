"""Every builtin that the engine has and that can fail: undefined for what it cannot take, else as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import regorus

from uvmd_policy_rego.documents import Documents
from uvmd_policy_rego.lenient import TARGETS

#: With arguments that each takes.
_GOOD = """
abs(3) array.concat([1],[2]) array.reverse([1,2]) array.slice([1,2],0,1) base64.decode("YQ==")
base64.encode("a") base64.is_valid("a") base64url.decode("YQ==") base64url.encode("a")
base64url.encode_no_pad("a") bits.and(3,1) bits.lsh(1,2) bits.negate(1) bits.or(1,2) bits.rsh(4,1)
bits.xor(1,3) ceil(1.5) concat("",["a"]) contains("ab","a") count([1]) crypto.sha256("a") endswith("ab","b")
floor(1.5) format_int(10,16) glob.match("a*",["."],"ab") glob.quote_meta("*")
graph.reachable({"a":["b"]},["a"]) graph.reachable_paths({"a":["b"]},["a"]) hex.decode("61") hex.encode("a")
indexof("ab","b") indexof_n("abb","b") intersection({{1},{1,2}}) json.filter({"a":1},["a"])
json.is_valid("1") json.marshal_with_options({"a":1},{"pretty":true}) json.match_schema({"a":1},{})
json.patch({"a":1},[]) json.remove({"a":1},["a"]) json.unmarshal("1") json.verify_schema({}) lower("A")
max([1,2]) min([1,2]) net.cidr_contains("10.0.0.0/8","10.0.0.1") net.cidr_expand("10.0.0.0/30")
net.cidr_is_valid("10.0.0.0/8") numbers.range(1,3) numbers.range_step(1,5,2) object.filter({"a":1},["a"])
object.get({"a":1},"a",2) object.keys({"a":1}) object.remove({"a":1},["a"]) object.union({"a":1},{"b":2})
object.union_n([{"a":1}]) product([2,3]) rand.intn("x",1) regex.find_all_string_submatch_n("a","aa",1)
regex.find_n("a","aa",1) regex.match("a","a") regex.replace("aa","a","b") regex.split("a","bab")
regex.template_match("a{b}","ab","{","}") replace("a","a","b") round(1.4) semver.compare("1.0.0","1.0.0")
semver.is_valid("1.0.0") sort([2,1]) split("a,b",",") sprintf("%d",[1]) startswith("ab","a")
strings.any_prefix_match("ab",["a"]) strings.any_suffix_match("ab",["b"]) strings.count("aa","a")
strings.replace_n({"a":"b"},"a") strings.reverse("ab") substring("abc",0,1) sum([1,2])
time.add_date(0,1,1,1) time.clock(0) time.date(0) time.diff(0,1) time.format(0) time.parse_duration_ns("1s")
time.parse_ns("2006-01-02T15:04:05Z07:00","2020-01-01T00:00:00Z")
time.parse_rfc3339_ns("2020-01-01T00:00:00Z") time.weekday(0) to_number("1") trace("a") trim("xax","x")
trim_left("xa","x") trim_prefix("xa","x") trim_right("ax","x") trim_space("a") trim_suffix("ax","x")
union({{1},{2}}) units.parse("10K") units.parse_bytes("10KB") upper("a") urlquery.decode("a")
urlquery.decode_object("a=b") urlquery.encode("a") urlquery.encode_object({"a":"b"})
uuid.parse("00000000-0000-4000-8000-000000000000") uuid.rfc4122("x") yaml.is_valid("a") yaml.unmarshal("a")
"""
NAMED = {call.partition("(")[0]: call for call in _GOOD.split()}
WRONG = ["null", "-1.5", '"%"', "[null]", "set()"]
#: They draw lots, or need more than a text and a place.
UNEVEN = {"rand.intn", "uuid.rfc4122"}


def evaluated(calls: list[str]) -> Iterator[list[object]]:
    """What a policy has of each call; whatever raises fails the test."""
    rules = (f"r{number} := x if {{ x := {call} }}\n" for number, call in enumerate(calls))
    documents = Documents(f'package policy\napi_version := "0.12.0"\n{"".join(rules)}')
    documents.set_input({})
    for number in range(len(calls)):
        yield documents.find(f"data.policy.r{number}")
    documents.close()


def arguments_of(call: str) -> list[str]:
    """The arguments as texts: commas inside of brackets and quotes do not part them."""
    inside, depth, quoted, found = call.partition("(")[2][:-1], 0, False, [""]
    for letter in inside:
        quoted ^= letter == '"'
        depth += (letter in "[{") - (letter in "]}") if not quoted else 0
        if letter == "," and not depth and not quoted:
            found.append("")
        else:
            found[-1] += letter
    return found


def test_the_table_has_them_all() -> None:
    assert set(NAMED) == set(TARGETS)


def test_what_they_can_take_gives_what_the_engine_gives() -> None:
    engine = regorus.Engine()
    for (name, call), found in zip(NAMED.items(), evaluated(list(NAMED.values())), strict=True):
        assert len(found) == 1, call
        if name in UNEVEN or name == "crypto.sha256":
            continue
        bare = json.loads(engine.eval_query_as_json(call))["result"][0]["expressions"][0]["value"]
        assert found == [bare], call


@pytest.mark.parametrize("wrong", WRONG)
def test_what_they_cannot_take_is_undefined(wrong: str) -> None:
    calls = []
    for name, call in NAMED.items():
        arguments = arguments_of(call)
        for place in range(len(arguments)):
            changed = [*arguments[:place], wrong, *arguments[place + 1 :]]
            calls.append(f"{name}({', '.join(changed)})")
    undefined = sum(not found for found in evaluated(calls))
    assert undefined > len(calls) // 3

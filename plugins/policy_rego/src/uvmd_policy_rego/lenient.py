"""Builtins and operators in policies and fragments, directed to functions of ours that never fail.

The engine ends a question over a builtin or an operator that is given a wrong type; the
reference calls it undefined and goes on. The builtins that policies use are guarded in
``rego/lenient.rego``. The others are tried first, in an engine of their own. Operators are
found in the syntax tree. Texts and comments are left alone, and so is every name that the
document defines itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from uvmd_policy_rego.modules import bare, read_module

_PACKAGE = "data.uvmd.lenient"
_PLAIN = (
    "count sum product max min sort startswith endswith contains indexof substring lower upper trim "
    "trim_space trim_left trim_right trim_prefix trim_suffix replace split concat sprintf to_number abs "
    "union intersection"
)
_DOTTED = (
    "array.concat array.slice object.get object.keys object.union object.remove semver.compare "
    "semver.is_valid regex.match regex.split regex.find_n regex.find_all_string_submatch_n regex.replace "
    "json.unmarshal json.is_valid base64.decode crypto.sha256"
)
#: By how many arguments they take: whatever else the engine has and may fail.
_TRIED = {
    1: "array.reverse base64.encode base64.is_valid base64url.decode base64url.encode "
    "base64url.encode_no_pad bits.negate ceil floor glob.quote_meta hex.decode hex.encode "
    "json.verify_schema net.cidr_expand net.cidr_is_valid object.union_n round strings.reverse "
    "time.clock time.date time.format time.parse_duration_ns time.parse_rfc3339_ns time.weekday trace "
    "units.parse units.parse_bytes urlquery.decode urlquery.decode_object urlquery.encode "
    "urlquery.encode_object uuid.parse uuid.rfc4122 yaml.is_valid yaml.unmarshal",
    2: "bits.and bits.lsh bits.or bits.rsh bits.xor format_int graph.reachable graph.reachable_paths "
    "indexof_n json.filter json.marshal_with_options json.match_schema json.patch json.remove "
    "net.cidr_contains numbers.range object.filter rand.intn strings.any_prefix_match "
    "strings.any_suffix_match strings.count strings.replace_n time.diff time.parse_ns",
    3: "glob.match numbers.range_step",
    4: "regex.template_match time.add_date",
}
TRIED = {name: count for count, names in _TRIED.items() for name in names.split()}
#: Builtins that are directed, and the function of ours in the place of each.
TARGETS = {
    **{name: f"{name}_" for name in _PLAIN.split()},
    **{name: name.replace(".", "_") for name in _DOTTED.split()},
    **{name: f"tried_{name.replace('.', '_')}" for name in TRIED},
}
_CALL = re.compile(r'("(?:[^"\\\n]|\\.)*"|`[^`]*`|#[^\n]*)|(?<![\w.])([a-z][\w.]*+)\(')
_DEFINITION = re.compile(r"^[ \t]*+(?:default[ \t]+)?([a-z][\w.]*+)\(", re.MULTILINE)
_DIRECTED = re.compile(rf"{re.escape(_PACKAGE)}\.(\w+)")

#: What the syntax tree calls an operator, and the function in its place.
_OPERATORS = {
    "Add": "plus", "Sub": "minus", "Mul": "times", "Div": "divided", "Mod": "remainder",
    "Union": "either", "Intersection": "both",
}  # fmt: skip
_SIGN = re.compile(r"[-+*/%&|]")
#: The syntax tree of a longer text, without the lists that tools write, takes too much memory.
_LONGEST = 64 << 10


def directed(text: str) -> str:
    """Return the document with its calls directed to the lenient builtins."""
    own = _defined(text)

    def target(found: re.Match[str]) -> str:
        name = found.group(2)
        if name not in TARGETS or name in own:
            return found.group()
        return f"{_PACKAGE}.{TARGETS[name]}("

    return _CALL.sub(target, text)


def _defined(text: str) -> set[str]:
    """Return the names that are defined outside of any body."""
    clean = bare(text)
    return {
        found.group(1)
        for found in _DEFINITION.finditer(clean)
        if found.group(1) in TARGETS
        and clean.count("{", 0, found.start()) == clean.count("}", 0, found.start())
    }


def may_have_operators(text: str) -> bool:
    """Say whether there could be an operator; what tools generate has none."""
    return len(text) <= _LONGEST and _SIGN.search(bare(text)) is not None


def without_operators(document: dict[str, Any]) -> str:
    """Return a parsed document's text with functions in place of arithmetic and of sets' operators."""
    data = document["source"]["contents"].encode()
    edits: list[tuple[int, int, int, bytes]] = []
    for name, start, between, end in _operations(document["ast"]):
        # Between the operands: parentheses, comments, and the one operator.
        space = re.sub(rb"#[^\n]*", lambda comment: b" " * len(comment[0]), data[slice(*between)])
        sign = _SIGN.search(space.decode())
        assert sign is not None, name
        # Where two begin at one place the longer one is outside.
        edits.append((start, 0, -end, f"{_PACKAGE}.{name}(".encode()))
        edits.append((between[0] + sign.start(), 1, 0, b","))
        edits.append((end, 0, 0, b")"))
    parts, done = [], 0
    for at, length, _, put in sorted(edits, key=lambda edit: edit[:3]):
        parts += [data[done:at], put]
        done = at + length
    return b"".join([*parts, data[done:]]).decode()


def _operations(tree: Any) -> Iterator[tuple[str, int, tuple[int, int], int]]:
    """Yield the function, the beginning, the place between the operands, and the end of each."""
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, list):
            todo += node
        elif isinstance(node, dict):
            todo += node.values()
            if node.get("op") in _OPERATORS and "lhs" in node:
                start, end = _extent({"": node})
                between = _extent(node["lhs"])[1], _extent(node["rhs"])[0]
                yield _OPERATORS[node["op"]], start, between, end


def _extent(expression: dict[str, Any]) -> tuple[int, int]:
    """Return where an expression begins and ends. The engine leaves a text's quotes out."""
    ((kind, node),) = expression.items()
    start, end = node["span"]["start"], node["span"]["end"]
    if kind in ("String", "RawString"):
        return start - 1, end + 1
    if "lhs" in node and "rhs" in node:
        return min(start, _extent(node["lhs"])[0]), max(end, _extent(node["rhs"])[1])
    return start, end


def module() -> str:
    """Return the module that has those which are guarded, and the operators."""
    return read_module("lenient")


def modules_for(text: str) -> Iterator[tuple[str, str]]:
    """Yield the modules that a directed document needs: name and text."""
    needed = set(_DIRECTED.findall(text))
    if not needed:
        return
    yield "lenient.rego", module()
    for name, count in TRIED.items():
        function = TARGETS[name]
        if function in needed:
            arguments = ", ".join("abcd"[:count])
            yield (
                f"lenient/{name}.rego",
                f"package uvmd.lenient\n\n{function}({arguments}) := {name}({arguments})"
                f' if uvmd.answers("{name}", [{arguments}])\n',
            )


def is_json(text: object) -> bool:
    """Say whether this is the text of one JSON value."""
    if not isinstance(text, str):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True

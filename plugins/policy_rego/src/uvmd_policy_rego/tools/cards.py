"""What a policy declares as chapters of cards, each a list of facts in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from uvmd_policy_rego.tools import words
from uvmd_policy_rego.tools.check import SWITCHES
from uvmd_policy_rego.tools.description import Description, Item, Point

#: What each switch is about, and what holds when it is off.
_SWITCH_WORDS: Final = {
    "allow_properties_access": ("list processes and read statistics", "may not"),
    "allow_dump_stacks": ("read the agent's stacks", "may not"),
    "allow_runtime_logging": ("receive the agent's log", "may not: it is thrown away"),
    "allow_host_network": ("put containers into the VM's own network", "may not"),
    "allow_environment_variable_dropping": ("name variables without a rule; they are left out", "may not"),
    "allow_unencrypted_scratch": ("let containers write to unencrypted disks", "may not"),
    "allow_capability_dropping": ("ask for too many capabilities; they are left out", "may not"),
}
_ANSWERS: Final = {
    "allow": "always allowed, whatever is asked",
    "deny": "always denied",
    "own": "decided by a rule of the policy's own: read it",
    "default_allow": "always allowed: the policy is older than this question",
    "default_deny": "always denied: the policy is older than this question",
    "missing": "always denied: the policy has no rule for it",
    "other": "answered by a rule that is meant for something else",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """A label and what is so: a sentence, and lines of a thing (in the policy's spelling) and its words."""

    label: str
    text: str
    lines: tuple[tuple[str, str], ...] = ()
    #: ``risk``: gives much; ``strict``: gives nothing; else empty.
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """One container, process, signer: its facts."""

    anchor: str
    title: str
    code: str
    line: int
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Chapter:
    """Cards of one kind."""

    anchor: str
    title: str
    intro: str
    cards: tuple[Card, ...]


def chapters(description: Description) -> Iterator[Chapter]:
    """Yield the chapters; one that has no cards is not worth showing."""
    yield Chapter(
        "containers",
        "Containers that may run",
        "Each may run any number of times. A request must fit one of them in everything; layers are"
        " compared by the root hash of their content.",
        tuple(_container(one) for one in description.containers),
    )
    yield Chapter(
        "processes",
        "Processes in the VM, beside the containers",
        "They run as root in the VM itself.",
        tuple(_process(one) for one in description.items("external_processes")),
    )
    yield Chapter(
        "signers",
        "Who may add to this policy",
        "A fragment is a document that one of these has signed. The host chooses which of them to load.",
        tuple(_import(one) for one in description.items("fragments")),
    )
    yield Chapter(
        "ledgers",
        "Who may name transparency ledgers",
        "A trust list gives the keys by which receipts of a ledger are checked.",
        tuple(_trust_list(one) for one in description.items("transparency_trust_lists")),
    )
    yield Chapter(
        "platform",
        "What every container may have besides",
        "A container may use what one of these gives, not several at once.",
        tuple(_platform_rule(one) for one in description.items("platform_rules")),
    )
    if not description.is_fragment:
        yield Chapter(
            "host",
            "What else the host may do",
            "Beyond starting the containers above.",
            (_switches(description), *_odd_points(description)),
        )


def _container(item: Item) -> Card:
    one = item.value or {}
    return Card(
        f"container-{item.index}",
        item.name or f"container {item.index + 1}",
        words.command(one.get("command")),
        item.line,
        tuple(_container_facts(one)),
    )


def _container_facts(one: dict[str, Any]) -> Iterator[Fact]:
    yield Fact("Directory", str(one.get("working_dir")))
    yield Fact("Runs as", words.user(one.get("user")))
    elevated = one.get("allow_elevated") not in (False, None)
    if elevated:
        yield Fact("Privileged", "yes, if the host asks: devices of the VM and writable /sys", tone="risk")
    text, lines = words.capabilities(one)
    tone = "strict" if text == "none at all" else ""
    yield Fact("Capabilities", text, tuple((line, "") for line in lines), tone)
    setuid = one.get("no_new_privileges") is False
    yield Fact(
        "New rights",
        "programs may gain some (setuid)" if setuid else "programs can gain none (no_new_privileges)",
        tone="" if setuid else "strict",
    )
    profile = one.get("seccomp_profile_sha256")
    held = f"held by the profile with SHA-256 {profile}"
    yield Fact("System calls", held if profile else "not filtered: no seccomp profile")
    stdio = one.get("allow_stdio_access")
    yield Fact(
        "Input and output",
        "the host reads what it prints and writes what it reads" if stdio else "closed to the host",
        tone="" if stdio else "strict",
    )
    rules = [words.env_rule(rule) for rule in _list(one.get("env_rules"))]
    yield Fact("Environment", "no variable" if not rules else "these variables, and no others", tuple(rules))
    mounts = [words.mount(mount) for mount in _list(one.get("mounts"))]
    usual = "the usual ones (/proc, /dev, /sys, network files)"
    yield Fact("Mounts", f"{usual} and these" if mounts else f"{usual} alone", tuple(mounts))
    execs = _list(one.get("exec_processes"))
    lines_of = [(words.command(p.get("command")), _exec_words(p)) for p in execs if isinstance(p, dict)]
    text = "the host may start these in it, with its user and environment" if execs else "nothing"
    yield Fact("May be run in it", text, tuple(lines_of), "" if execs else "strict")
    yield Fact("Signals", words.signals(one.get("signals")))
    layers = [(str(layer), "") for layer in _list(one.get("layers"))]
    yield Fact("Content", f"{len(layers)} layer(s), base first, by root hash", tuple(layers))


def _exec_words(process: dict[str, Any]) -> str:
    return f"signals: {words.signals(process.get('signals') or [])}"


def _process(item: Item) -> Card:
    one = item.value or {}
    facts = (
        Fact("Directory", str(one.get("working_dir"))),
        Fact("Runs as", "root, in the VM itself", tone="risk"),
        Fact("Environment", "these variables", tuple(map(words.env_rule, _list(one.get("env_rules"))))),
        Fact("Input and output", f"{'open' if one.get('allow_stdio_access') else 'closed'} to the host"),
    )
    command = words.command(one.get("command"))
    return Card(f"process-{item.index}", f"process {item.index + 1}", command, item.line, facts)


def _import(item: Item) -> Card:
    one = item.value or {}
    facts = [
        Fact("Signer", words.issuer(one.get("issuer")), ((str(one.get("issuer")), ""),)),
        Fact("Feed", f"{one.get('feed')}, version (SVN) {one.get('minimum_svn')} or later"),
        Fact("May add", words.includes(one.get("includes")), tone="risk"),
    ]
    receipts = _list(one.get("required_receipts"))
    facts.append(Fact("Receipts", f"needed from: {words.listed(receipts)}" if receipts else "none needed"))
    if one.get("parameters"):
        lines = tuple((str(key), f"is {value!r}") for key, value in one["parameters"].items())
        facts.append(Fact("Parameters", "its blanks are filled with these", lines))
    title, feed = f"signer {item.index + 1}", str(one.get("feed"))
    return Card(f"signer-{item.index}", title, feed, item.line, tuple(facts))


def _trust_list(item: Item) -> Card:
    one = item.value or {}
    ledgers = _list(one.get("allowed_ledgers"))
    facts = (
        Fact("Signer", words.issuer(one.get("issuer")), ((str(one.get("issuer")), ""),)),
        Fact("Subject", f"{one.get('subject')}, version (SVN) {one.get('minimum_svn')} or later"),
        Fact("Ledgers", "any", tone="risk") if "*" in ledgers else Fact("Ledgers", words.listed(ledgers)),
    )
    return Card(f"ledger-{item.index}", f"list {item.index + 1}", str(one.get("subject")), item.line, facts)


def _platform_rule(item: Item) -> Card:
    one = item.value or {}
    facts = (
        Fact("Environment", "these variables", tuple(map(words.env_rule, _list(one.get("env_rules"))))),
        Fact("Mounts", "these", tuple(map(words.mount, _list(one.get("mounts"))))),
    )
    return Card(f"platform-{item.index}", f"rule {item.index + 1}", "", item.line, facts)


def _switches(description: Description) -> Card:
    facts = []
    for name, (what, off) in _SWITCH_WORDS.items():
        value = description.flags.get(name)
        if name in description.flags and value is None:
            facts.append(Fact("Computed", f"{what}: a rule of the policy's own decides"))
            continue
        on = description.on(name)
        tone = "risk" if on and SWITCHES[name][0] == "warning" else "" if on else "strict"
        facts.append(Fact("May" if on else off.partition(":")[0].capitalize(), what, tone=tone))
    return Card("switches", "Switches", "", 0, tuple(facts))


def _odd_points(description: Description) -> Iterator[Card]:
    # That nothing is allowed about other vendors' devices is what everybody expects.
    usual = ("modify_resource", ("missing", "default_deny"))
    points = [point for point in description.points.values() if point.answer in _ANSWERS]
    odd = [point for point in points if point.name != usual[0] or point.answer not in usual[1]]
    facts = [Fact(point.name, _ANSWERS[point.answer], _source(point), _tone(point)) for point in odd]
    if facts:
        yield Card("points", "Questions decided otherwise", "", 0, tuple(facts))


def _source(point: Point) -> tuple[tuple[str, str], ...]:
    return ((point.source, f"line {point.line}"),) if point.answer in ("own", "other") else ()


def _tone(point: Point) -> str:
    return "risk" if point.answer in ("allow", "own", "default_allow", "other") else "strict"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

"""Patterns: what Go's regexp/syntax reads, refuses and takes literally, each by its rule there."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies import container, create, policy, rule
from sessions import mounted

from uvmd_policy_rego.engine import Engine, Trials
from uvmd_policy_rego.patterns import translate

compiles = Trials().compiles
ASCII = [chr(code) for code in range(128)]


def matches(pattern: str, text: str) -> bool | None:
    """Whether the pattern matches all of the text, None if it has no meaning."""
    translated = translate(f"^(?:{pattern})$")
    if translated is None or not compiles(translated):
        return None
    engine = Engine({}, {})
    engine.add_module("t.rego", "package t\nx := regex.match(input.pattern, input.value)\n")
    engine.set_input(json.dumps({"pattern": translated, "value": text}))
    return bool(engine.find("data.t.x")[0])


def held(pattern: str) -> str:
    """The characters of ASCII that a class holds."""
    return "".join(one for one in ASCII if matches(pattern, one))


DIGITS, LOWER = "0123456789", "abcdefghijklmnopqrstuvwxyz"
WORD = DIGITS + LOWER.upper() + "_" + LOWER
#: parseClass: a class within the class is taken whole, and the loop goes on; only what
#: parseClassChar has read can begin a range. PerlX: "- is okay anywhere".
AFTER_A_CLASS = [
    (r"[\w-.]", "-." + WORD),
    (r"[\w-\d]", "-" + WORD),
    (r"[\d-a]", "-" + DIGITS + "a"),
    (r"[\d-a-c]", "-" + DIGITS + "abc"),
    (r"[\d--/]", "-./" + DIGITS),
    (r"[\s-a]", "\t\n\f\r -a"),
    (r"[^\w-]", "".join(one for one in ASCII if one not in WORD + "-")),
    (r"[^\w-.]", "".join(one for one in ASCII if one not in WORD + "-.")),
    (r"[\pN-x]", "-" + DIGITS + "x"),
    (r"[\p{Nd}-x]", "-" + DIGITS + "x"),
    (r"[\P{L}-]", "".join(one for one in ASCII if not one.isalpha())),
    ("[[:digit:]-x]", "-" + DIGITS + "x"),
    ("[[:^print:]-x]", "".join(one for one in ASCII if not " " <= one <= "~" or one in "-x")),
    (r"[\D-5]", "".join(one for one in ASCII if one not in DIGITS or one == "5")),
]
#: parseClass: a range is parseClassChar, "-" and parseClassChar; a "-" before "]", at the
#: beginning and behind a range is itself. A "]" that is first is itself.
RANGES = [
    ("[a-]", "-a"),
    ("[-a]", "-a"),
    ("[^-a]", "".join(one for one in ASCII if one not in "-a")),
    ("[--0]", "-./0"),
    ("[---]", "-"),
    ("[--]", "-"),
    ("[+--]", "+,-"),
    ("[a-c-e]", "-abce"),
    ("[]-a]", "]^_`a"),
    ("[]a]", "]a"),
    ("[^]a]", "".join(one for one in ASCII if one not in "]a")),
    ("[^^]", "".join(one for one in ASCII if one != "^")),
    (r"[\x41-\x43]", "ABC"),
    (r"[\x{41}-\x{0000043}]", "ABC"),
    (r"[\101-\103]", "ABC"),
    (r"[A-\103]", "ABC"),
    (r"[\--0]", "-./0"),
    (r"[+-\.]", "+,-."),
    (r"[\t-\r]", "\t\n\v\f\r"),
    (r"[\]-\^]", "]^"),
    ("[a&&b~~[]", "&[ab~"),
    ("[[:]", ":["),  # parseNamedClass: looks for ":]" behind the "[:"
]


@pytest.mark.parametrize(("pattern", "characters"), AFTER_A_CLASS + RANGES)
def test_a_class_holds_what_it_holds_in_go(pattern: str, characters: str) -> None:
    assert held(pattern) == "".join(sorted(characters))


@pytest.mark.parametrize(
    "pattern",
    [
        # parseClassChar of a range's end: parseEscape knows no \d and no \p (ErrInvalidEscape).
        *(rf"[+-\{one}]" for one in "dDsSwW"), r"[ -\d]", r"[!-\pL]", r"[!-\PL]", r"[!-\p{Greek}]",
        # parseClass: hi < lo (ErrInvalidCharRange). "[" of "[:" is the end, and before "a".
        "[z-a]", r"[\x42-\x41]", r"[a-\.]", "[a--]", r"[b-\141]", "[a-[:digit:]]",
        # parseNamedClass: a name that is none (ErrInvalidCharRange); parseUnicodeClass likewise.
        "[[:digits:]]", r"[\p{Nonsense}]", r"[\p]", r"\p{Greek", r"\p{greek}", r"\pX",
        # Names of the engine alone.
        r"\p{Alphabetic}", r"[\p{Emoji}]", r"\P{Lowercase}", r"\p{XID_Start}", r"\p{ASCII}",
        # parseClass: no end (ErrMissingBracket), also where only the first "]" is there.
        "[]", "[^]", "[a", "[a-", "[\\", r"[\x4]",
        # parseEscape (ErrInvalidEscape): back references, letters without a meaning, too large.
        r"[\8]", r"[\1]", r"[\b]", r"[\Q.\E]", r"\E", r"\C", r"\x{}", r"\x{110000}", r"\xg0", "a\\",
    ],
)  # fmt: skip
def test_a_class_that_go_refuses_has_no_meaning(pattern: str) -> None:
    assert matches(pattern, "") is None


@pytest.mark.parametrize(
    "pattern",
    [
        # repeat: repeatIsValid(re, 1000), the product along the nesting; an open end counts its minimum.
        "(?:a{500}){3}", "(a{500}){3}", "(?:a{2}){501}", "(?:(?:a{10}){10}){11}", "(?:a{500,}){3}",
        "(?:a{500}){0,3}", "(?:a{500}){3,}", "(?:b|a{500}c){3}", "(?:(a{500})*){3}", "(?:(?:a{501})+){2}",
        "(?:a{2}){1000}", "((((((((((x{2}){2}){2}){2}){2}){2}){2}){2}){2}){2})", "(?:a{501}()){2}",
        r"(?:a{500})\Q\E{3}",
        # parse: min or max > 1000, min > max (ErrInvalidRepeatSize), however many digits.
        "a{1001}", "a{1001,}", "a{1,1001}", "a{10000}", "a{100000000000}", "a{3,2}",
        # repeat: no stacks of operators (ErrInvalidRepeatOp), something to repeat (ErrMissingRepeatArgument).
        "a**", "a{2}{3}", "a*?*", "a{2}*", "a???", "|*", "(*)", "(?:+)",
        # parseRightParen (ErrUnexpectedParen), and what is left open (ErrMissingParen).
        "a)", "a)(b", "(a", "((a)",
        # checkHeight: 1000 levels; the engine stops before.
        "(" * 1001 + "a" + ")" * 1001,
    ],
)  # fmt: skip
def test_a_repetition_that_go_refuses_has_no_meaning(pattern: str) -> None:
    translated = translate(pattern)
    assert translated is None or not compiles(translated)


@pytest.mark.parametrize(
    ("pattern", "text", "other"),
    [
        ("(?:a{3}){333}", "a" * 999, "a" * 1002),  # 999 of 1000
        ("(?:a{500}){2}", "a" * 1000, "a" * 500),
        ("a{500}(?:b{500}){2}", "a" * 500 + "b" * 1000, "a"),  # beside each other, not nested
        ("(?:a{500}|b){2}c{3}", "bbccc", "bccc"),
        ("(?:a{500}){0,}b{9}", "b" * 9, "b" * 8),
        ("(?:(?:a{500}){0}b){3}", "bbb", "abbb"),  # repeatIsValid: Max == 0 is valid
        ("(?:a{9}){1,1}", "a" * 9, "a" * 18),
        ("a{2}?b??", "aa", "a"),
        ("a{0,2}", "a", "aaa"),
        # parseInt: no leading zeros. parseRepeat: what counts nothing is text.
        ("a{01}", "a{01}", "a"),
        ("a{0,01}", "a{0,01}", "a"),
        ("a{,2}", "a{,2}", "a"),
        ("a{ 2}", "a{ 2}", "aa"),
        ("{a}", "{a}", "a"),
        ("}{", "}{", "{}"),
        # parse, case 'Q': up to \E or the end; each character an item, so the last is repeated.
        (r"\Qa.+\E+", "a.++", "a.+a.+"),
        (r"\Q[\d]\E", r"[\d]", "1"),
        (r"A=\Q\E", "A=", "A"),
        # parseEscape: whatever is no letter or digit is itself.
        (r"\_\-\ \/\<\>\'\"\~", "_- /<>'\"~", ""),
        (r"\x41\x{1F600}\0\012\a", "A\U0001f600\0\n\a", "A"),
        ("(" * 200 + "a" + ")" * 200, "a", "b"),
        # parseUnicodeClass: a caret in the braces, and P, negate.
        (r"\p{^Greek}\P{^Greek}", "a\u03b1", "\u03b1a"),
        (r"\p{Lu}\PL", "B1", "b1"),
        (r"[\p{Nd}\P{L}]a", "1a", "aa"),
        (r"\p{Any}", "\u03b1", ""),
    ],
)
def test_a_pattern_matches_what_it_matches_in_go(pattern: str, text: str, other: str) -> None:
    assert matches(pattern, text) is True
    assert matches(pattern, other) is False


def test_half_of_a_surrogate_pair_has_no_meaning() -> None:
    assert translate("a\ud800") is None
    assert translate("[\ud800-a]") is None


@given(st.sampled_from([r"\d", r"\w", r"\s", r"\D", r"\pL", "[:alpha:]"]), st.sampled_from(ASCII))
def test_a_hyphen_behind_a_class_makes_no_range(name: str, end: str) -> None:
    if end in "\\]":
        end = "\\" + end
    # A second hyphen would be the range's own.
    if end != "-":
        assert translate(f"[{name}-{end}]") == translate(f"[{name}\\-{end}]") is not None


def test_variables_are_held_against_classes_with_hyphens() -> None:
    rules = [rule(r"NAME=[\s-a]*", "re2"), rule(r"HOST=[\w-.]+", "re2"), rule(r"N=[+-\d]+", "re2")]
    session = mounted(policy(container(env_rules=rules)))

    def allowed(*envs: str) -> bool:
        asked = create(envList=[*envs])
        answer = session.enforce("create_container", asked, json.dumps(asked))
        return answer.allowed and answer.result["env_list"] == [*envs]

    assert not allowed("NAME=/BIN;X=1")
    assert not allowed("N=+")
    assert allowed("HOST=a-b.example", "NAME=a-a")

from __future__ import annotations

from uvmd.observe.stacks import places_of, stack_of


def deep(levels: int) -> None:
    if levels:
        deep(levels - 1)
    raise KeyError("s3cr3t")


def caught(levels: int) -> BaseException:
    try:
        deep(levels)
    except KeyError as error:
        try:
            raise RuntimeError("s3cr3t") from error
        except RuntimeError as outer:
            return outer
    raise AssertionError


def test_a_stack_is_functions_and_lines_without_any_value() -> None:
    text = stack_of(caught(2))
    assert text.startswith("RuntimeError\n")
    assert "KeyError\n" in text
    assert "deep (test_stacks.py:" in text
    assert "s3cr3t" not in text
    assert "raise KeyError" not in text


def test_of_a_very_deep_stack_the_inner_end_is_shown() -> None:
    cause = caught(500).__cause__
    assert cause is not None
    places = places_of(cause)
    assert len(places) == 64
    assert places[-1].function == "deep"
    assert places[-1].file == "test_stacks.py"


def test_a_ring_of_errors_comes_to_an_end() -> None:
    one, two = RuntimeError(), RuntimeError()
    one.__cause__, two.__cause__ = two, one
    assert stack_of(one).count("RuntimeError") == 16

"""The only module that knows which Rego engine answers: regorus, by its Python binding.

What is kept here is how the binding behaves: it is strict (a builtin given a wrong type
ends the query), an engine may be used by the thread alone that made it, it has no way
to take a module out again (hence :meth:`Engine.clone`), and a change of ``data`` costs
a new preparation of everything, so data stays as it is and what changes is read through
extension functions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import regorus  # type: ignore[import-untyped]

#: Policies that tools generate have lines of many kilobytes.
_LIMITS = {"max_col": 64 << 20, "max_file_bytes": 64 << 20, "max_lines": 8 << 20}
#: Kept compiled patterns; a large policy has hundreds.
_KEPT_PATTERNS = 4096

Function = tuple[int, Callable[..., Any]]


class EngineError(Exception):
    """A module does not compile or a query was ended by an error."""


class Engine:
    """Modules and data, and questions about them. Not thread-safe: one question at a time.

    Raises:
        EngineError: of data, see :meth:`add_data`.
    """

    def __init__(self, functions: Mapping[str, Function], data: Mapping[str, Any]) -> None:
        self._engine = regorus.Engine()
        self._engine.set_policy_length_config(**_LIMITS)
        regorus.set_cache_config(regex=_KEPT_PATTERNS)
        for name, (arity, function) in functions.items():
            self._engine.add_extension(name, arity, function)
        self.add_data(data)
        self._no_rules: set[str] = set()
        self._modules: set[str] = set()

    def clone(self) -> Engine:
        """Return an engine with the same modules and data, which may get more."""
        copy = object.__new__(Engine)
        copy._engine = self._engine.clone()
        copy._no_rules = set()
        copy._modules = set(self._modules)
        return copy

    def add_module(self, name: str, text: str, *, old: bool = False) -> str:
        """Parse a module and return its package, ``data.policy`` say; ``old``: in Rego v0.

        Raises:
            EngineError: it does not parse.
        """
        self._no_rules.clear()
        try:
            self._engine.set_rego_v0(old)
            package = str(self._engine.add_policy(name, _broken(text)))
            self._modules.add(name)
            return package
        except BaseException as error:
            raise _engine_error(error) from None
        finally:
            self._engine.set_rego_v0(False)

    def syntax(self) -> Any:
        """Return the syntax trees of the modules, with their places: for tools that read policies."""
        return json.loads(self._engine.get_ast_as_json())

    def has_module(self, name: str) -> bool:
        """Say whether a module of this name was added."""
        return name in self._modules

    def add_data(self, data: Mapping[str, Any]) -> None:
        """Put more data beside what is there. Slow: the next query prepares everything anew.

        Raises:
            EngineError: it is there already, or no JSON to the engine: infinite, half of a
                surrogate pair, nested too deeply.
        """
        try:
            self._engine.add_data_json(json.dumps(data))
        except BaseException as error:
            raise EngineError(f"the engine does not take this data: {_engine_error(error)}") from None

    def replace_data(self, data: Mapping[str, Any]) -> None:
        """Put other data in place; slow, and raises, as :meth:`add_data`."""
        self._engine.clear_data()
        self.add_data(data)

    def set_input(self, text: str) -> None:
        """Set ``input`` to a JSON value."""
        try:
            self._engine.set_input_json(text)
        except BaseException as error:
            raise _engine_error(error) from None

    def find(self, path: str) -> list[Any]:
        """Return ``[value]`` of a document such as ``data.policy.reason``, ``[]`` if undefined.

        Raises:
            EngineError: the evaluation was ended by an error.
        """
        try:
            # Five times as fast as a query, which is parsed each time. As JSON: the binding's
            # own values do not have sets of objects, and numbers of 64 bits at most.
            if path not in self._no_rules:
                text = self._engine.eval_rule_as_json(path)
                if text != _UNDEFINED:
                    return [json.loads(text)]
        except RuntimeError as error:
            if not str(error).startswith("not a valid rule path"):
                raise _engine_error(error) from None
            self._no_rules.add(path)
        # A panic of native code is a BaseException; it is an error of this query as well.
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise _engine_error(error) from None
        return self._query(path)

    def _query(self, path: str) -> list[Any]:
        try:
            found = json.loads(self._engine.eval_query_as_json(path)).get("result")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise _engine_error(error) from None
        return [found[0]["expressions"][0]["value"]] if found else []


#: How a rule says it, and a rule whose value is this very text; a query tells them apart.
_UNDEFINED = '"<undefined>"'

#: A line of 65,536 columns makes the engine panic; some tools write a policy's lists in one.
_LONGEST_LINE = 32768
_WRAP = 4096
_TOKENS = re.compile(r'"(?:[^"\\\n]|\\.)*"|`[^`]*`|#[^\n]*|,|\n|[^",#`\n]+|.')


def _broken(text: str) -> str:
    """Return the text with its longest lines broken after commas, where Rego does not mind."""
    if not any(len(line) > _LONGEST_LINE for line in text.split("\n")):
        return text
    parts, column = [], 0
    for token in _TOKENS.findall(text):
        parts.append(token)
        column = 0 if token == "\n" else column + len(token)
        if token == "," and column > _WRAP:
            parts.append("\n")
            column = 0
    return "".join(parts)


class Trials:
    """Patterns and calls tried ahead: what fails in a query ends it."""

    def __init__(self) -> None:
        self._engine = regorus.Engine()
        self._known: dict[str, bool] = {}

    def compiles(self, pattern: str) -> bool:
        """Say whether the engine accepts the pattern."""
        known = self._known.get(pattern)
        if known is None:
            if len(self._known) >= _KEPT_PATTERNS:
                self._known.clear()
            known = self._known[pattern] = self._try(pattern)
        return known

    def _try(self, pattern: str) -> bool:
        try:
            self._engine.set_input({"pattern": pattern})
            self._engine.eval_query('regex.match(input.pattern, "")')
        except RuntimeError:
            return False
        return True

    def answers(self, builtin: str, arguments: list[Any]) -> bool:
        """Say whether a builtin takes these arguments."""
        places = ", ".join(f"input.arguments[{place}]" for place in range(len(arguments)))
        try:
            self._engine.set_input({"arguments": arguments})
            # As JSON: Python's sets do not take every value.
            self._engine.eval_query_as_json(f"{builtin}({places})")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # a panic of native code is no Exception
            self._engine = regorus.Engine()
            return False
        return True


def _engine_error(error: BaseException) -> EngineError:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        raise error
    text = str(error).split("\nStack backtrace", 1)[0].strip()
    if "multiple outputs" in text or "rule conflicts with" in text:
        text = "eval_conflict_error: complete rules must not produce multiple outputs: " + text
    return EngineError(text or type(error).__name__)

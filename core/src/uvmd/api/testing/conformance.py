"""What every plugin with resource types must do, as tests that its author inherits.

::

    class TestConformance(Conformance):
        entry_point = "lamp"
        config = LampConfig(max_lamps=4)

        def examples(self, folder):
            settings = {"Path": str(folder / "lamp")}
            return [Example("example.com/Lamp", add=settings, remove=settings)]

An example must be good: the conformance of what is refused is the author's to test. The
requests run through core's own pipeline on the machine where the tests run; what needs
hardware takes an environment of its own (:meth:`Conformance.environment`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from uvmd.api.environment import Environment
from uvmd.api.resources import Handler
from uvmd.api.testing.fakes import fake_environment
from uvmd.api.testing.faults import Faults
from uvmd.api.testing.workbench import Workbench
from uvmd.errors import PolicyDenied
from uvmd.linux import proc
from uvmd.plugin_manager.inspection import config_class, handler_class, resolve_all
from uvmd.plugin_manager.plugins import Plugins, load_plugins

#: What a start must not have to import: each costs 5 to 50 ms and as many MiB.
_HEAVY = ("asyncio", "cryptography", "importlib.metadata", "pydantic", "pyroute2", "requests", "subprocess")


class Example(NamedTuple):
    """One device, added and removed: the settings as a host sends them."""

    resource_type: str
    add: dict[str, Any]
    remove: dict[str, Any]


class Conformance:
    """Inherit from it and say what the plugin is; see the module."""

    #: The plugin's name, which is its entry point's.
    entry_point: str
    #: An instance of its section's model, None if it has none.
    config: Any = None
    #: The page that must name its types and settings; a README.md above the test by default.
    readme: Path | None = None

    def examples(self, folder: Path) -> Sequence[Example]:
        """Return devices to try; ``folder`` is empty and for this test alone."""
        raise AssertionError("examples() says which devices to try")

    def environment(self) -> Environment:
        """Return what the handlers are made with."""
        return fake_environment(self.config)

    def state(self, folder: Path) -> object:
        """Return whatever an added device changes; equal states are equal guests.

        By default: what lies below the folder, and what is mounted there.
        """
        walk = os.walk(folder)
        files = sorted(os.path.join(top, name) for top, *both in walk for names in both for name in names)
        return {"files": files, "mounts": sorted(proc.mounts_at_or_below(str(folder)))}

    # The tests

    def test_everything_that_it_declares_can_be_imported(self) -> None:
        assert len(resolve_all(self._plugins())) == 1

    def test_a_start_imports_nothing_heavy_for_it(self) -> None:
        module = self._plugins().installed[self.entry_point].reference.partition(":")[0]
        script = f"import sys; import {module}; print(*sys.modules)"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        heavy = [name for name in _HEAVY if name in done.stdout.split()]
        assert not heavy, f"{module} imports {', '.join(heavy)}: import them where they are used"

    def test_its_page_names_each_resource_type_and_each_setting(self) -> None:
        page = self._page()
        text = page.read_text(encoding="utf-8")
        declared = self._plugins().declared[self.entry_point]
        names = [type_.name for type_ in declared.resource_types]
        if declared.config_model:
            names += config_class(declared).model_fields
        missing = [name for name in names if name not in text]
        assert not missing, f"{page} does not mention {', '.join(missing)}"

    def test_what_is_added_can_be_removed_and_the_guest_is_as_before(self, tmp_path: Path) -> None:
        for example, bench in self._each(tmp_path):
            before = self.state(tmp_path)
            bench.add(example.resource_type, example.add)
            assert self.state(tmp_path) != before, "the example changes nothing that state() shows"
            bench.remove(example.resource_type, example.remove)
            assert self.state(tmp_path) == before
            assert bench.mounted() == []

    def test_a_policy_that_says_no_is_obeyed_before_anything_changes(self, tmp_path: Path) -> None:
        for example, bench in self._each(tmp_path):
            before = self.state(tmp_path)
            enforcer = bench.be_strict({"modify_resource": False})
            with pytest.raises(PolicyDenied):
                bench.add(example.resource_type, example.add)
            assert self.state(tmp_path) == before
            assert enforcer.points == ["modify_resource"]

    def test_a_policy_that_says_no_keeps_what_was_added(self, tmp_path: Path) -> None:
        for example, bench in self._each(tmp_path):
            bench.add(example.resource_type, example.add)
            added = self.state(tmp_path)
            enforcer = bench.be_strict({"modify_resource": False})
            with pytest.raises(PolicyDenied):
                bench.remove(example.resource_type, example.remove)
            assert self.state(tmp_path) == added
            enforcer.script.clear()
            bench.remove(example.resource_type, example.remove)

    def test_whichever_step_of_adding_fails_the_guest_is_as_before(self, tmp_path: Path) -> None:
        faults = Faults(lambda: self.state(tmp_path))
        for example, bench in self._each(tmp_path, faults.watch):
            with faults.installed():
                steps = faults.each_step(
                    lambda: None,
                    partial(bench.add, example.resource_type, example.add),
                    partial(bench.remove, example.resource_type, example.remove),
                )
            assert steps, "apply has no step that can fail: does it register what undoes it?"
            assert bench.gate.degraded is None

    def test_a_second_remove_does_nothing(self, tmp_path: Path) -> None:
        for example, bench in self._each(tmp_path):
            bench.add(example.resource_type, example.add)
            bench.remove(example.resource_type, example.remove)
            before = self.state(tmp_path)
            bench.remove(example.resource_type, example.remove)
            assert self.state(tmp_path) == before

    # Parts

    def _plugins(self) -> Plugins:
        section = {} if self.config is None else {self.entry_point: self.config.model_dump()}
        return load_plugins(allow=[self.entry_point], sections=section)

    def _page(self) -> Path:
        if self.readme is not None:
            return self.readme
        here = Path(sys.modules[type(self).__module__].__file__ or ".").resolve()
        found = next((one / "README.md" for one in here.parents if (one / "README.md").exists()), None)
        assert found is not None, "there is no README.md above the test: say readme = Path(...)"
        return found

    def _each(
        self, folder: Path, around: Callable[[Handler], Handler] = lambda handler: handler
    ) -> Iterator[tuple[Example, Workbench]]:
        declared = self._plugins().declared[self.entry_point]
        examples = self.examples(folder)
        untried = {type_.name for type_ in declared.resource_types} - {one.resource_type for one in examples}
        assert not untried, f"examples() has none for {', '.join(sorted(untried))}"
        for example in examples:
            environment = self.environment()
            handlers = {
                type_.name: around(handler_class(declared.plugin, type_)(environment))
                for type_ in declared.resource_types
            }
            yield example, Workbench(declared.resource_types, environment, handlers=handlers)

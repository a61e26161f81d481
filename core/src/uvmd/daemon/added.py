"""Properties of the VM that plugins add (the hook ``vm_properties``), beside core's own ``uvmd.*``.

The host has asked the policy before it comes here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from uvmd.api.services import VmProperty, VmView
from uvmd.errors import Failed, UvmdError

log = logging.getLogger(__name__)


class Added:
    """One of them; ``make`` imports and makes what serves it, when it is first asked for."""

    def __init__(self, name: str, make: Callable[[], VmProperty], view: VmView) -> None:
        self._name = name
        self._make = make
        self._view = view
        self._mutex = threading.Lock()
        self._made: VmProperty | None = None

    def __call__(self, argument: str) -> Any:
        """Return the property.

        Raises:
            Failed: the plugin made a mistake. What it refuses is refused in its words.
        """
        try:
            with self._mutex:
                if self._made is None:
                    self._made = self._make()
            return self._made(argument, self._view)
        except UvmdError:
            raise
        except Exception as error:
            # Its text may hold anything that the plugin knows.
            kind = type(error).__name__
            log.error("a plugin's property failed", extra={"property": self._name, "error": kind})
            raise Failed(f"{self._name}: {kind} in its plugin") from error


def added(makers: dict[str, Callable[..., Any]], view: VmView) -> Iterator[tuple[str, Added]]:
    """Yield the properties by the type under which they are asked for."""
    for name, make in makers.items():
        yield f"uvmd.{name}", Added(f"uvmd.{name}", make, view)

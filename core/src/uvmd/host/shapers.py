"""The plugins' shapers: made on first use, asked for every container, in the order of their names.

The order decides nothing: two that want the same refuse the container.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any

from uvmd.api.containers import Additions, ContainerRequest, Shaper
from uvmd.errors import Failed, UvmdError
from uvmd.oci.annotations import annotations_of
from uvmd.oci.role import Role
from uvmd.oci.spec import Spec


class Shapers:
    """See the module.

    Args:
        makers: what makes each shaper, by name.
    """

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        self._makers = dict(sorted(makers.items()))
        self._mutex = threading.Lock()
        self._made: dict[str, Shaper] = {}

    def ask(self, container_id: str, role: Role, spec: Spec, strict: bool) -> list[tuple[str, Additions]]:
        """Return what each shaper adds, with its name.

        Raises:
            Failed, or another error of the tree that a shaper raised.
        """
        found = []
        for name in self._makers:
            # A copy for each: what one changes in it is nobody's business.
            request = ContainerRequest(
                container_id, role.pod_id, dict(annotations_of(spec)), copy.deepcopy(spec), strict
            )
            try:
                found.append((name, self._shaper(name).additions(request)))
            except UvmdError:
                raise
            except Exception as error:
                # Its text may quote the specification, which holds environments.
                raise Failed(f"shaper {name} failed: {type(error).__name__}") from error
        return found

    def _shaper(self, name: str) -> Shaper:
        with self._mutex:
            made = self._made.get(name)
            if made is None:
                made = self._made[name] = self._makers[name]()
            return made

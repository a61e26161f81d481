"""``Network``: adapters of a namespace, added and removed (spec containers.md 14)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from uvmd.api import Answers, Context, Environment, Found, Handler, Plan, Record, Undo, Verb, View
from uvmd_network.find import wait_for_interface
from uvmd_network.layout import plan_layout
from uvmd_network.networks import networks_of
from uvmd_network.settings import AdapterSettings, adapter_key, names_of, namespace_key

log = logging.getLogger(__name__)


class Network(Handler):
    """Asks nothing: it is exempt (core's list of exemptions says why)."""

    settings = AdapterSettings

    def __init__(self, env: Environment) -> None:
        super().__init__(env)
        self._networks = networks_of(env)

    def identity(self, settings: AdapterSettings) -> str:
        return f"nic:{adapter_key(settings.id, self.env.platform.name)}"

    def keys(self, settings: AdapterSettings, found: Found) -> Iterable[str]:
        return (f"netns:{namespace_key(settings.namespace)}",)

    def find(self, settings: AdapterSettings, verb: Verb, ctx: Context) -> Found:
        """Wait for the adapter of an Add, after everything else that it says was judged.

        Raises:
            Refused: an id, address, route or list that is none; an adapter that is known.
            Failed, DeadlineExceeded: see :func:`wait_for_interface`.
        """
        namespace_key(settings.namespace)
        if verb is Verb.REMOVE:
            return Found("")
        self._networks.refuse_known(adapter_key(settings.id, self.env.platform.name))
        plan_layout(settings.addresses, settings.routes, low_metric=False)
        names_of(settings.dns_servers, "DNSServerList")
        names_of(settings.dns_suffix, "DNSSuffix")
        deadline = min(ctx.deadline, time.monotonic() + self.env.config.adapter_timeout_s)
        return Found(wait_for_interface(self.env.platform, settings, deadline))

    def add(self, settings: AdapterSettings, found: Found, view: View, record: Record | None) -> Plan:
        (interface,) = found

        def apply(undo: Undo, answers: Answers) -> Record:
            self._networks.add(settings, interface, undo)
            return {"v": 1, "namespace": namespace_key(settings.namespace)}

        return Plan((), apply)

    def remove(self, settings: AdapterSettings, found: Found, view: View, record: Record | None) -> Plan:
        namespace = namespace_key(settings.namespace)
        key = adapter_key(settings.id, self.env.platform.name)
        if not self._networks.knows(namespace, key):
            log.warning(
                "an adapter that is not known was removed, ignoring",
                extra={"namespace": namespace, "adapter": key},
            )
            return Plan.nothing()

        def apply(undo: Undo, answers: Answers) -> None:
            self._networks.remove(namespace, key, undo)

        return Plan((), apply)

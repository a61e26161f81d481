"""The service beside the bridge: serves metrics, sends traces, each where it is configured."""

from __future__ import annotations

import logging
import threading

from uvmd import __version__
from uvmd.api import Environment, VmView
from uvmd.errors import PolicyDenied, UvmdError
from uvmd_telemetry import listening, metrics, otlp
from uvmd_telemetry.seen import HERE, Seen

log = logging.getLogger(__name__)

_PLAIN = "text/plain; charset=utf-8"


class Telemetry:
    """See the module. Implements ``api.VmService``."""

    def __init__(self, env: Environment, seen: Seen = HERE) -> None:
        self._env = env
        self._seen = seen
        self._ending = threading.Event()
        seen.keep(env.config.trace_spans)
        self._listener = listening.listen(env.config.metrics) if env.config.metrics else None

    def start(self, view: VmView) -> None:
        """Serve until stopped; at once over if neither metrics nor traces are wanted."""
        sender = None
        if self._env.config.otlp_port:
            self._seen.keep_spans = True
            sender = threading.Thread(target=self._send, args=(view,), name="traces", daemon=True)
            sender.start()
        if self._listener is not None:
            with self._listener:
                listening.serve(self._listener, lambda: self._page(view), self._ending)
        if sender is not None:
            sender.join()

    def stop(self) -> None:
        """End both."""
        self._ending.set()
        self._seen.wake()
        if self._listener is not None:
            # Closing alone does not wake a thread that waits in accept.
            try:
                self._listener.shutdown(2)
            except OSError:
                pass

    # Metrics

    def _page(self, view: VmView) -> tuple[int, str, str]:
        try:
            usage = view.properties(["uvmd.usage"])["uvmd.usage"]
        except PolicyDenied:
            return 403, _PLAIN, "the policy denies properties, and so metrics\n"
        except UvmdError as error:
            return 503, _PLAIN, f"{error}\n"
        page = metrics.render(usage, self._seen.snapshot(), view.events_dropped(), __version__)
        return 200, metrics.CONTENT_TYPE, page

    # Traces

    def _send(self, view: VmView) -> None:
        complained = False
        while not self._ending.is_set():
            self._seen.wait(self._ending, self._env.config.otlp_interval_s)
            complained = self._send_all(view, complained)
        self._send_all(view, complained=True)

    def _send_all(self, view: VmView, complained: bool) -> bool:
        """Send what waits; return whether the collector could not be reached, which is logged once."""
        while spans := self._seen.take(otlp.BATCH):
            if not view.logging_allowed():
                self._seen.was_lost(len(spans))
                continue
            try:
                otlp.send(self._env.dial, self._env.config.otlp_port, otlp.encode(spans, __version__))
                self._seen.was_sent(len(spans))
            except (OSError, otlp.NotTaken) as error:
                self._seen.was_lost(len(spans))
                if not complained:
                    log.warning("traces are not taken", extra={"error": str(error)})
                return True
        return False

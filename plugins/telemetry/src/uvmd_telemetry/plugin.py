"""What the plugin declares. Thin, because it is imported at every start of the daemon."""

from __future__ import annotations

from collections.abc import Iterable

from uvmd.api import ContainerEvent, Named, Span, hookimpl
from uvmd_telemetry import seen


@hookimpl
def config_model() -> str:
    """Where metrics are read, and where traces go, neither by default; how many are kept."""
    return "uvmd_telemetry.config:TelemetryConfig"


@hookimpl
def services() -> Iterable[Named]:
    """One service for metrics and for sending; it ends at once where neither is wanted."""
    return [Named("telemetry", "uvmd_telemetry.service:Telemetry")]


@hookimpl
def vm_properties() -> Iterable[Named]:
    """The traces that are kept, for ``uvmctl trace``."""
    return [Named("traces", "uvmd_telemetry.traces:Traces")]


@hookimpl
def cli_commands() -> Iterable[Named]:
    """``uvmctl top`` and ``uvmctl trace``."""
    return [
        Named("top", "uvmd_telemetry.cli_top:top"),
        Named("trace", "uvmd_telemetry.cli_trace:trace"),
    ]


@hookimpl
def container_event(event: ContainerEvent) -> None:
    """Count it."""
    seen.HERE.container(event.kind)


@hookimpl
def span_ended(span: Span) -> None:
    """Count requests, keep them for who looks, and queue them if traces are sent."""
    seen.HERE.span(span)

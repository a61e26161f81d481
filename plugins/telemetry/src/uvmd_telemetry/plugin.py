"""What the plugin declares. Thin, because it is imported at every start of the daemon."""

from __future__ import annotations

from collections.abc import Iterable

from uvmd.api import ContainerEvent, Named, Span, hookimpl
from uvmd_telemetry import seen


@hookimpl
def config_model() -> str:
    """Where metrics are read, and where traces go; neither by default."""
    return "uvmd_telemetry.config:TelemetryConfig"


@hookimpl
def services() -> Iterable[Named]:
    """One service for both; it ends at once where neither is wanted."""
    return [Named("telemetry", "uvmd_telemetry.service:Telemetry")]


@hookimpl
def cli_commands() -> Iterable[Named]:
    """``uvmctl top``."""
    return [Named("top", "uvmd_telemetry.cli_top:top")]


@hookimpl
def container_event(event: ContainerEvent) -> None:
    """Count it."""
    seen.HERE.container(event.kind)


@hookimpl
def span_ended(span: Span) -> None:
    """Count it, and keep it if traces are sent."""
    seen.HERE.span(span)

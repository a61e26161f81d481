"""The section ``[plugin.telemetry]``."""

from __future__ import annotations

from pydantic import field_validator

from uvmd.api import ConfigModel, Field
from uvmd_telemetry.listening import parse_address
from uvmd_telemetry.seen import KEPT_SPANS


class TelemetryConfig(ConfigModel):
    """Where metrics are read, where traces go, and how many are kept to be looked at."""

    #: ``unix:PATH`` or ``vsock:PORT``; metrics are not served if empty.
    metrics: str = ""
    #: A port of the host that takes OTLP over HTTP; traces are not sent if 0.
    otlp_port: int = Field(0, ge=0, le=0xFFFFFFFF)
    #: Spans are sent this often.
    otlp_interval_s: float = Field(5.0, ge=0.1, le=300)
    #: Spans that ``uvmctl trace`` can show, those of the newest requests; none if 0.
    trace_spans: int = Field(KEPT_SPANS, ge=0, le=100_000)

    @field_validator("metrics")
    @classmethod
    def _an_address(cls, text: str) -> str:
        if text:
            parse_address(text)
        return text

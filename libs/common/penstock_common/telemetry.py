"""Traces, JSON logs with trace ids, and their start and stop."""

import json
import logging
import sys
import threading
from datetime import UTC, datetime

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_STOP_WAIT_S = 2.0


class JsonFormatter(logging.Formatter):
    """One JSON object a line; fields given as `extra` become keys."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = format(span.trace_id, "032x")
            line["span_id"] = format(span.span_id, "016x")
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def tracer(name: str) -> trace.Tracer:
    """The tracer of one module. Without a configured exporter its spans cost next to nothing."""
    return trace.get_tracer(name)


def configure(service: str, *, log_level: str, otlp_endpoint: str | None) -> None:
    """Once per process: logs on stderr, and traces to `otlp_endpoint` if there is one."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(handlers=[handler], level=log_level.upper(), force=True)
    for chatty in ("httpx", "httpcore", "faststream", "nats", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Ids are made even when nothing is exported: logs and messages carry them.
    provider = TracerProvider(resource=Resource.create({"service.name": f"penstock-{service}"}))
    if otlp_endpoint:
        # The exporter brings in requests and protobuf: only who exports pays for them.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter(endpoint=f"{otlp_endpoint.rstrip('/')}/v1/traces", timeout=5)
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    trace.set_tracer_provider(provider)


def shut_down() -> None:
    """Send what is left. Bounded: a collector that is away must not hold up the stop."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        thread = threading.Thread(target=provider.shutdown, daemon=True)
        thread.start()
        thread.join(_STOP_WAIT_S)

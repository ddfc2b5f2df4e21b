import json
import logging

from opentelemetry.sdk.trace import TracerProvider

from penstock_common.telemetry import JsonFormatter


def _record(message: str, **extra: object) -> logging.LogRecord:
    record = logging.makeLogRecord({"name": "penstock", "levelname": "INFO", "msg": message})
    vars(record).update(extra)
    return record


def test_a_log_line_is_one_json_object_with_its_fields() -> None:
    line = JsonFormatter("api").format(_record("two\nlines", endpoint_id="ep_1", odd=object()))
    assert "\n" not in line
    fields = json.loads(line)
    assert fields["message"] == "two\nlines"
    assert fields["service"] == "api"
    assert fields["endpoint_id"] == "ep_1"
    assert "trace_id" not in fields


def test_a_log_line_inside_a_span_names_its_trace() -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("work") as span:
        fields = json.loads(JsonFormatter("api").format(_record("hello")))
    assert fields["trace_id"] == format(span.get_span_context().trace_id, "032x")

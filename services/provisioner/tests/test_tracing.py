"""A replica's start is part of the trace of the request that led to it."""

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock_provisioner import tracing

from .conftest import ECHO, MakeRepository, Platform


async def test_fetching_installing_and_starting_are_spans_of_the_requests_trace(
    platform: Platform, make_repository: MakeRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    async with platform.host():
        platform.assign(make_repository(ECHO), traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        await platform.reported("ready")
    found = spans.get_finished_spans()
    assert [span.name for span in found] == ["replica.fetch", "replica.install", "replica.start"]
    assert {format(span.context.trace_id, "032x") for span in found} == {"0af7651916cd43dd8448eb211c80319c"}
    assert [format(span.parent.span_id, "016x") for span in found if span.parent] == ["b7ad6b7169203331"] * 3
    assert [(span.attributes or {})["penstock.replica_id"] for span in found] == ["rep_1"] * 3

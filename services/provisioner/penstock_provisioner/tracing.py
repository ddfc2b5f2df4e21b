"""Spans of a replica's life, within the trace of the request that asked for it."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import propagate
from opentelemetry.trace import Span

from penstock_common.contracts.records import Assignment
from penstock_common.telemetry import tracer

_tracer = tracer(__name__)


@contextmanager
def span(name: str, assignment: Assignment) -> Iterator[Span]:
    """A span of this name, child of the assignment's trace; an exception that leaves it is recorded."""
    carrier = {"traceparent": assignment.traceparent} if assignment.traceparent else {}
    attributes = {
        "penstock.replica_id": assignment.replica_id,
        "penstock.endpoint_id": assignment.endpoint_id,
        "penstock.host_id": assignment.host_id,
    }
    with _tracer.start_as_current_span(name, context=propagate.extract(carrier), attributes=attributes) as current:
        yield current

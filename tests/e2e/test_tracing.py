"""One trace from the request that creates an endpoint to the model that is ready, across every service."""

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests_support.platform import Platform, platform
from tests_support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@dataclass(frozen=True)
class Span:
    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]


class Collector:
    """Takes spans as an OpenTelemetry collector does: protobuf over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Collector":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, body: bytes) -> None:
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: each.value.string_value for each in resource_spans.resource.attributes}
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    self.spans.append(
                        Span(
                            service=about["service.name"],
                            name=span.name,
                            trace_id=span.trace_id.hex(),
                            span_id=span.span_id.hex(),
                            parent_id=span.parent_span_id.hex(),
                            attributes={each.key: each.value.string_value for each in span.attributes},
                        )
                    )

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                """Nothing is worth printing."""

        return Handler


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as made:
        yield made


@pytest.fixture
def traced_platform(collector: Collector) -> Iterator[Platform]:
    with platform(simulate_gpus="RTX 4090=1", otlp_endpoint=collector.endpoint) as made:
        yield made


async def test_one_trace_from_the_request_until_the_model_is_ready(
    traced_platform: Platform, collector: Collector
) -> None:
    async with traced_platform.client() as client:
        endpoint = await client.endpoints.create(
            name="Traced",
            git_uri=traced_platform.repository("text-stats"),
            routes=traced_platform.routes("text-stats"),
            gpu_type="RTX 4090",
        )
        await endpoint.wait(timeout_s=60)
        replica = endpoint.replicas[0].id

    def whole() -> bool:
        """Every step is in the trace of the request, and hangs together by its parents."""
        creation = next((s for s in collector.spans if s.service == "penstock-api" and "POST" in s.name), None)
        assert creation is not None, "no span of the request that created the endpoint"
        trace = [span for span in collector.spans if span.trace_id == creation.trace_id]
        names = sorted({(span.service, span.name) for span in trace})
        others = sorted({(span.service, span.name) for span in collector.spans} - set(names))
        for service, part in (
            ("penstock-scheduler", "endpoint.requested"),
            ("penstock-provisioner", "fetch"),
            ("penstock-provisioner", "install"),
            ("penstock-provisioner", "start"),
            ("penstock-scheduler", "replica.reported"),
            ("penstock-billing", "replica.started"),
            ("penstock-api", "endpoint.running"),
        ):
            assert any(service == s and part in name for s, name in names), f"{service} {part}: {names}; not: {others}"
        ids = {span.span_id for span in trace}
        assert [span for span in trace if span.parent_id and span.parent_id not in ids] == []
        of_replica = {s.attributes["penstock.replica_id"] for s in trace if "penstock.replica_id" in s.attributes}
        assert of_replica == {replica}
        return True

    await eventually(whole, deadline_s=20)

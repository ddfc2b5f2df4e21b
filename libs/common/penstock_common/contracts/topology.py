"""Every subject, stream, bucket and consumer, declared in this one place."""

from dataclasses import dataclass

from penstock_common.contracts.records import ApiKeyRecord, Assignment, Route

DAY_S = 24 * 3600
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamSpec:
    name: str
    subjects: tuple[str, ...]
    max_age_s: int
    max_bytes: int
    duplicate_window_s: int = 120
    atomic: bool = False
    latest_only: bool = False
    """It keeps one message of a subject: the last."""
    refuses_when_full: bool = False
    """It takes nothing new when it is full, rather than to drop what is oldest."""
    message_ttl: bool = False
    """A message may say how long it is kept."""


@dataclass(frozen=True, slots=True)
class BucketSpec:
    name: str
    max_bytes: int

    @property
    def stream(self) -> str:
        return f"KV_{self.name}"

    def subject(self, key: str) -> str:
        """The subject that a write of `key` is published on."""
        return f"$KV.{self.name}.{key}"


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable pull consumer. `backoff_s[n]` is the wait before delivery n+2 after an error."""

    durable: str
    stream: str
    filters: tuple[str, ...]
    ack_wait_s: int = 10
    max_deliver: int = 8
    max_ack_pending: int = 1000
    batch: int = 100
    backoff_s: tuple[float, ...] = (0.1, 0.5, 2, 5, 15, 30, 60)

    @property
    def service(self) -> str:
        return self.durable.partition("-")[0]

    @property
    def next_subject(self) -> str:
        """The subject on which its messages are asked for."""
        return f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self.durable}"

    @property
    def dead_subject(self) -> str:
        return f"dead.{self.durable}"


EVENTS = StreamSpec("EVENTS", ("events.>",), max_age_s=7 * DAY_S, max_bytes=2048 * MIB, atomic=True)
LOGS = StreamSpec("LOGS", ("logs.>",), max_age_s=DAY_S, max_bytes=512 * MIB)
DEAD = StreamSpec("DEAD", ("dead.>",), max_age_s=30 * DAY_S, max_bytes=256 * MIB)
INFERENCES = StreamSpec(
    "INFERENCES",
    ("inferences.>",),
    max_age_s=30 * DAY_S,
    max_bytes=1024 * MIB,
    latest_only=True,
    refuses_when_full=True,
    message_ttl=True,
)
"""Records of requests that are answered later: see contracts/inference.py. Only gateways use it."""
INFERENCE_DATA = StreamSpec(
    "INFERENCE_DATA",
    ("inference_data.>",),
    max_age_s=30 * DAY_S,
    max_bytes=6144 * MIB,
    latest_only=True,
    refuses_when_full=True,
    message_ttl=True,
)
"""Their heads and bodies, and those of their answers."""
STREAMS = (EVENTS, LOGS, DEAD, INFERENCES, INFERENCE_DATA)

ASSIGNMENTS = BucketSpec(Assignment.bucket, max_bytes=256 * MIB)
ROUTES = BucketSpec(Route.bucket, max_bytes=256 * MIB)
API_KEYS = BucketSpec(ApiKeyRecord.bucket, max_bytes=64 * MIB)
BUCKETS = {spec.name: spec for spec in (ASSIGNMENTS, ROUTES, API_KEYS)}
OWNED_BUCKETS = {"api": (API_KEYS,), "scheduler": (ASSIGNMENTS, ROUTES)}
COMPLETE = "complete"
"""Key that an owner writes after every record that should be there. Without it a bucket was made anew
after NATS lost its data, and a record that is missing says nothing."""

# One consumer for each pair of reader and owner keeps the facts about one endpoint in order.
SCHEDULER_REQUESTS = ConsumerSpec("scheduler-api-endpoint", "EVENTS", ("events.api.endpoint.>",))
SCHEDULER_REPORTS = ConsumerSpec("scheduler-provisioner-replica", "EVENTS", ("events.provisioner.replica.>",))
API_LIFECYCLE = ConsumerSpec(
    "api-scheduler-lifecycle", "EVENTS", ("events.scheduler.endpoint.>", "events.scheduler.replica.>")
)
API_LOGS = ConsumerSpec("api-provisioner-logs", "LOGS", ("logs.>",), batch=50)
BILLING_REPLICAS = ConsumerSpec(
    "billing-scheduler-replica", "EVENTS", ("events.scheduler.replica.started.v1", "events.scheduler.replica.ended.v1")
)
CONSUMERS = (SCHEDULER_REQUESTS, SCHEDULER_REPORTS, API_LIFECYCLE, API_LOGS, BILLING_REPLICAS)

HEARTBEATS = "hosts.*.heartbeat"
FACTS = "events."
"""Every fact's subject starts with this."""


def heartbeat_subject(host_id: str) -> str:
    return f"hosts.{host_id}.heartbeat"


def log_subject(host_id: str) -> str:
    return f"logs.{host_id}"


def assignments_of(host_id: str) -> str:
    """The key filter under which a host watches what it must run."""
    return f"{host_id}.>"


def replay_subject(service: str) -> str:
    return f"rpc.{service}.replay"


OPEN_INFERENCES = "inferences.open.>"
INFERENCE_GATEWAYS = "inferences.gateways.>"
"""Signs of life of the gateways that run inferences."""


def open_inference(endpoint_id: str, inference_id: str) -> str:
    return f"inferences.open.{endpoint_id}.{inference_id}"


def finished_inference(endpoint_id: str, inference_id: str) -> str:
    return f"inferences.finished.{endpoint_id}.{inference_id}"


def inference_key(sha256: str) -> str:
    """The subject of a remembered Idempotency-Key, by the digest of who used it where."""
    return f"inferences.keys.{sha256}"


def inference_gateway(gateway_id: str) -> str:
    return f"inferences.gateways.{gateway_id}"


def inference_part(name: str, number: int | str) -> str:
    """One part of a kept head and body; `*` for all of them."""
    return f"inference_data.{name}.{number}"

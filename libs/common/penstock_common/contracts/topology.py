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
    ack_wait_s: int = 30
    max_deliver: int = 8
    max_ack_pending: int = 1000
    batch: int = 100
    backoff_s: tuple[float, ...] = (0.1, 0.5, 2, 5, 15, 30, 60)

    @property
    def service(self) -> str:
        return self.durable.partition("-")[0]

    @property
    def dead_subject(self) -> str:
        return f"dead.{self.durable}"


EVENTS = StreamSpec("EVENTS", ("events.>",), max_age_s=7 * DAY_S, max_bytes=2048 * MIB, atomic=True)
LOGS = StreamSpec("LOGS", ("logs.>",), max_age_s=DAY_S, max_bytes=512 * MIB)
DEAD = StreamSpec("DEAD", ("dead.>",), max_age_s=30 * DAY_S, max_bytes=256 * MIB)
STREAMS = (EVENTS, LOGS, DEAD)

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

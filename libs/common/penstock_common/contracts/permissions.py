"""What each service may say and hear on NATS: its own subjects and nothing else."""

from dataclasses import dataclass

from penstock_common.contracts.gateways import GATEWAYS
from penstock_common.contracts.statistics import STATISTICS
from penstock_common.contracts.topology import (
    API_KEYS,
    ASSIGNMENTS,
    BUCKETS,
    COMPLETE,
    CONSUMERS,
    DEAD,
    HEARTBEATS,
    INFERENCE_DATA,
    INFERENCES,
    ROUTES,
    STREAMS,
    BucketSpec,
    replay_subject,
)

SERVICES = ("api", "scheduler", "provisioner", "billing", "gateway")


@dataclass(frozen=True, slots=True)
class Permissions:
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


def inbox_prefix(service: str) -> str:
    """Replies to a service come on its own prefix, so no other can listen in."""
    return f"_INBOX_{service}"


def permissions(service: str) -> Permissions:
    """The permissions of one of SERVICES. Raises KeyError for any other name."""
    publish, subscribe = _OWN[service]
    return Permissions(
        publish=(*publish, *_consuming(service)),
        subscribe=(f"{inbox_prefix(service)}.>", f"rpc.{service}.>", *subscribe),
    )


def _consuming(service: str) -> tuple[str, ...]:
    found: list[str] = []
    for consumer in CONSUMERS:
        if consumer.service == service:
            path = f"{consumer.stream}.{consumer.durable}"
            found += [
                f"$JS.API.CONSUMER.INFO.{path}",
                consumer.next_subject,
                f"$JS.ACK.{path}.>",
                consumer.dead_subject,
            ]
    return tuple(found)


def _watching(*buckets: BucketSpec) -> tuple[str, ...]:
    found: list[str] = []
    for bucket in buckets:
        found += [
            f"$JS.API.STREAM.INFO.{bucket.stream}",
            f"$JS.API.CONSUMER.CREATE.{bucket.stream}",
            f"$JS.API.CONSUMER.CREATE.{bucket.stream}.>",
            f"$JS.API.CONSUMER.INFO.{bucket.stream}.>",
            f"$JS.API.CONSUMER.DELETE.{bucket.stream}.>",
            f"$JS.ACK.{bucket.stream}.>",
            f"$JS.API.DIRECT.GET.{bucket.stream}.{bucket.subject(COMPLETE)}",
        ]
    return (*found, "$JS.FC.>")


def _keeping_inferences() -> tuple[str, ...]:
    """Writing, reading and dropping kept requests, and following their records."""
    found: list[str] = []
    for stream in (INFERENCES, INFERENCE_DATA):
        found += [*stream.subjects, f"$JS.API.STREAM.INFO.{stream.name}", f"$JS.API.STREAM.MSG.GET.{stream.name}"]
    return (
        *found,
        f"$JS.API.STREAM.PURGE.{INFERENCE_DATA.name}",
        f"$JS.API.DIRECT.GET.{INFERENCE_DATA.name}.>",
        f"$JS.API.CONSUMER.CREATE.{INFERENCES.name}.>",
        f"$JS.API.CONSUMER.DELETE.{INFERENCES.name}.>",
    )


def _making() -> tuple[str, ...]:
    """Making a stream or consumer that is missing. Changing one, or deleting it, is not among these."""
    found: list[str] = []
    for stream in (*(spec.name for spec in STREAMS), *(spec.stream for spec in BUCKETS.values())):
        found += [f"$JS.API.STREAM.INFO.{stream}", f"$JS.API.STREAM.CREATE.{stream}"]
    for consumer in CONSUMERS:
        path = f"{consumer.stream}.{consumer.durable}"
        found += [f"$JS.API.CONSUMER.INFO.{path}", f"$JS.API.CONSUMER.DURABLE.CREATE.{path}"]
        found += [f"$JS.API.CONSUMER.CREATE.{path}", f"$JS.API.CONSUMER.CREATE.{path}.>"]
    return tuple(found)


_OWN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "api": (
        (
            "events.api.>",
            "events.scheduler.>",  # sending a dead letter again; nothing else publishes these here
            "events.provisioner.>",
            "logs.>",
            API_KEYS.subject(">"),
            *_watching(API_KEYS),
            *_making(),
            "rpc.scheduler.>",
            "rpc.billing.>",
            "rpc.provisioner.inspect_source",
            replay_subject("api"),
            f"$JS.API.STREAM.MSG.GET.{DEAD.name}",
            f"$JS.API.STREAM.MSG.DELETE.{DEAD.name}",
            f"$JS.API.DIRECT.GET.{DEAD.name}",
            f"$JS.API.DIRECT.GET.{DEAD.name}.>",
        ),
        (STATISTICS,),
    ),
    "scheduler": (
        (
            "events.scheduler.>",
            ASSIGNMENTS.subject(">"),
            ROUTES.subject(">"),
            *_watching(ASSIGNMENTS, ROUTES),
        ),
        (HEARTBEATS,),
    ),
    "provisioner": (
        ("events.provisioner.>", "logs.>", HEARTBEATS, *_watching(ASSIGNMENTS)),
        (),
    ),
    "billing": ((), ()),
    "gateway": (
        (*_watching(ROUTES, API_KEYS), *_keeping_inferences(), "rpc.scheduler.scale", STATISTICS, GATEWAYS),
        (GATEWAYS,),
    ),
}

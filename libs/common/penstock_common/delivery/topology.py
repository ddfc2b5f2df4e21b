"""Declares every stream, bucket and consumer of contracts/topology.py on a server.

Runs with administrator credentials at set-up. The api may make what is missing, and nothing else:
a replay begins with that.
"""

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NotFoundError

from penstock_common.contracts.topology import BUCKETS, CONSUMERS, STREAMS, BucketSpec, ConsumerSpec, StreamSpec


async def declare(js: JetStreamContext, *, replicas: int = 1) -> list[str]:
    """Make the server match the declarations; returns the names of what was made anew.

    `replicas` is how many NATS servers keep each stream.
    """
    made = await make_missing(js, replicas=replicas)
    for config in _configs(replicas):
        if config.name not in made:
            await js.update_stream(config)
    for consumer in CONSUMERS:
        if consumer.durable not in made:
            # The server updates a consumer of the same name, so a changed declaration takes effect.
            await js.add_consumer(consumer.stream, _consumer(consumer))
    return made


async def make_missing(js: JetStreamContext, *, replicas: int = 1) -> list[str]:
    """Make the streams, buckets and consumers that are not there; returns their names."""
    made = []
    for config in _configs(replicas):
        try:
            await js.stream_info(str(config.name))
        except NotFoundError:
            await js.add_stream(config)
            made.append(str(config.name))
    for consumer in CONSUMERS:
        try:
            await js.consumer_info(consumer.stream, consumer.durable)
        except NotFoundError:
            await js.add_consumer(consumer.stream, _consumer(consumer))
            made.append(consumer.durable)
    return made


def _configs(replicas: int) -> list[StreamConfig]:
    return [_stream(spec, replicas) for spec in STREAMS] + [_bucket(spec, replicas) for spec in BUCKETS.values()]


def _stream(spec: StreamSpec, replicas: int) -> StreamConfig:
    return StreamConfig(
        name=spec.name,
        subjects=list(spec.subjects),
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        max_age=spec.max_age_s,
        max_bytes=spec.max_bytes,
        duplicate_window=spec.duplicate_window_s,
        allow_direct=True,
        allow_atomic=spec.atomic,
        max_msgs_per_subject=1 if spec.latest_only else -1,
        discard=DiscardPolicy.NEW if spec.refuses_when_full else DiscardPolicy.OLD,
        allow_msg_ttl=spec.message_ttl,
        num_replicas=replicas,
    )


def _bucket(spec: BucketSpec, replicas: int) -> StreamConfig:
    return StreamConfig(
        name=spec.stream,
        subjects=[spec.subject(">")],
        storage=StorageType.FILE,
        max_msgs_per_subject=1,
        max_bytes=spec.max_bytes,
        duplicate_window=120,
        allow_direct=True,
        allow_rollup_hdrs=True,
        deny_delete=True,
        num_replicas=replicas,
    )


def _consumer(spec: ConsumerSpec) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=spec.durable,
        filter_subjects=list(spec.filters),
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=spec.ack_wait_s,
        # Unlimited here: the last permitted delivery is counted by the consumer itself, which puts
        # the message in DEAD; the server would only stop delivering, in silence.
        max_deliver=-1,
        max_ack_pending=spec.max_ack_pending,
    )

"""What can be said about a new endpoint: the keyword arguments of `endpoints.create`."""

import os
from collections.abc import Sequence
from typing import Required, TypedDict

from penstock.flows.endpoints import RouteLike, WindowLike


class NewEndpoint(TypedDict, total=False):
    """Options of `endpoints.create`. What is left out is up to the platform's defaults."""

    name: Required[str]
    """Unique in its workspace; the URL uses it in lower case with hyphens."""
    git_uri: Required[str | os.PathLike[str]]
    """The model's repository: https, or a local path where the operator allows it."""
    routes: Required[Sequence[RouteLike]]
    """Which function answers which request: `Route` objects, or dicts of the same fields."""
    git_ref: str | None
    """Branch, tag or commit; what it names now is what always runs."""
    workspace: str | None
    gpu_type: str | None
    """As `gpus.list()` names it; none means CPU only."""
    gpu_count: int | None
    """GPUs for each replica, from 1 to 4."""
    cpu_cores: int | None
    memory_gb: int | None
    disk_gb: int | None
    replicas: int | None
    """Always so many: both `min_replicas` and `max_replicas`."""
    min_replicas: int | None
    """Replicas that always run; 0 lets the endpoint sleep when nobody calls it."""
    max_replicas: int | None
    idle_timeout_s: int | None
    """Seconds without a request until it sleeps, where `min_replicas` is 0."""
    scale_down_delay_s: int | None
    """Seconds that a lower load must last until a replica is taken away."""
    queue_wait_target_s: float | None
    """Also add replicas while requests would wait longer than this."""
    schedule: Sequence[WindowLike] | None
    """Windows with a higher minimum: `ScheduledMinimum` objects, or dicts of the same fields."""
    target_concurrency: int | None
    """Requests that one replica works on at the same time."""
    queue_limit: int | None
    """Requests that may wait for a replica; more are answered 503."""
    queue_timeout_s: int | None
    """Longest that a request waits for a replica."""
    public: bool | None
    """Whether requests need no API key."""
    idempotency_key: str | None
    """Creating again with the same key gives the same endpoint; made up when left out."""

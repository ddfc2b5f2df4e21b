"""Creating, finding and ending endpoints."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from penstock.context import Context
from penstock.effects import Request, Steps, Stream
from penstock.errors import Ambiguous, NotFound
from penstock.exchange import PAGE_MAX, collect, fetch, pages
from penstock.models.endpoint import EndpointData, Forecast, Route, ScheduledMinimum

CREATE_TIMEOUT_S = 150.0
"""Fetching and checking a source may take two minutes before the API answers."""

RouteLike: TypeAlias = Route | Mapping[str, Any]
WindowLike: TypeAlias = ScheduledMinimum | Mapping[str, Any]
Reference: TypeAlias = str | EndpointData
"""An endpoint, its id, `workspace/slug`, or its name."""

_ID = re.compile(r"ep_[0-9a-hjkmnp-tv-z]{26}")


def create(ctx: Context, *, idempotency_key: str | None = None, **options: Any) -> Steps[EndpointData]:
    request = _creation(ctx, spec_of(**options), dry_run=False, idempotency_key=idempotency_key or ctx.new_key())
    return (yield from fetch(ctx, request, EndpointData))


def forecast(ctx: Context, *, idempotency_key: str | None = None, **options: Any) -> Steps[Forecast]:
    """What `create` would do; nothing is made, so the key is of no use here."""
    request = _creation(ctx, spec_of(**options), dry_run=True, idempotency_key=None)
    return (yield from fetch(ctx, request, Forecast))


def _creation(ctx: Context, spec: dict[str, Any], *, dry_run: bool, idempotency_key: str | None) -> Request:
    return ctx.api(
        "POST",
        "/v1/endpoints",
        query={"dry_run": True if dry_run else None},
        json=spec,
        idempotency_key=idempotency_key,
        timeout_s=max(CREATE_TIMEOUT_S, ctx.timeout_s),
    )


def spec_of(
    *,
    name: str,
    git_uri: str | os.PathLike[str],
    routes: Sequence[RouteLike],
    git_ref: str | None = None,
    workspace: str | None = None,
    gpu_type: str | None = None,
    gpu_count: int | None = None,
    cpu_cores: int | None = None,
    memory_gb: int | None = None,
    disk_gb: int | None = None,
    replicas: int | None = None,
    min_replicas: int | None = None,
    max_replicas: int | None = None,
    idle_timeout_s: int | None = None,
    scale_down_delay_s: int | None = None,
    queue_wait_target_s: float | None = None,
    schedule: Sequence[WindowLike] | None = None,
    target_concurrency: int | None = None,
    queue_limit: int | None = None,
    queue_timeout_s: int | None = None,
    public: bool | None = None,
) -> dict[str, Any]:
    """The body that creates an endpoint. What is not given is left to the platform's defaults.

    Raises ValueError when the number of replicas is given twice.
    """
    if replicas is not None and (min_replicas is not None or max_replicas is not None):
        raise ValueError("replicas sets both min_replicas and max_replicas: leave it out where you give one of those")
    uri = git_uri if isinstance(git_uri, str) else os.path.abspath(git_uri)
    return _given(
        name=name,
        workspace=workspace,
        source=_given(kind="git", uri=uri, ref=git_ref),
        routes=[_plain(route) for route in routes],
        gpu=_given(type=gpu_type, count=gpu_count) or None,
        resources=_given(cpu_cores=cpu_cores, memory_gb=memory_gb, disk_gb=disk_gb) or None,
        scaling=_given(
            min_replicas=min_replicas if replicas is None else replicas,
            max_replicas=max_replicas if replicas is None else replicas,
            idle_timeout_s=idle_timeout_s,
            scale_down_delay_s=scale_down_delay_s,
            queue_wait_target_s=queue_wait_target_s,
            schedule=None if schedule is None else [_plain(window) for window in schedule],
            target_concurrency=target_concurrency,
            queue_limit=queue_limit,
            queue_timeout_s=queue_timeout_s,
        )
        or None,
        public=public,
    )


def _given(**fields: object) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _plain(given: RouteLike | WindowLike) -> dict[str, Any]:
    return dict(given) if isinstance(given, Mapping) else given.model_dump(exclude_unset=True)


def get(ctx: Context, endpoint: Reference) -> Steps[EndpointData]:
    """One endpoint, by its id, `workspace/slug`, or name. A terminated one is found by its id only.

    Raises NotFound, and Ambiguous when a name stands for endpoints in several workspaces.
    """
    if isinstance(endpoint, EndpointData):
        endpoint = endpoint.id
    if _ID.fullmatch(endpoint):
        return (yield from fetch(ctx, ctx.api("GET", f"/v1/endpoints/{endpoint}"), EndpointData))
    workspace, _, name = endpoint.rpartition("/")
    slug = slug_of(name)
    found: list[EndpointData] = []
    if slug:
        query = {"slug": slug, "workspace": workspace or None}
        found = yield from collect(pages(ctx, "/v1/endpoints", EndpointData, query=query, limit=PAGE_MAX))
    return _the_one(endpoint, found)


def _the_one(name: str, found: list[EndpointData]) -> EndpointData:
    if not found:
        raise NotFound(404, "not_found", f"There is no endpoint {name!r} in your organization.")
    if len(found) > 1:
        those = ", ".join(f"{endpoint.full_name} ({endpoint.id})" for endpoint in found)
        raise Ambiguous(422, "ambiguous_name", f"{name!r} may mean {those}.")
    return found[0]


def listed(
    ctx: Context, *, workspace: str | None = None, state: str | None = None, limit: int | None = None
) -> Stream[EndpointData]:
    """Endpoints, newest first, fetched page by page as they are taken; at most `limit`.

    Terminated ones are listed only for `state="terminated"`.
    """
    return pages(ctx, "/v1/endpoints", EndpointData, query={"workspace": workspace, "state": state}, limit=limit)


def stop(ctx: Context, endpoint: Reference) -> Steps[EndpointData]:
    """Stop an endpoint: its cost ends, and it can be restarted. Returns at once, while it is stopping."""
    return (yield from _ask(ctx, endpoint, "POST", "/stop"))


def restart(ctx: Context, endpoint: Reference) -> Steps[EndpointData]:
    """Start a stopped endpoint again, from the same source. Returns at once, while it is queued."""
    return (yield from _ask(ctx, endpoint, "POST", "/restart"))


def terminate(ctx: Context, endpoint: Reference) -> Steps[EndpointData]:
    """End an endpoint for good and remove all its data. Returns at once, while it is terminating."""
    return (yield from _ask(ctx, endpoint, "DELETE", ""))


def _ask(ctx: Context, endpoint: Reference, method: str, action: str) -> Steps[EndpointData]:
    if isinstance(endpoint, str) and _ID.fullmatch(endpoint):
        endpoint_id = endpoint
    else:
        endpoint_id = endpoint.id if isinstance(endpoint, EndpointData) else (yield from get(ctx, endpoint)).id
    return (yield from fetch(ctx, ctx.api(method, f"/v1/endpoints/{endpoint_id}{action}"), EndpointData))


def slug_of(name: str) -> str:
    """The part of the URL made from an endpoint's name: lower case, hyphens for all else."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

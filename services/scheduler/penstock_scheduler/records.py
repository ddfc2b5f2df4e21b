"""The bucket records that follow from where an endpoint stands."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from penstock_common.contracts.endpoint import EndpointState
from penstock_common.contracts.records import Assignment, Route, RouteReplica
from penstock_scheduler import reasons
from penstock_scheduler.domain import SCALABLE_STATES, Definition, Deployment, EndpointRecord, Replica


@dataclass(frozen=True, slots=True)
class RouteContent:
    """All of a route that ever changes."""

    state: EndpointState
    reason: str
    desired_replicas: int
    shortage: str
    idle_since: datetime | None
    replicas: tuple[RouteReplica, ...]


def content_due(endpoint: EndpointRecord, replicas: Iterable[Replica]) -> RouteContent:
    """What an endpoint's route must say. Replicas that drain stay in it until they have finished."""
    routed = sorted(
        (replica for replica in replicas if replica.routable or replica.draining),
        key=lambda replica: replica.replica_id,
    )
    shortage = ""
    if endpoint.state in ("starting", "running"):
        ready = sum(replica.routable for replica in routed)
        shortage = reasons.short(ready, endpoint.desired_replicas, endpoint.shortage)
    return RouteContent(
        state=endpoint.state,
        reason=endpoint.reason,
        desired_replicas=endpoint.desired_replicas if endpoint.state in SCALABLE_STATES else 0,
        shortage=shortage,
        idle_since=endpoint.idle_since,
        replicas=tuple(
            RouteReplica(replica_id=replica.replica_id, address=replica.address or "", draining=replica.draining)
            for replica in routed
        ),
    )


def content_of(route: Route) -> RouteContent:
    """What a route says, to be compared with what it must say."""
    return RouteContent(
        state=route.state,
        reason=route.reason,
        desired_replicas=route.desired_replicas,
        shortage=route.shortage,
        idle_since=route.idle_since,
        replicas=route.replicas,
    )


def route_of(deployment: Deployment) -> Route | None:
    """What the gateway must know of the endpoint; None once it is terminated."""
    definition, endpoint = deployment.definition, deployment.endpoint
    if endpoint.state == "terminated":
        return None
    content = content_due(endpoint, deployment.replicas)
    return Route(
        endpoint_id=definition.endpoint_id,
        organization_id=definition.organization_id,
        workspace=definition.workspace,
        endpoint=definition.slug,
        state=content.state,
        reason=content.reason,
        public=definition.spec.public,
        scaling=definition.spec.scaling,
        routes=definition.spec.routes,
        desired_replicas=content.desired_replicas,
        shortage=content.shortage,
        idle_since=content.idle_since,
        replicas=content.replicas,
        version=endpoint.version,
    )


def same_but_for_version(one: Route | None, other: Route | None) -> bool:
    """Whether the gateway would do the same with both. Each fact grows the version; few matter here."""
    if one is None or other is None:
        return one is other
    return one.model_copy(update={"version": other.version}) == other


def assignment_of(definition: Definition, replica: Replica) -> Assignment:
    """What the replica's host must run."""
    return Assignment(
        host_id=replica.host_id,
        replica_id=replica.replica_id,
        endpoint_id=definition.endpoint_id,
        organization_id=definition.organization_id,
        workspace=definition.workspace,
        endpoint=definition.slug,
        generation=replica.generation,
        source=definition.source,
        routes=definition.spec.routes,
        gpu_uuids=replica.gpu_uuids,
        resources=definition.spec.resources,
        concurrency=definition.spec.scaling.target_concurrency,
        traceparent=definition.traceparent,
    )


def assignment_key(replica: Replica) -> str:
    """The key of the replica's record in its bucket."""
    return f"{replica.host_id}.{replica.replica_id}"

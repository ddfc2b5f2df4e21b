"""The bucket records that follow from where an endpoint stands."""

from penstock_common.contracts.records import Assignment, Route, RouteReplica
from penstock_scheduler.domain import Definition, Deployment, Replica


def route_of(deployment: Deployment) -> Route | None:
    """What the gateway must know of the endpoint; None once it is terminated."""
    definition, endpoint = deployment.definition, deployment.endpoint
    if endpoint.state == "terminated":
        return None
    scaling = definition.spec.scaling
    return Route(
        endpoint_id=definition.endpoint_id,
        organization_id=definition.organization_id,
        workspace=definition.workspace,
        endpoint=definition.slug,
        state=endpoint.state,
        reason=endpoint.reason,
        public=definition.spec.public,
        target_concurrency=scaling.target_concurrency,
        queue_limit=scaling.queue_limit,
        queue_timeout_s=scaling.queue_timeout_s,
        replicas=tuple(
            RouteReplica(replica_id=replica.replica_id, address=replica.address or "")
            for replica in sorted(deployment.replicas, key=lambda replica: replica.replica_id)
            if replica.routable
        ),
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

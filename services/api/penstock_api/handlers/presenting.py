"""From what is stored to what is answered."""

from collections.abc import Sequence

from penstock_api.domain.connection import Addresses, example_command
from penstock_api.domain.endpoints import Endpoint
from penstock_api.domain.lifecycle import ReplicaStatus, desired_replicas
from penstock_api.domain.money import Money
from penstock_api.domain.problems import Problem
from penstock_api.views import endpoints as views
from penstock_api.views.base import Problem as ProblemView


def problem_view(problem: Problem) -> ProblemView:
    kind = problem.kind
    return ProblemView(
        type=f"urn:penstock:problem:{kind.code}",
        title=kind.title,
        status=kind.status,
        detail=problem.detail,
        code=kind.code,
        errors=list(problem.errors),
    )


def endpoint_view(
    endpoint: Endpoint,
    replicas: Sequence[ReplicaStatus],
    price: Money | None,
    addresses: Addresses,
) -> views.Endpoint:
    """`replicas` may hold those of other endpoints too; `price` is None while it is not known."""
    status = endpoint.status
    url = addresses.url(endpoint.workspace, endpoint.slug)
    own = [replica for replica in replicas if replica.endpoint_id == endpoint.id]
    return views.Endpoint(
        id=endpoint.id,
        name=endpoint.spec.name,
        slug=endpoint.slug,
        workspace=endpoint.workspace,
        organization_id=endpoint.organization_id,
        state=status.state,
        reason=status.reason,
        position=status.position,
        estimated_start_at=status.estimated_start_at,
        spec=endpoint.spec,
        source=views.Source.model_validate(endpoint.source),
        url=url,
        host_url=addresses.host_url(endpoint.workspace, endpoint.slug),
        price_micros_per_hour=None if price is None else price.micros,
        currency=None if price is None else price.currency,
        replicas=[views.Replica.model_validate(replica) for replica in own],
        ready_replicas=sum(replica.phase == "ready" for replica in own),
        desired_replicas=desired_replicas(status, endpoint.spec.scaling.min_replicas),
        idle_since=status.idle_since,
        scaling_decisions=[views.ScalingDecision.model_validate(each) for each in reversed(status.scalings)],
        log_tail=status.log_tail if status.state == "failed" else None,
        example_command=example_command(url, endpoint.spec.routes, public=endpoint.spec.public),
        created_at=endpoint.created_at,
        updated_at=endpoint.updated_at,
        started_at=status.started_at,
    )

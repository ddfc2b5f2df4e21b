"""Building one transition: each fact told makes the endpoint's version grow."""

from dataclasses import replace
from datetime import datetime
from typing import Any

from penstock_common.contracts.base import Event
from penstock_common.contracts.endpoint import EndpointState
from penstock_common.contracts.events import EndpointFact, EndpointScaled, ReplicaFact
from penstock_scheduler.domain import Deployment, EndpointRecord, Outcome, Policy, Replica
from penstock_scheduler.records import content_due


class Story:
    """A transition in the making. Lives no longer than the function that builds it."""

    def __init__(self, before: Deployment, now: datetime, policy: Policy) -> None:
        self.now = now
        self.policy = policy
        self.definition = before.definition
        self.endpoint: EndpointRecord = before.endpoint
        self._before = before
        self._replicas = {replica.replica_id: replica for replica in before.replicas}
        self._facts: list[Event] = []

    @property
    def live(self) -> tuple[Replica, ...]:
        return tuple(replica for replica in self._replicas.values() if replica.live)

    @property
    def ready_count(self) -> int:
        """Replicas that requests may go to."""
        return sum(replica.routable for replica in self.live)

    @property
    def staying(self) -> tuple[Replica, ...]:
        """Those that live and are not about to end."""
        return tuple(replica for replica in self.live if not replica.leaving)

    def note(self, **fields: Any) -> None:
        """Change the endpoint's record."""
        self.endpoint = replace(self.endpoint, **fields)

    def keep(self, replica: Replica) -> None:
        """Add a replica, or a changed one."""
        self._replicas[replica.replica_id] = replica

    def move(self, fact: type[EndpointFact], state: EndpointState, reason: str = "", **fields: Any) -> None:
        """Put the endpoint into `state` and tell it."""
        queue_place = {} if state == "queued" else {"position": None, "estimated_start_at": None}
        self.note(state=state, reason=reason, version=self.endpoint.version + 1, **queue_place)
        self._facts.append(
            fact(
                endpoint_id=self.endpoint.endpoint_id,
                organization_id=self.definition.organization_id,
                version=self.endpoint.version,
                at=self.now,
                reason=reason,
                **fields,
            )
        )

    def scaled(self, reason: str) -> None:
        """Tell how many replicas it aims for now, and why; its state stays."""
        self.note(version=self.endpoint.version + 1)
        self._facts.append(
            EndpointScaled(
                endpoint_id=self.endpoint.endpoint_id,
                organization_id=self.definition.organization_id,
                version=self.endpoint.version,
                at=self.now,
                reason=reason,
                desired_replicas=self.endpoint.desired_replicas,
                ready_replicas=self.ready_count,
            )
        )

    def tell(self, fact: type[ReplicaFact], replica: Replica, at: datetime, **fields: Any) -> None:
        """Tell something about a replica."""
        self.note(version=self.endpoint.version + 1)
        self._facts.append(
            fact(
                endpoint_id=self.endpoint.endpoint_id,
                organization_id=self.definition.organization_id,
                workspace_id=self.definition.workspace_id,
                replica_id=replica.replica_id,
                host_id=replica.host_id,
                generation=replica.generation,
                version=self.endpoint.version,
                at=at,
                **fields,
            )
        )

    def outcome(self) -> Outcome:
        after = Deployment(self.definition, self.endpoint, tuple(self._replicas.values()))
        if _decided_from(self._before) != _decided_from(after):
            after = replace(after, endpoint=replace(self.endpoint, route_version=self.endpoint.version))
        return Outcome(after, tuple(self._facts))


def _decided_from(deployment: Deployment) -> tuple[Any, ...]:
    """What the autoscaler decides from, of all that a route says."""
    content = content_due(deployment.endpoint, deployment.replicas)
    return content.state, content.desired_replicas, content.replicas

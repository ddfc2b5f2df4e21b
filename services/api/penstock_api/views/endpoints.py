"""Answers about endpoints, their history and their logs."""

from datetime import datetime

from pydantic import Field

from penstock_api.domain.lifecycle import ReplicaStep
from penstock_api.domain.timeline import Phase
from penstock_api.views.base import View, maybe_moment, moment, next_cursor
from penstock_common.contracts.endpoint import EndpointSpec, EndpointState

_ENDPOINT_ID = "ep_01kc4v5s8mf7q9x2t6w3y1z0ab"
_REPLICA_ID = "rep_01kc4v9t2nf7q9x2t6w3y1z0ab"
_URL = "http://127.0.0.1:8080/e/default/new-inference-endpoint"


class Source(View):
    """The source as it was when the endpoint was created: every start uses exactly this."""

    uri: str = Field(description="Address of the repository.", examples=["https://github.com/acme/iris.git"])
    ref: str = Field(description="Branch, tag or commit that was asked for.", examples=["main"])
    commit: str = Field(description="Commit that it named.", examples=["8f14e45fceea167a5a36dedd4bea2543e1c2a7b0"])
    requirements: str = Field(
        description="Python packages, resolved: one `name==version` a line.", examples=["scikit-learn==1.7.2"]
    )


class Replica(View):
    """One running copy of the model, on one host."""

    id: str = Field(description="Its id.", examples=[_REPLICA_ID])
    host_id: str = Field(description="Host it runs on.", examples=["gpu-host-1"])
    phase: ReplicaStep = Field(description="How far it is: it answers requests when ready.", examples=["ready"])
    detail: str = Field(description="More about the phase, such as what is being installed.", examples=[""])
    generation: int = Field(description="Grows with each replica of the endpoint.", examples=[1])
    gpu_uuids: list[str] = Field(
        description="GPUs that are its alone.", examples=[["GPU-6f1d5f0a-8f6b-4f0e-9d5b-3c1f2e4a7b9c"]]
    )
    scheduled_at: datetime | None = maybe_moment("When its host was chosen.")
    ready_at: datetime | None = maybe_moment("When it became ready; it costs from then on.")


class ScalingDecision(View):
    """A change of the number of replicas that the platform aims for."""

    at: datetime = moment("When it was decided.")
    desired_replicas: int = Field(description="Replicas that it aims for from then on.", examples=[3])
    ready_replicas: int = Field(description="Replicas that were ready then.", examples=[1])
    reason: str = Field(description="Why, or what has no room for more.", examples=["8 requests wait for 1 replica"])


class Endpoint(View):
    """A model behind a URL."""

    id: str = Field(description="Its id.", examples=[_ENDPOINT_ID])
    name: str = Field(description="Its name.", examples=["New Inference Endpoint"])
    slug: str = Field(description="Its name in URLs, unique in the workspace.", examples=["new-inference-endpoint"])
    workspace: str = Field(description="Slug of its workspace.", examples=["default"])
    organization_id: str = Field(description="Organization it belongs to.", examples=["org_01kc4v5s8mf7q9x2t6w3y1z0ab"])
    state: EndpointState = Field(description="Where it is in its life.", examples=["running"])
    reason: str = Field(
        description="Why it is in this state, where that needs a word.", examples=["Waiting for 1 × RTX 4090."]
    )
    position: int | None = Field(description="Place in the queue, from 1; null when it does not wait.", examples=[2])
    estimated_start_at: datetime | None = maybe_moment("When it may start, while it waits; null when unknown.")
    spec: EndpointSpec = Field(description="What was asked for.")
    source: Source = Field(description="The pinned source.")
    url: str = Field(description="Where it answers; paths of its routes go behind it.", examples=[_URL])
    host_url: str = Field(
        description="The same by host name.", examples=["http://new-inference-endpoint.default.localhost:8080"]
    )
    price_micros_per_hour: int | None = Field(
        description="What it costs an hour while it runs at its least size (min_replicas, or one replica if that is "
        "0), in millionths of the currency; null while prices are not known.",
        examples=[450000],
    )
    currency: str | None = Field(description="Currency of the price.", examples=["USD"])
    replicas: list[Replica] = Field(description="Replicas that have not ended.")
    ready_replicas: int = Field(description="How many of them are ready for requests.", examples=[1])
    desired_replicas: int = Field(
        description="How many the platform aims for now, from min_replicas to max_replicas of the scaling.",
        examples=[2],
    )
    idle_since: datetime | None = maybe_moment(
        "Since when it has no replicas because nobody calls it, while its state is idle: the next request wakes it."
    )
    scaling_decisions: list[ScalingDecision] = Field(
        description="The last changes of the number of replicas, newest first."
    )
    log_tail: str | None = Field(
        description="Last lines that the failed replica printed; null unless the state is failed.", examples=[None]
    )
    example_command: str = Field(
        description="A command that asks the first route something; works as pasted.",
        examples=[
            "curl -sS -H \"Authorization: Bearer $PENSTOCK_API_KEY\" -H 'Content-Type: application/json' "
            f"-d '{{\"features\": [5.1, 3.5, 1.4, 0.2]}}' {_URL}/predict"
        ],
    )
    created_at: datetime = moment("When it was created.")
    updated_at: datetime = moment("When anything about it last changed.")
    started_at: datetime | None = maybe_moment("When it last began to run; null before the first time.")


class EndpointPage(View):
    """A part of the list of endpoints, newest first."""

    items: list[Endpoint] = Field(description="Endpoints.")
    next_cursor: str | None = next_cursor()


class Forecast(View):
    """What creating the endpoint would do. Nothing was created."""

    starts_now: bool = Field(description="Whether there is room for it right now.", examples=[True])
    position: int | None = Field(description="Place it would have in the queue; null if it starts now.")
    reason: str = Field(description="Why it would start now or wait.", examples=["1 × RTX 4090 is free."])
    price_micros_per_hour: int = Field(
        description="What it would cost an hour while it runs at its least size (min_replicas, or the first replica "
        "if that is 0), in millionths of the currency.",
        examples=[450000],
    )
    currency: str = Field(description="Currency of the price.", examples=["USD"])
    source: Source = Field(description="The source, pinned.")
    url: str = Field(description="Where it would answer.", examples=[_URL])


class Event(View):
    """Something that happened to an endpoint."""

    id: int = Field(description="Grows with each event of an endpoint.", examples=[17])
    at: datetime = moment("When it happened.")
    type: str = Field(description="What happened.", examples=["replica.progressed"])
    phase: Phase = Field(description="What it means for the endpoint.", examples=["installing"])
    message: str = Field(description="The same for people.", examples=["Installing 14 packages."])
    replica_id: str | None = Field(description="Replica it happened to, if one.", examples=[_REPLICA_ID])


class EventPage(View):
    """A part of an endpoint's history, oldest first."""

    items: list[Event] = Field(description="Events.")
    next_cursor: str | None = next_cursor()


class LogLine(View):
    """A line that a replica printed."""

    id: int = Field(description="Grows with each line of an endpoint.", examples=[4711])
    at: datetime = moment("When it was printed, by the host's clock.")
    replica_id: str = Field(description="Replica that printed it.", examples=[_REPLICA_ID])
    text: str = Field(description="The line.", examples=["model loaded in 0.8 s"])


class LogPage(View):
    """A part of an endpoint's log, newest first."""

    items: list[LogLine] = Field(description="Lines.")
    next_cursor: str | None = next_cursor()

"""What the runner needs of the data plane: somewhere to send a request, in the queue with all others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock_common.contracts.endpoint import EndpointState
from penstock_common.contracts.inference import OpenInference
from penstock_gateway.deferred.lifecycle import Outcome


@dataclass(frozen=True, slots=True)
class Loaded:
    """A kept request, ready to be sent. `head` ends in an empty line."""

    head: bytes
    body: Sequence[bytes]


class Job(Protocol):
    """One attempt to run an inference."""

    @property
    def inference(self) -> OpenInference: ...

    async def begin(self) -> Loaded | None:
        """A replica has a free slot: the request to send now, or None when it must not be sent."""

    async def head(self, status: int, lines: Sequence[bytes]) -> None:
        """The answer begins: its status and its header lines."""

    async def body(self, data: bytes) -> None:
        """More of the answer."""


class Plane(Protocol):
    """Endpoints as this gateway knows them."""

    def state(self, endpoint_id: str) -> EndpointState | None:
        """The endpoint's state; None when there is no such endpoint."""

    @property
    def current(self) -> bool:
        """Whether an endpoint that is not known does not exist, rather than be too new to be known."""

    def owns(self, endpoint_id: str) -> bool:
        """Whether this gateway, of all, has the endpoint's queue."""

    def room(self, endpoint_id: str) -> int:
        """How many asynchronous requests it makes sense to have in the endpoint's queue and at its replicas."""

    async def run(self, job: Job) -> Outcome:
        """Wait for a free slot, send the request, and hand the answer to the job. Cancelling gives it up."""

"""The autoscaler's loop, with a clock and a scheduler that the tests hold in their hands."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from penstock_common.contracts.endpoint import ScheduledMinimum
from penstock_common.contracts.questions import ScaleEndpoint, ScaleReply
from penstock_common.contracts.records import Route, RouteReplica
from penstock_common.errors import Unavailable
from penstock_gateway import autoscaler
from penstock_gateway.autoscaler import ASK_AGAIN_S, DECISIONS_MAX, Autoscaler
from tests_support.waiting import eventually

from .plane import ENDPOINT_ID, changed, route


@dataclass
class Queue:
    waiting: int = 0
    service_s: float | None = None

    def __len__(self) -> int:
        return self.waiting


@dataclass
class Endpoint:
    """What the autoscaler sees of one, set by hand."""

    route: Route
    in_flight: int = 0
    queue: Queue = field(default_factory=Queue)
    last_request_s: float = 0.0
    busy_replicas: tuple[str, ...] = ()


def replicas(*names: str, draining: tuple[str, ...] = ()) -> tuple[RouteReplica, ...]:
    return tuple(RouteReplica(replica_id=name, address="a:1", draining=name in draining) for name in names)


class Scene:
    """One endpoint, its autoscaler, and a scheduler that takes every wish unless told otherwise."""

    def __init__(self, **scaling: object) -> None:
        self.now_s = 1000.0
        self.day = datetime(2026, 6, 1, 12, tzinfo=UTC)
        self.owned = True
        self.asked: list[ScaleEndpoint] = []
        self.answer: Callable[[ScaleEndpoint], Awaitable[ScaleReply]] = self.accept
        self.endpoint = Endpoint(route(**{"min_replicas": 0, "max_replicas": 8, **scaling}))
        self.scaler = Autoscaler(self._ask, owns=lambda _: self.owned, clock=lambda: self.now_s, wall=lambda: self.day)

    def has(self, ready: int, desired: int | None = None, **changes: object) -> "Scene":
        """The route becomes one with so many ready replicas, and is noticed."""
        found = replicas(*(f"r{number}" for number in range(ready)))
        return self.shows(replicas=found, desired_replicas=ready if desired is None else desired, **changes)

    def shows(self, **changes: object) -> "Scene":
        now = self.endpoint.route
        self.endpoint.route = changed(now, **{"version": now.version + 1, **changes})
        self.scaler.route_changed(self.endpoint)
        return self

    async def look(self, after_s: float = 0.0, *, in_flight: int = 0, queued: int = 0) -> list[ScaleEndpoint]:
        """Time passes, the autoscaler looks; what it asked because of that."""
        self.now_s += after_s
        self.endpoint.in_flight = in_flight
        self.endpoint.queue.waiting = queued
        before = len(self.asked)
        await self.scaler.look()
        for _ in range(5):
            await asyncio.sleep(0)
        return self.asked[before:]

    async def accept(self, question: ScaleEndpoint) -> ScaleReply:
        return ScaleReply(accepted=True, desired_replicas=question.replicas, version=question.route_version + 1)

    async def _ask(self, question: ScaleEndpoint) -> ScaleReply:
        self.asked.append(question)
        return await self.answer(question)


async def test_a_queue_at_a_sleeping_endpoint_is_one_wish_however_many_wait() -> None:
    scene = Scene(max_replicas=1).has(0, state="idle")
    (first,) = await scene.look()
    assert (first.replicas, first.minimum) == (0, 0)
    for queued in (1, 10, 1000):
        await scene.look(0.02, queued=queued)
    assert [question.replicas for question in scene.asked] == [0, 1]
    woken = scene.asked[1]
    assert (woken.endpoint_id, woken.route_version) == (ENDPOINT_ID, scene.endpoint.route.version)
    assert woken.reason == "1 request waits for 0 replicas of concurrency 1"


async def test_a_wish_is_repeated_until_the_route_shows_it() -> None:
    scene = Scene().has(1)
    await scene.look(in_flight=1)
    (wish,) = await scene.look(0.1, in_flight=1, queued=3)
    assert wish.replicas == 6
    assert await scene.look(ASK_AGAIN_S - 0.1, in_flight=1, queued=3) == []
    (again,) = await scene.look(0.2, in_flight=1, queued=3)
    assert again.replicas == 6
    scene.has(1, desired=6)
    await scene.look(in_flight=1, queued=3)
    assert await scene.look(ASK_AGAIN_S - 1, in_flight=1, queued=3) == []


async def test_who_is_busy_is_told_again_while_replicas_above_the_minimum_run() -> None:
    scene = Scene().has(2)
    await scene.look(in_flight=2)
    scene.endpoint.busy_replicas = ("r1",)
    assert await scene.look(1.0, in_flight=2) == []
    (again,) = await scene.look(ASK_AGAIN_S, in_flight=2)
    assert again.busy == ("r1",)


async def test_a_drain_is_confirmed_as_soon_as_the_route_shows_it() -> None:
    scene = Scene(idle_timeout_s=1).has(1)
    await scene.look()
    (sleep,) = await scene.look(1.0)
    assert sleep.replicas == 0
    scene.shows(replicas=replicas("r0", draining=("r0",)), desired_replicas=0)
    (confirmed,) = await scene.look(0.02)
    assert (confirmed.replicas, confirmed.busy) == (0, ())
    assert confirmed.route_version == scene.endpoint.route.version
    assert await scene.look(1.0) == []


async def test_a_fixed_endpoint_is_left_alone() -> None:
    scene = Scene(min_replicas=2, max_replicas=2).has(2)
    assert await scene.look(in_flight=2, queued=50) == []
    scene.has(1, desired=1)
    assert [question.replicas for question in await scene.look()] == [2]


async def test_who_drains_is_reported_with_who_is_busy_until_it_is_gone() -> None:
    scene = Scene(min_replicas=2, max_replicas=2)
    scene.shows(replicas=replicas("a", "b", "c", draining=("c",)), desired_replicas=2)
    scene.endpoint.busy_replicas = ("c", "a")
    assert [question.busy for question in await scene.look()] == [("a", "c")]
    assert await scene.look(1) == []
    scene.endpoint.busy_replicas = ("a",)
    assert [question.busy for question in await scene.look(1)] == [("a",)]
    assert [question.busy for question in await scene.look(ASK_AGAIN_S)] == [("a",)]
    scene.has(2)
    assert await scene.look(ASK_AGAIN_S) == []


async def test_a_wish_from_an_old_route_is_made_anew_when_the_newer_one_comes() -> None:
    scene = Scene().has(1)
    await scene.look(in_flight=1)
    version = scene.endpoint.route.version

    async def refuse(question: ScaleEndpoint) -> ScaleReply:
        return ScaleReply(accepted=False, desired_replicas=1, version=version + 2, reason="older than the route")

    scene.answer = refuse
    assert len(await scene.look(1, in_flight=1, queued=3)) == 1
    assert await scene.look(1, in_flight=1, queued=3) == []
    scene.answer = scene.accept
    scene.has(1)
    assert await scene.look(in_flight=1, queued=3) == []
    scene.has(1)
    (anew,) = await scene.look(in_flight=1, queued=3)
    assert (anew.route_version, anew.replicas) == (version + 2, 6)


async def test_a_refusal_that_no_newer_route_follows_is_asked_again_but_not_at_once() -> None:
    scene = Scene().has(1)

    async def refuse(question: ScaleEndpoint) -> ScaleReply:
        return ScaleReply(accepted=False, desired_replicas=1, version=question.route_version, reason="does not run")

    scene.answer = refuse
    assert len(await scene.look(in_flight=1)) == 1
    assert await scene.look(ASK_AGAIN_S - 0.1, in_flight=1) == []
    assert len(await scene.look(0.2, in_flight=1)) == 1


@pytest.mark.parametrize("failure", [Unavailable("scheduler", "away"), TimeoutError(), OSError(), RuntimeError("NATS")])
async def test_a_failure_is_tried_again_after_a_growing_wait(failure: Exception) -> None:
    scene = Scene().has(1)

    async def fail(question: ScaleEndpoint) -> ScaleReply:
        raise failure

    scene.answer = fail
    times = []
    for _ in range(400):
        times += [scene.now_s for _ in await scene.look(0.05, in_flight=1)]
    gaps = [round(later - earlier, 2) for earlier, later in pairwise(times)]
    assert gaps[0] < 0.35
    assert gaps == sorted(gaps)
    assert max(gaps) <= 5.1
    scene.answer = scene.accept
    assert len(await scene.look(5.1, in_flight=1)) == 1


async def test_one_question_is_in_flight_and_what_changed_meanwhile_follows() -> None:
    scene = Scene().has(1)
    await scene.look(in_flight=1)
    answered = asyncio.Event()

    async def slow(question: ScaleEndpoint) -> ScaleReply:
        await answered.wait()
        return await scene.accept(question)

    scene.answer = slow
    assert [question.replicas for question in await scene.look(1, in_flight=1, queued=1)] == [3]
    assert await scene.look(1, in_flight=1, queued=4) == []
    answered.set()
    await asyncio.sleep(0)
    assert [question.replicas for question in await scene.look(in_flight=1, queued=4)] == [8]


async def test_a_new_gateway_takes_nothing_away_before_the_delay_is_over() -> None:
    scene = Scene(scale_down_delay_s=60, idle_timeout_s=600).has(5)
    for _ in range(60):
        assert {question.replicas for question in await scene.look(1)} <= {5}
    found = []
    for _ in range(60):
        found += await scene.look(1)
    assert min(question.replicas for question in found) == 1


async def test_an_endpoint_that_stopped_and_runs_again_begins_anew() -> None:
    scene = Scene(idle_timeout_s=10).has(1)
    await scene.look(in_flight=1)
    scene.has(0, state="stopped")
    assert await scene.look(3600) == []
    scene.has(1, state="running")
    assert [question.replicas for question in await scene.look()] == [1]
    assert [question.replicas for question in await scene.look(9.9)] == [1]
    assert [question.replicas for question in await scene.look(0.1)] == [0]


async def test_an_endpoint_that_another_gateway_owns_is_not_scaled_here() -> None:
    scene = Scene().has(1)
    scene.owned = False
    assert await scene.look(in_flight=1, queued=7) == []
    scene.owned = True
    assert len(await scene.look(in_flight=1, queued=7)) == 1


async def test_a_scheduled_minimum_is_told_when_it_begins_and_when_it_ends() -> None:
    window = ScheduledMinimum(start="0 13 * * *", end="0 14 * * *", min_replicas=3)
    scene = Scene(schedule=(window,)).has(0, state="idle")
    await scene.look()
    scene.day = datetime(2026, 6, 1, 13, tzinfo=UTC)
    assert [(q.replicas, q.minimum, q.reason) for q in await scene.look(1)] == [(3, 3, "at least 3 at this time")]
    scene.has(3)
    scene.day = datetime(2026, 6, 1, 14, tzinfo=UTC)
    assert [(q.replicas, q.minimum) for q in await scene.look(1)] == [(3, 0)]


async def test_the_last_decisions_are_kept_with_their_reasons() -> None:
    scene = Scene(max_replicas=64, scale_down_delay_s=0, idle_timeout_s=1).has(0)
    assert scene.scaler.decisions(ENDPOINT_ID) == ()
    for _ in range(DECISIONS_MAX):
        await scene.look(1, queued=1)
        await scene.look(1)
    kept = scene.scaler.decisions(ENDPOINT_ID)
    assert len(kept) == DECISIONS_MAX
    assert [(one.before, one.decision.replicas, one.load) for one in kept[-2:]] == [(0, 1, 1), (1, 0, 0)]
    assert kept[-1].decision.reason == "no request for 1 s"
    assert kept[-1].at == scene.day


async def test_an_endpoint_that_was_removed_is_forgotten() -> None:
    scene = Scene().has(1)
    await scene.look(in_flight=1)
    scene.scaler.removed(scene.endpoint)
    scene.scaler.pressed(scene.endpoint)
    assert await scene.look(1, in_flight=1, queued=9) == []
    assert scene.scaler.decisions(ENDPOINT_ID) == ()


async def test_one_endpoint_that_cannot_be_decided_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene().has(1)
    broken = Endpoint(scene.endpoint.route.model_copy(update={"endpoint_id": "ep_broken"}))
    broken.queue = None  # type: ignore[assignment]
    scene.scaler.removed(scene.endpoint)
    scene.scaler.route_changed(broken)
    scene.scaler.route_changed(scene.endpoint)
    assert len(await scene.look(in_flight=1)) == 1
    assert "an endpoint cannot be scaled" in caplog.text


async def test_a_decision_that_changes_something_has_a_span_and_its_question_belongs_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(autoscaler, "_tracer", provider.get_tracer("test"))
    scene = Scene().has(1)
    seen = []

    async def note(question: ScaleEndpoint) -> ScaleReply:
        seen.append(trace.get_current_span().get_span_context().span_id)
        return await scene.accept(question)

    scene.answer = note
    await scene.look(in_flight=1)
    assert kept.get_finished_spans() == ()
    await scene.look(1, in_flight=1, queued=3)
    (span,) = kept.get_finished_spans()
    assert span.name == "autoscale"
    assert span.get_span_context() is not None
    assert seen[1] == span.context.span_id
    assert dict(span.attributes or {}) == {
        "penstock.endpoint_id": ENDPOINT_ID,
        "penstock.replicas.before": 1,
        "penstock.replicas": 6,
        "penstock.reason": scene.asked[-1].reason,
    }


# --- the loop in real time ------------------------------------------------------------------


@contextmanager
def running(scaler: Autoscaler) -> Iterator[asyncio.Task[None]]:
    task = asyncio.get_running_loop().create_task(scaler.run())
    try:
        yield task
    finally:
        task.cancel()


async def test_a_queue_that_forms_is_answered_well_within_a_tenth_of_a_second() -> None:
    scene = Scene(max_replicas=64)
    scene.endpoint.in_flight = 1
    answered = asyncio.Event()

    async def note(question: ScaleEndpoint) -> ScaleReply:
        answered.set()
        return await scene.accept(question)

    scene.answer = note
    scene.scaler = Autoscaler(scene._ask, tick_s=3600)
    scene.has(1)
    took_s = []
    with running(scene.scaler):
        for waiting in range(1, 6):
            await asyncio.wait_for(answered.wait(), 10)
            answered.clear()
            scene.endpoint.queue.waiting = waiting
            began_s = time.monotonic()
            scene.scaler.pressed(scene.endpoint)
            await asyncio.wait_for(answered.wait(), 10)
            took_s.append(time.monotonic() - began_s)
    assert [question.replicas for question in scene.asked] == [1, 3, 5, 6, 8, 9]
    assert sorted(took_s)[2] < 0.05


async def test_it_looks_by_itself_once_a_tick_and_repeats_what_failed() -> None:
    scene = Scene(idle_timeout_s=1)
    scene.scaler = Autoscaler(scene._ask, tick_s=0.02)
    failures = iter([OSError("away"), OSError("away")])

    async def fail_twice(question: ScaleEndpoint) -> ScaleReply:
        for failure in failures:
            raise failure
        return await scene.accept(question)

    scene.answer = fail_twice
    scene.has(1)
    with running(scene.scaler):
        await eventually(lambda: [question.replicas for question in scene.asked][-1:] == [0])
    assert [question.replicas for question in scene.asked][:2] == [1, 1]


async def test_stopping_it_stops_the_questions_too() -> None:
    scene = Scene()
    scene.scaler = Autoscaler(scene._ask, tick_s=3600)
    cancelled = asyncio.Event()

    async def hang(question: ScaleEndpoint) -> ScaleReply:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError("unreachable")

    scene.answer = hang
    scene.has(1)
    with running(scene.scaler) as task:
        await eventually(lambda: scene.asked)
    with suppress(asyncio.CancelledError):
        await task
    assert cancelled.is_set()

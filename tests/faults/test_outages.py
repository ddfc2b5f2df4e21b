"""Worse than one death: programs that hang, messages that repeat, data that is lost, power that fails."""

import asyncio
import random
import signal
from datetime import UTC, datetime, timedelta

import pytest

from penstock_common.contracts.topology import CONSUMERS
from tests_support.oracle import billed_spans, expected_cost_micros, facts
from tests_support.scene import NOTICE_S, Scene
from tests_support.waiting import eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

ACK_DEADLINE_S = max(consumer.ack_wait_s for consumer in CONSUMERS)


async def test_services_that_hang_past_the_acknowledgement_deadline(scene: Scene) -> None:
    before, killed = await scene.create("hang"), await scene.create("hang and die")
    await scene.answers(before)
    await scene.answers(killed)
    victim = killed.replicas[0].id
    services = ("scheduler", "billing", "api")
    for program in services:
        scene.platform.send_signal(program, signal.SIGSTOP)
    try:
        # The gateway and the replica need none of them.
        answer = await before.predict("/echo", message="meanwhile", seconds=0.0)
        assert answer["message"] == "meanwhile"
        # Nobody is there to hear of this one; it must not be billed until somebody is.
        for pid in scene.platform.replicas_running()[victim]:
            scene.platform.kill_pid(pid, signal.SIGKILL)
        # This is the fault itself: hanging for longer than the server waits for an acknowledgement.
        await asyncio.wait_for(asyncio.Event().wait(), ACK_DEADLINE_S + 2)
    except TimeoutError:
        pass
    finally:
        for program in services:
            scene.platform.send_signal(program, signal.SIGCONT)
    await scene.platform.ready()
    await scene.answers(before)
    assert len(before.replicas) == 1
    assert before.replicas[0].generation == 1

    async def replaced() -> bool:
        fresh = await killed.refresh()
        return fresh.state == "running" and [replica.generation for replica in fresh.replicas] == [2]

    await eventually(replaced, deadline_s=60)
    _, billed_until = billed_spans(await facts(scene.admin), killed.id)[victim]
    _, ran_until = scene.witness.lives[victim]
    assert abs(billed_until - ran_until) <= NOTICE_S
    await killed.terminate()
    await killed.wait("terminated", timeout_s=60)
    await scene.ends_clean(before)


async def test_every_fact_twice_and_shuffled(scene: Scene) -> None:
    endpoint = await scene.create("twice")
    await scene.answers(endpoint)
    await scene.ends_clean(endpoint)
    again = await scene.create("twice again")
    await scene.answers(again)
    told = await facts(scene.admin)
    js = scene.admin.jetstream()
    info = (await js.stream_info("EVENTS")).state
    messages = [await js.get_msg("EVENTS", seq=n) for n in range(info.first_seq, info.last_seq + 1)]
    shuffled = messages * 2
    random.Random(7).shuffle(shuffled)
    for message in shuffled:
        headers = {name: value for name, value in (message.headers or {}).items() if not name.startswith("Nats-")}
        await js.publish(str(message.subject), message.data or b"", headers=headers)

    async def consumed() -> bool:
        consumers = await js.consumers_info("EVENTS")
        return all(consumer.num_pending == 0 and consumer.num_ack_pending == 0 for consumer in consumers)

    await eventually(consumed, deadline_s=60)
    await scene.answers(again)
    assert len(await facts(scene.admin)) == len(told)
    usage = await endpoint.usage()
    assert usage.total_cost_micros == expected_cost_micros(told, endpoint.id)
    await scene.ends_clean(again)


async def test_a_lost_stream_is_replayed(scene: Scene) -> None:
    began = datetime.now(UTC) - timedelta(hours=1)
    endpoint = await scene.create("lost stream")
    await scene.answers(endpoint)
    before = {fact.id for fact in await facts(scene.admin) if fact.kind.startswith(("events.api", "events.scheduler"))}
    js = scene.admin.jetstream()
    await js.delete_stream("EVENTS")

    await scene.client.admin.replay(began)

    async def restored() -> bool:
        assert before <= {fact.id for fact in await facts(scene.admin)}
        return True

    await eventually(restored, deadline_s=30)
    await scene.answers(endpoint)
    await scene.ends_clean(endpoint)


async def test_the_machine_loses_power(scene: Scene) -> None:
    endpoint = await scene.create("power")
    await scene.answers(endpoint)
    first = endpoint.replicas[0].id
    scene.platform.kill_everything()
    await eventually(lambda: not scene.platform.processes())
    scene.platform.up(simulate_gpus="RTX 4090=4")
    await scene.platform.ready()

    async def replaced() -> bool:
        fresh = await endpoint.refresh()
        return fresh.state == "running" and [replica.id for replica in fresh.replicas] != [first]

    await eventually(replaced, deadline_s=60)
    await scene.answers(endpoint)
    await scene.ends_clean(endpoint)


async def test_a_model_killed_is_replaced(scene: Scene) -> None:
    endpoint = await scene.create("model killed")
    await scene.answers(endpoint)
    replica = endpoint.replicas[0].id
    for pid in scene.platform.replicas_running()[replica]:
        scene.platform.kill_pid(pid, signal.SIGKILL)

    async def replaced() -> bool:
        fresh = await endpoint.refresh()
        return fresh.state == "running" and [r.generation for r in fresh.replicas] == [2]

    await eventually(replaced, deadline_s=60)
    await scene.answers(endpoint)
    await scene.ends_clean(endpoint)

"""Each program killed at each step of a deployment: the endpoint still gets where its user wants it."""

import asyncio
import json
import signal

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests_support.platform import Platform
from tests_support.scene import Scene

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

PROGRAMS = ("api", "scheduler", "provisioner", "billing", "gateway", "nats", "postgres")
REQUESTED = "events.api.endpoint.requested.v1"
REPORTED = "events.provisioner.replica.reported.v1"
STEPS = {
    "requested": (REQUESTED, None),
    "scheduled": ("events.scheduler.replica.scheduled.v1", None),
    "fetching": (REPORTED, "fetching"),
    "installing": (REPORTED, "installing"),
    "starting": (REPORTED, "starting"),
    "ready": (REPORTED, "ready"),
    "running": ("events.scheduler.endpoint.running.v1", None),
    "stopping": ("events.scheduler.endpoint.stopping.v1", None),
    "stopped": (REPORTED, "stopped"),
}


async def kill_at(admin: Client, platform: Platform, program: str, step: str) -> "asyncio.Future[None]":
    """Kill `program` the moment the message of `step` passes; the future is done when it is."""
    subject, phase = STEPS[step]
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    victim = platform.pid(program)

    async def see(message: Msg) -> None:
        if done.done() or (phase is not None and json.loads(message.data)["phase"] != phase):
            return
        if victim is not None:
            platform.kill_pid(victim, signal.SIGKILL)
        done.set_result(None)

    await admin.subscribe(subject, cb=see)
    await admin.flush()
    return done


# Program after program: one that was killed twice in a row is started again more slowly.
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("step", STEPS)
async def test_a_program_killed_at_a_step(scene: Scene, program: str, step: str) -> None:
    killed = await kill_at(scene.admin, scene.platform, program, step)
    endpoint = await scene.create(f"kill {program} at {step}")
    await scene.answers(endpoint)
    await scene.ends_clean(endpoint)
    assert killed.done()
    await scene.platform.ready()

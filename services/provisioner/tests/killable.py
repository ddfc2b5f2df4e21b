"""A provisioner that is killed at a chosen step of its work.

Runs as a program: each line on stdin is a job, done in a process of its own, whose end is a line on
stdout. A job's `kill_at` is the number of the step, counted over the functions that change anything,
before which (odd) or after which (even) the process kills itself.
"""

import asyncio
import functools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from penstock_common.contracts.events import LogBatch, ReplicaReported
from penstock_common.contracts.records import Assignment
from penstock_provisioner.app import open_host
from penstock_provisioner.drivers.process import driver, procfs, shim
from penstock_provisioner.journal import Journal
from penstock_provisioner.settings import ProvisionerSettings
from penstock_provisioner.source.environment import Environments
from penstock_provisioner.source.fetch import Sources
from tests_support import eventually

STEPS = [
    (Journal, "save"),
    (Journal, "forget"),
    (Sources, "copy"),
    (Environments, "ensure"),
    (shim, "spawn"),
    (driver, "_remove_working_files"),
    (procfs, "kill_all"),
    (driver.ProcessDriver, "start"),
    (driver.ProcessDriver, "stop"),
]


class Fuse:
    """Counts steps once it is armed, and kills this process at the chosen one."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at
        self.armed = False

    def burn(self) -> None:
        if self.armed:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)
        if asyncio.iscoroutinefunction(original):

            @functools.wraps(original)
            async def asynchronous(*args: Any, **kwargs: Any) -> Any:
                self.burn()
                result = await original(*args, **kwargs)
                self.burn()
                return result

            setattr(owner, name, asynchronous)
        else:

            @functools.wraps(original)
            def synchronous(*args: Any, **kwargs: Any) -> Any:
                self.burn()
                result = original(*args, **kwargs)
                self.burn()
                return result

            setattr(owner, name, synchronous)


async def work(job: dict[str, Any]) -> None:
    """Bring the replica to ready, and for a job named `stop` on to its end; then leave, replica running or not."""
    fuse = Fuse(job["kill_at"])
    for owner, name in STEPS:
        fuse.wrap(owner, name)
    assignment = Assignment.model_validate(job["assignment"])
    wanted = [assignment]

    async def publish_report(report: ReplicaReported, _traceparent: str | None) -> None:
        append(Path(job["reports"]), report.model_dump_json() + "\n")

    async def publish_logs(_batch: LogBatch, _message_id: str) -> None:
        return

    settings = ProvisionerSettings.model_validate(job["settings"])
    fuse.armed = job["name"] == "start"
    async with open_host(
        settings, publish_report=publish_report, publish_logs=publish_logs, wanted=lambda: wanted
    ) as host:
        running = [asyncio.create_task(run()) for run in (host.reporter.run, host.logs.run, host.reconciler.run)]

        await eventually(lambda: any(report.phase == "ready" for report in host.reconciler.reports()))
        if job["name"] == "stop":
            fuse.armed = True
            wanted.clear()
            host.reconciler.wake()
            await eventually(lambda: all(report.phase == "stopped" for report in host.reconciler.reports()))
            for _ in range(6):
                host.reconciler.beat()
                await asyncio.sleep(0)
            await eventually(lambda: not host.reconciler.reports())
        for task in running:
            task.cancel()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def main() -> None:
    """Serve jobs until stdin ends."""
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            asyncio.run(work(json.loads(line)))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()

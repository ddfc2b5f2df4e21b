"""The supervisor: a daemon that starts the platform of one data directory and keeps it running.

Started by `up` with its task as JSON on standard input; ended by SIGTERM. While it lives it holds
the lock of the data directory, and it says how things go in `run/report.json`.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from penstock_launcher import environment, lock, logs, ports, report, state
from penstock_launcher.errors import LauncherError
from penstock_launcher.layout import Layout
from penstock_launcher.nats import ADMIN
from penstock_launcher.options import UpOptions, host_id_from
from penstock_launcher.platform import Platform
from penstock_launcher.processes import sweep

log = logging.getLogger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LEFTOVER_GRACE_S = 10.0
LOG_CHECK_S = 5.0
GATEWAY_PORT = 8080
API_PORT = 8081


class Supervisor:
    """From taking the lock to leaving."""

    def __init__(self, layout: Layout, options: UpOptions, start_id: str) -> None:
        self._layout = layout
        self._options = options
        self._platform: Platform | None = None
        self._ports: dict[str, int] = {}
        self._stop = asyncio.Event()
        self._report = report.Report(
            pid=os.getpid(),
            start_id=start_id,
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            api_key_file=str(layout.api_key),
        )

    async def run(self) -> int:
        """Start, keep running until asked to stop, stop. The exit code."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        self._publish()
        housekeeping = asyncio.create_task(self._keep_logs_bounded())
        stopping = asyncio.create_task(self._stop.wait())
        starting = asyncio.create_task(self._start())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        failed = await self._outcome(starting)
        if not failed:
            await stopping
        self._enter("stopping")
        await self._leave()
        self._enter("failed" if failed else "stopped")
        housekeeping.cancel()
        stopping.cancel()
        return 1 if failed else 0

    async def _start(self) -> None:
        # What an earlier supervisor left when it was killed; the provisioner adopts its replicas.
        await asyncio.to_thread(sweep, self._layout.root, grace_s=LEFTOVER_GRACE_S, supervised_only=True)
        kept = chosen_state(self._layout, self._options)
        self._report.gateway_url, self._report.api_url = environment.gateway_url(kept), environment.api_url(kept)
        self._ports = kept.ports
        base = environment.inherited(os.environ, self._layout)
        for name in base.keys() - environment.without_indexes(base).keys():
            del os.environ[name]  # which the servers inherit
        self._platform = Platform(
            self._layout,
            kept,
            self._options,
            base,
            changed=self._publish,
            step=self._step,
        )
        await self._platform.start()
        state.save(self._layout.state, kept)
        self._enter("running")

    async def _outcome(self, starting: asyncio.Task[None]) -> bool:
        """Whether the start failed, once it is over; it is over at once when we were asked to stop."""
        if self._stop.is_set():
            starting.cancel()
        try:
            await starting
        except asyncio.CancelledError:
            return False
        except LauncherError as error:
            self._fail(error)
            return True
        except Exception as error:
            log.exception("the start failed")
            self._fail(
                LauncherError(f"the platform could not be started: {error!r}", log_path=supervisor_log(self._layout))
            )
            return True
        return False

    def _fail(self, error: LauncherError) -> None:
        log.error("%s", error)
        self._report.error = error.message
        self._report.error_log_path = str(error.log_path) if error.log_path else None
        self._report.error_log_tail = error.log_tail

    async def _leave(self) -> None:
        if self._platform is None:
            return
        try:
            await self._platform.stop()
        except Exception:
            # Nothing may stay behind, however the orderly way ended.
            log.exception("stopping did not go as planned; ending what is left")
            await asyncio.to_thread(sweep, self._layout.root, grace_s=LEFTOVER_GRACE_S)

    async def _keep_logs_bounded(self) -> None:
        while True:
            paths = [program.spec.log_path for program in self._platform.programs.values()] if self._platform else []
            for path in (*paths, supervisor_log(self._layout)):
                try:
                    logs.rotate(path)
                except OSError as error:
                    log.warning("%s could not be rotated: %s", path, error)
            await asyncio.sleep(LOG_CHECK_S)

    # --- report ---------------------------------------------------------------------------

    def _enter(self, phase: report.Phase) -> None:
        log.info("%s", phase)
        self._report.phase = phase
        self._publish()

    def _step(self, text: str) -> None:
        log.info("%s", text)
        self._report.steps.append(text)
        self._publish()

    def _publish(self) -> None:
        programs = self._platform.programs.values() if self._platform else ()
        self._report.programs = [
            report.ProgramReport(
                name=program.spec.name,
                state=program.state,
                pid=program.pid,
                restarts=program.exits,
                log_path=str(program.spec.log_path),
                ready_after_s=program.ready_after_s,
                ops_port=self._ports[program.spec.name] if program.spec.name in environment.SERVICES else None,
            )
            for program in programs
        ]
        try:
            report.write(self._layout.report, self._report)
        except OSError as error:
            log.warning("the report could not be written: %s", error)


def supervisor_log(layout: Layout) -> Path:
    return layout.log("supervisor")


def chosen_state(layout: Layout, options: UpOptions) -> state.State:
    """The state kept from last time, or a new one, with ports that are free now; saved.

    Options that may keep the platform from starting are in it, but not saved: that is for after the start.
    """
    external = options.database_url is not None
    kept = state.load(layout.state) or state.State(
        host_id=host_id_from(socket.gethostname()), external_database=external
    )
    if kept.external_database != external:
        raise LauncherError(
            f"{layout.root} was set up with an external PostgreSQL: set DATABASE_URL to its address again"
            if kept.external_database
            else f"{layout.root} has a PostgreSQL of its own: unset DATABASE_URL, or choose another --data-dir"
        )
    if options.host_id is not None:
        kept.host_id = options.host_id
    kept.complete_passwords((*environment.SERVICES, ADMIN, environment.WEBHOOKS))
    kept.ports = _chosen_ports(kept.ports, options)
    state.save(layout.state, kept)
    if options.simulate_gpus is not None:
        kept.simulate_gpus = options.simulate_gpus
    if options.otlp_endpoint is not None:
        kept.otlp_endpoint = options.otlp_endpoint
    return kept


def _chosen_ports(kept: dict[str, int], options: UpOptions) -> dict[str, int]:
    chosen: dict[str, int] = {}
    for name, asked, preferred in (
        ("gateway", options.gateway_port, GATEWAY_PORT),
        ("api", options.api_port, API_PORT),
    ):
        key = f"{name}-http"
        chosen[key] = ports.public_port(
            name, asked=asked, kept=kept.get(key), preferred=preferred, used=chosen.values()
        )
    for name in ("nats", "postgres", *environment.SERVICES):
        chosen[name] = ports.internal_port(name, kept=kept.get(name), used=chosen.values())
    return chosen


def start_task(layout: Layout, options: UpOptions, start_id: str) -> bytes:
    """What the supervisor reads from its standard input."""
    choices = {name: value for name, value in asdict(options).items() if name != "data_dir"}
    return json.dumps({"root": str(layout.root), "start_id": start_id, "options": choices}).encode()


def main() -> int:
    """Read the task, become a daemon, take the lock, run."""
    task = json.load(sys.stdin)
    if os.fork():
        # Whoever started us may go on; the report says how it ends.
        os._exit(0)
    os.setsid()
    os.umask(0o022)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=logging.INFO, format="%(asctime)sZ %(levelname)s %(message)s", stream=sys.stderr)
    layout = Layout(Path(task["root"]))
    # Whoever sees the lock may ask us to stop: that waits until we can do so in order.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    if lock.take(layout.lock) is None:
        log.info("another supervisor is running")
        return 0
    return asyncio.run(Supervisor(layout, UpOptions(**task["options"]), task["start_id"]).run())


if __name__ == "__main__":
    sys.exit(main())

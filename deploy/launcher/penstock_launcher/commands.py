"""Starting, stopping and looking at the platform: what `penstock up`, `down` and `status` do.

They return data; whoever calls them shows it. Failures are LauncherError.
"""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from penstock_launcher import environment, lock, report
from penstock_launcher.errors import LauncherError
from penstock_launcher.files import tail, write_private
from penstock_launcher.layout import Layout, layout_of, prepare
from penstock_launcher.options import DATABASE_URL, UpOptions, check, default_data_dir
from penstock_launcher.probes import answers_ready
from penstock_launcher.processes import PROCESS, hold, sweep
from penstock_launcher.supervisor import start_task, supervisor_log

Progress = Callable[[str], None]

LOOK_EVERY_S = 0.03
BEGIN_WAIT_S = 15.0
"""Longest time from starting the supervisor to its first report."""
UP_WAIT_S = 180.0
DOWN_WAIT_S = 120.0
SWEEP_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Up:
    """A platform that is ready. `api_key_file` holds the key of the first organization's owner."""

    already_running: bool
    data_dir: Path
    gateway_url: str
    api_url: str
    api_key_file: Path
    config_file: Path
    took_s: float

    def api_key(self) -> str:
        return self.api_key_file.read_text().strip()


@dataclass(frozen=True, slots=True)
class Down:
    """`was_running` is false when there was no supervisor; `swept` counts processes ended besides."""

    was_running: bool
    swept: int
    data_dir: Path
    took_s: float


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """`state` is ready, unready (it runs, but says it cannot serve), starting, waiting or stopped."""

    name: str
    state: str
    pid: int | None
    restarts: int
    log_path: Path


@dataclass(frozen=True, slots=True)
class Status:
    """`state` is stopped, starting, running or stopping. URLs are empty while nothing runs."""

    state: str
    data_dir: Path
    gateway_url: str = ""
    api_url: str = ""
    api_key_file: str = ""
    started_at: str = ""
    programs: tuple[ProgramStatus, ...] = ()

    @property
    def healthy(self) -> bool:
        return self.state == "running" and all(program.state == "ready" for program in self.programs)


def up(options: UpOptions, progress: Progress) -> Up:
    """Start the platform and wait until it is ready; if it runs already, say so.

    `progress` is called with one line for each thing that happened. Raises LauncherError.
    """
    began = time.monotonic()
    check(options)
    if options.database_url is None and os.environ.get(DATABASE_URL):
        options = replace(options, database_url=os.environ[DATABASE_URL])
        check(options)
    layout = layout_of(options.data_dir or default_data_dir())
    already = _runs(layout, progress)
    start_id = ""
    if already:
        if replace(options, data_dir=None, database_url=None) != UpOptions():
            progress("it is running already, and these options change nothing: give them again after `penstock down`")
    else:
        prepare(layout, own_postgres=options.database_url is None)
        start_id = _start_supervisor(layout, options)
    found = _follow_start(layout, start_id, progress)
    config_file = write_config(found.api_url, Path(found.api_key_file), os.environ)
    return Up(
        already_running=already,
        data_dir=layout.root,
        gateway_url=found.gateway_url,
        api_url=found.api_url,
        api_key_file=Path(found.api_key_file),
        config_file=config_file,
        took_s=time.monotonic() - began,
    )


def down(data_dir: Path | None, progress: Progress) -> Down:
    """Stop everything of this data directory and nothing else, also when its supervisor is gone."""
    began = time.monotonic()
    layout = layout_of(data_dir or default_data_dir())
    pid = lock.holder(layout.lock)
    if pid is not None:
        _stop_supervisor(layout, pid, progress)
    swept = sweep(layout.root, grace_s=SWEEP_GRACE_S)
    return Down(was_running=pid is not None, swept=swept, data_dir=layout.root, took_s=time.monotonic() - began)


def status(data_dir: Path | None = None) -> Status:
    """How the platform is now; each service is asked whether it is ready."""
    layout = layout_of(data_dir or default_data_dir())
    found = _current_report(layout)
    if found is None:
        return Status("stopped", layout.root)
    return Status(
        found.phase,
        layout.root,
        gateway_url=found.gateway_url,
        api_url=found.api_url,
        api_key_file=found.api_key_file,
        started_at=found.started_at,
        programs=asyncio.run(_program_statuses(found)),
    )


def write_config(api_url: str, api_key_file: Path, environ: Mapping[str, str]) -> Path:
    """Tell the SDK and the command line of this user where the platform is; returns the file written."""
    base = Path(environ.get("XDG_CONFIG_HOME", ""))
    path = (base if base.is_absolute() else Path.home() / ".config") / "penstock" / "config.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, json.dumps({"api_url": api_url, "api_key_file": str(api_key_file)}, indent=2) + "\n")
    except OSError as error:
        raise LauncherError(
            f"the platform is running, but {path} cannot be written ({error.strerror}): "
            "make it writable, or set XDG_CONFIG_HOME"
        ) from error
    return path


def _runs(layout: Layout, progress: Progress) -> bool:
    """Whether the platform runs or is starting. One that is stopping is waited for."""
    deadline = time.monotonic() + DOWN_WAIT_S
    told = False
    while lock.holder(layout.lock) is not None:
        found = _current_report(layout)
        if found is None or found.phase in ("starting", "running"):
            return True
        if not told:
            progress("waiting for the platform that is being stopped")
            told = True
        if time.monotonic() > deadline:
            raise LauncherError("the platform is being stopped, and has not ended: see `penstock status`")
        time.sleep(LOOK_EVERY_S)
    return False


def _start_supervisor(layout: Layout, options: UpOptions) -> str:
    """Start the daemon and return the id of this start, which its report carries."""
    start_id = secrets.token_hex(8)
    with supervisor_log(layout).open("ab") as log:
        subprocess.run(
            [sys.executable, "-P", "-m", "penstock_launcher.supervisor"],
            input=start_task(layout, options, start_id),
            stdout=log,
            stderr=log,
            cwd=layout.root,
            env={**environment.inherited(os.environ, layout), PROCESS: "supervisor"},
            check=False,
        )
    return start_id


def _follow_start(layout: Layout, start_id: str, progress: Progress) -> report.Report:
    """The report of a platform that runs. Raises LauncherError when the start fails, or takes too long."""
    began = time.monotonic()
    shown = 0
    while time.monotonic() - began < UP_WAIT_S:
        found = _current_report(layout) or _own_report(layout, start_id)
        if found is not None:
            for step in found.steps[shown:] if start_id else ():
                progress(step)
            shown = len(found.steps)
            if found.phase == "running":
                return found
            if found.phase in ("failed", "stopped"):
                raise _failure(found)
        elif not start_id and lock.holder(layout.lock) is None:
            raise _failure(report.read(layout.report))
        elif time.monotonic() - began > BEGIN_WAIT_S:
            path = supervisor_log(layout)
            raise LauncherError("the supervisor did not start", log_path=path, log_tail=tail(path))
        time.sleep(LOOK_EVERY_S)
    raise LauncherError(f"the platform was not ready after {UP_WAIT_S:g} s: see `penstock status`")


def _failure(found: report.Report | None) -> LauncherError:
    if found is None or found.error is None:
        return LauncherError("the platform was stopped while it started")
    path = Path(found.error_log_path) if found.error_log_path else None
    return LauncherError(found.error, log_path=path, log_tail=found.error_log_tail)


def _current_report(layout: Layout) -> report.Report | None:
    """The report of the supervisor that holds the lock now."""
    pid = lock.holder(layout.lock)
    found = report.read(layout.report) if pid is not None else None
    return found if found is not None and found.pid == pid else None


def _own_report(layout: Layout, start_id: str) -> report.Report | None:
    """The report of the supervisor that we started, though it may have left by now."""
    found = report.read(layout.report) if start_id else None
    return found if found is not None and found.start_id == start_id else None


def _stop_supervisor(layout: Layout, pid: int, progress: Progress) -> None:
    process = hold(pid)
    if process is None:
        return
    try:
        before = report.read(layout.report)
        shown = len(before.steps) if before else 0
        process.send(signal.SIGTERM)
        deadline = time.monotonic() + DOWN_WAIT_S
        while not process.wait(LOOK_EVERY_S):
            found = report.read(layout.report)
            steps = found.steps if found else []
            for step in steps[shown:]:
                progress(step)
            shown = max(shown, len(steps))
            if time.monotonic() > deadline:
                progress(f"the supervisor did not stop within {DOWN_WAIT_S:g} s and is killed")
                process.send(signal.SIGKILL)
                deadline += DOWN_WAIT_S
    finally:
        os.close(process.descriptor)


async def _program_statuses(found: report.Report) -> tuple[ProgramStatus, ...]:
    async def look(program: report.ProgramReport) -> ProgramStatus:
        now = program.state
        if now == "ready" and program.ops_port is not None and not await answers_ready(program.ops_port):
            now = "unready"
        return ProgramStatus(program.name, now, program.pid, program.restarts, Path(program.log_path))

    return tuple(await asyncio.gather(*(look(program) for program in found.programs)))

"""What the supervisor tells the world: a small file that `up`, `down` and `status` read."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from penstock_launcher.files import write_private

Phase = Literal["starting", "running", "stopping", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class ProgramReport:
    """One supervised program. `restarts` counts since the supervisor started."""

    name: str
    state: str
    pid: int | None
    restarts: int
    log_path: str
    ready_after_s: float | None
    ops_port: int | None


@dataclass(slots=True)
class Report:
    """`start_id` names the `up` that started this supervisor; `steps` is its progress, oldest first."""

    pid: int
    start_id: str
    phase: Phase = "starting"
    steps: list[str] = field(default_factory=list)
    started_at: str = ""
    gateway_url: str = ""
    api_url: str = ""
    api_key_file: str = ""
    error: str | None = None
    error_log_path: str | None = None
    error_log_tail: str = ""
    programs: list[ProgramReport] = field(default_factory=list)


def write(path: Path, report: Report) -> None:
    write_private(path, json.dumps(asdict(report)))


def read(path: Path) -> Report | None:
    """The report, or None when there is none that can be read."""
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
        programs = [ProgramReport(**program) for program in kept.pop("programs")]
        return Report(**kept, programs=programs)
    except (OSError, ValueError, KeyError, TypeError):
        return None

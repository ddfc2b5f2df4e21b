"""The phases of an endpoint as they happen, with the time since the first."""

import sys
import time
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from penstock.cli.output import console, note
from penstock.cli.words import duration, plain

if TYPE_CHECKING:
    from penstock.models.endpoint import LifecycleEvent

_PHASE_WIDTH = 16
_STYLES = {"running": "green", "idle": "green", "stopped": "green", "terminated": "green", "failed": "red"}


class Phases:
    """Prints a line for each event on standard error; on a terminal, a clock ticks below them."""

    def __init__(self, waiting_for: str) -> None:
        self._began_s = time.monotonic()
        self._first_at: datetime | None = None
        self._phase = waiting_for
        self._shown = ("", "")
        self._live: Live | None = None
        if sys.stderr.isatty():
            self._live = Live(_Clock(self), console=console(stderr=True), transient=True, refresh_per_second=8)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    @property
    def phase(self) -> str:
        return self._phase

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, event: "LifecycleEvent") -> None:
        """Print an event; one that says nothing new is passed over."""
        said = (event.phase, event.message)
        if said == self._shown:
            return
        # Times between events are the server's own: what the network adds is no part of them.
        self._first_at = self._first_at or event.at
        since = _elapsed(max(0.0, (event.at - self._first_at).total_seconds()))
        phase = "" if event.phase == self._shown[0] else event.phase
        # Why it failed is told at the end, with the last lines of the log.
        message = "" if event.phase == "failed" else plain(event.message)
        line = Text.assemble(
            (f"{since:>10}  ", "dim"), (phase.ljust(_PHASE_WIDTH), _STYLES.get(phase, "bold")), message
        )
        line.rstrip()
        self._shown, self._phase = said, event.phase
        if self._live is not None:
            self._live.console.print(line, soft_wrap=True)
        else:
            note(line)


def _elapsed(seconds: float) -> str:
    """Hundredths, as long as they say something."""
    return f"{seconds:.2f} s" if seconds < 10 else duration(seconds)


class _Clock:
    """The spinner, drawn anew at each refresh."""

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        self._spinner = Spinner("dots")

    def __rich_console__(self, console: Console, options: object) -> RenderResult:
        self._spinner.update(text=Text(f"{self._phases.phase} … {duration(self._phases.elapsed_s)}", style="dim"))
        yield self._spinner

"""Why a replica ended, in words for its user. Pure."""

import signal
from dataclasses import replace

from penstock_common.contracts.events import EndCause
from penstock_provisioner.domain import Ending, Exit

# What the runtime exits with after it wrote one plain sentence about why.
_EXPLAINED_EXITS = frozenset({3, 4})
_KILLED = 128 + signal.SIGKILL
_DETAIL_CHARS_MAX = 1000


def stopped(cause: EndCause) -> Ending:
    """The ending of a replica that was asked to stop."""
    return Ending("stopped", cause)


def forced(ending: Ending, grace_s: float) -> Ending:
    """The same for one that would not."""
    return replace(ending, detail=f"it did not stop within {grace_s:g} s and was killed")


def start_timeout(timeout_s: float, tail: list[str]) -> Ending:
    detail = (
        f"the model did not become ready within {timeout_s:g} s: it may hang while it loads, or need longer; "
        f"{_last_output(tail)}"
    )
    return Ending("failed", "start_timeout", _cut(detail), log_tail="\n".join(tail))


def unresponsive(misses: int, timeout_s: float, tail: list[str]) -> Ending:
    detail = (
        f"the model answered none of {misses} pings in a row within {timeout_s:g} s each and was killed: "
        "it may be stuck, or hold Python's lock for too long"
    )
    return Ending("failed", "unresponsive", detail, log_tail="\n".join(tail))


def exited(found: Exit, *, was_ready: bool, tail: list[str]) -> Ending:
    """The ending of a replica that nobody asked to stop."""
    log_tail = "\n".join(tail)
    if found.code is None:
        detail = "its process is gone and left no trace of why: it was killed from outside, or the host restarted"
        return Ending("failed", "vanished", detail, log_tail=log_tail)
    if found.code == _KILLED:
        return _killed(found, was_ready=was_ready, tail=tail)
    when = "" if was_ready else " before it was ready"
    if found.code in _EXPLAINED_EXITS and tail and not was_ready:
        detail = tail[-1]
    elif found.code > 128 and found.code - 128 in _SIGNALS:
        detail = f"the model's process was ended by {_SIGNALS[found.code - 128]}{when}; {_last_output(tail)}"
    else:
        detail = f"the model's process ended by itself with exit code {found.code}{when}; {_last_output(tail)}"
    cause: EndCause = "crashed" if was_ready else "start_failed"
    return Ending("failed", cause, _cut(detail), found.code, log_tail)


def exited_unseen(found: Exit, *, was_ready: bool, tail: list[str]) -> Ending:
    """The ending of a replica that ended while no provisioner was there to see it.

    The runtime exits with 0 after SIGTERM only: then somebody stopped it, and nothing crashed.
    """
    if found.code == 0:
        detail = "it was stopped from outside while this host's provisioner was not running"
        return Ending("stopped", "vanished", detail, 0, "\n".join(tail))
    return exited(found, was_ready=was_ready, tail=tail)


def _killed(found: Exit, *, was_ready: bool, tail: list[str]) -> Ending:
    if found.out_of_memory:
        detail = (
            "the model's process was killed, and this host ran out of memory while it ran: "
            "use a smaller model or batch, or a host with more memory"
        )
        return Ending("failed", "out_of_memory", detail, found.code, "\n".join(tail))
    known = "" if found.out_of_memory is None else ", though the kernel reports no lack of memory"
    detail = f"the model's process was killed with SIGKILL, and not by Penstock{known}; {_last_output(tail)}"
    return Ending("failed", "crashed" if was_ready else "start_failed", _cut(detail), found.code, "\n".join(tail))


def _last_output(tail: list[str]) -> str:
    return f"its last output: {tail[-1]}" if tail else "it printed nothing"


def _cut(text: str) -> str:
    return text if len(text) <= _DETAIL_CHARS_MAX else text[: _DETAIL_CHARS_MAX - 1] + "…"


_SIGNALS = {number.value: number.name for number in signal.Signals}

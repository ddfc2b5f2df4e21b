"""An error as a person reads it on standard error: what is wrong, where, and what to do next."""

import re

from rich.text import Text

from penstock.cli.output import note
from penstock.cli.words import plain, plural
from penstock.errors import ApiError, EndpointFailed, FieldError, PenstockError

_LOG_LINES_SHOWN = 20
_OPTIONS = {
    "name": "NAME",
    "workspace": "--workspace",
    "source.uri": "--git-uri",
    "source.ref": "--git-ref",
    "gpu": "--gpu-type",
    "gpu.type": "--gpu-type",
    "gpu.count": "--gpu-count",
    "resources.cpu_cores": "--cpu-cores",
    "resources.memory_gb": "--memory-gb",
    "resources.disk_gb": "--disk-gb",
    "scaling.min_replicas": "--min-replicas, --replicas",
    "scaling.max_replicas": "--max-replicas, --replicas",
    "scaling.idle_timeout_s": "--idle-timeout",
    "scaling.scale_down_delay_s": "--scale-down-delay",
    "scaling.queue_wait_target_s": "--queue-wait-target",
    "scaling.schedule": "--schedule",
    "scaling.target_concurrency": "--target-concurrency",
    "scaling.queue_limit": "--queue-limit",
    "scaling.queue_timeout_s": "--queue-timeout",
    "from": "--from, --since",
    "step": "--step",
}
_NUMBERED = {
    "--route": re.compile(r"routes\.(\d+)(?:\..+)?"),
    "--schedule": re.compile(r"scaling\.schedule\.(\d+)(?:\..+)?"),
}


def complain(error: PenstockError) -> None:
    """Print an error."""
    fields = error.errors if isinstance(error, ApiError) else ()
    need = "needs" if len(fields) == 1 else "need"
    head = f"{plural(len(fields), 'field')} {need} mending" if fields else error.message
    note(Text.assemble(("error: ", "bold red"), plain(head)))
    width = max((len(where(field)) for field in fields), default=0)
    for field in fields:
        note(Text.assemble("  ", (where(field).ljust(width), "bold"), "  ", plain(field.message)))
    if isinstance(error, EndpointFailed) and error.log_tail:
        note(Text("last lines of its log:"))
        for line in error.log_tail.splitlines()[-_LOG_LINES_SHOWN:]:
            note(Text(f"  | {plain(line)}", style="dim"))
    if error.hint:
        note(Text.assemble(("hint: ", "bold"), plain(error.hint)))


def where(field: FieldError) -> str:
    """The field as the API names it, and the option that sets it."""
    option = _OPTIONS.get(field.field)
    for name, pattern in _NUMBERED.items():
        found = pattern.fullmatch(field.field)
        if found is not None:
            option = f"{name} {int(found[1]) + 1}"
    return f"{plain(field.field)} ({option})" if option else plain(field.field)

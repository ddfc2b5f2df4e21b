"""Arguments and options that commands share, or have too many of to read in place."""

from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.connect import complete_endpoint

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
Reference = Annotated[
    str,
    typer.Argument(
        metavar="ENDPOINT",
        help="Its name, workspace/name, or id.",
        autocompletion=complete_endpoint,
        show_default=False,
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return as soon as the platform has taken the request.")]
Timeout = Annotated[
    str | None,
    typer.Option(
        "--timeout", metavar="TIME", help="Longest wait, such as 90s or 10m; then exit 6. Without it, no limit."
    ),
]

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name, unique in its workspace.", show_default=False)]
GitUri = Annotated[
    str,
    typer.Option(
        "--git-uri",
        metavar="URI",
        help="Repository of the model: https, or a local path where the platform allows it.",
        show_default=False,
    ),
]
GitRef = Annotated[
    str | None,
    typer.Option("--git-ref", metavar="REF", help="Branch, tag or commit; the default branch if left out."),
]
RouteTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--route", metavar="JSON", help="A route as a JSON object. May be given several times.", show_default=False
    ),
]
RoutesFile = Annotated[
    Path | None,
    typer.Option("--routes-file", metavar="FILE", help="A JSON file holding a list of routes; - for standard input."),
]
Workspace = Annotated[str | None, typer.Option("--workspace", "-w", metavar="SLUG", help="Workspace it belongs to.")]
GpuType = Annotated[
    str | None,
    typer.Option("--gpu-type", metavar="TYPE", help="As `penstock gpu list` names it; none means CPU only."),
]
GpuCount = Annotated[int | None, typer.Option("--gpu-count", metavar="N", help="GPUs for each replica, 1 to 4.")]
CpuCores = Annotated[int | None, typer.Option("--cpu-cores", metavar="N", help="CPU cores for each replica.")]
MemoryGb = Annotated[int | None, typer.Option("--memory-gb", metavar="N", help="Memory for each replica, in GB.")]
DiskGb = Annotated[int | None, typer.Option("--disk-gb", metavar="N", help="Working disk for each replica, in GB.")]
Replicas = Annotated[
    int | None,
    typer.Option("--replicas", metavar="N", help="Always so many: --min-replicas and --max-replicas in one."),
]
MinReplicas = Annotated[
    int | None,
    typer.Option("--min-replicas", metavar="N", help="Replicas that always run; with 0 it sleeps when nobody calls."),
]
MaxReplicas = Annotated[int | None, typer.Option("--max-replicas", metavar="N", help="Most replicas that may run.")]
IdleTimeout = Annotated[
    str | None,
    typer.Option("--idle-timeout", metavar="TIME", help="Time without a request until it sleeps (--min-replicas 0)."),
]
ScaleDownDelay = Annotated[
    str | None,
    typer.Option("--scale-down-delay", metavar="TIME", help="Time of lower load until a replica is taken away."),
]
QueueWaitTarget = Annotated[
    str | None,
    typer.Option("--queue-wait-target", metavar="TIME", help="Also add replicas while requests would wait longer."),
]
Schedule = Annotated[
    list[str] | None,
    typer.Option(
        "--schedule",
        metavar="START;END;ZONE;N",
        help="At least N replicas from START to END, both cron lines; the zone may be left out. May be given "
        "several times.",
        show_default=False,
    ),
]
TargetConcurrency = Annotated[
    int | None,
    typer.Option("--target-concurrency", metavar="N", help="Requests that one replica works on at a time."),
]
QueueLimit = Annotated[
    int | None, typer.Option("--queue-limit", metavar="N", help="Requests that may wait; more are answered 503.")
]
QueueTimeout = Annotated[
    str | None, typer.Option("--queue-timeout", metavar="TIME", help="Longest that a request waits for a replica.")
]
Public = Annotated[bool, typer.Option("--public", help="Requests need no API key.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Create nothing; say what would happen and what it would cost.")
]

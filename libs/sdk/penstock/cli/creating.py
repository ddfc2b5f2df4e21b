"""`penstock endpoint create`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from penstock.cli import output
from penstock.cli import parameters as take
from penstock.cli.connect import client, pasteable
from penstock.cli.exits import UsageProblem
from penstock.cli.routes import routes_of
from penstock.cli.scaling import cost, scaling_of
from penstock.cli.waiting import wait_for
from penstock.cli.words import money, seconds_of

if TYPE_CHECKING:
    from penstock.client import Endpoint
    from penstock.models.endpoint import Forecast

EXAMPLES = """\
Examples:
  penstock endpoint create --git-uri https://github.com/acme/iris.git \\
    --gpu-type "RTX 4090" --route '{"path": "/predict", "file": "predict",
    "function": "predict", "body": [{"name": "features", "type": "list"}]}' Iris

  penstock endpoint create --git-uri ./iris --routes-file routes.json --dry-run Iris

  penstock endpoint create --git-uri ./iris --routes-file routes.json --min-replicas 0 \\
    --max-replicas 4 --schedule '0 8 * * 1-5;0 18 * * 1-5;Europe/Berlin;2' Iris

Ctrl-C stops the waiting, not the endpoint."""


def create(
    name: take.Name,
    git_uri: take.GitUri,
    git_ref: take.GitRef = None,
    route: take.RouteTexts = None,
    routes_file: take.RoutesFile = None,
    workspace: take.Workspace = None,
    gpu_type: take.GpuType = None,
    gpu_count: take.GpuCount = None,
    cpu_cores: take.CpuCores = None,
    memory_gb: take.MemoryGb = None,
    disk_gb: take.DiskGb = None,
    replicas: take.Replicas = None,
    min_replicas: take.MinReplicas = None,
    max_replicas: take.MaxReplicas = None,
    idle_timeout: take.IdleTimeout = None,
    scale_down_delay: take.ScaleDownDelay = None,
    queue_wait_target: take.QueueWaitTarget = None,
    schedule: take.Schedule = None,
    target_concurrency: take.TargetConcurrency = None,
    queue_limit: take.QueueLimit = None,
    queue_timeout: take.QueueTimeout = None,
    public: take.Public = False,
    dry_run: take.DryRun = False,
    no_wait: take.NoWait = False,
    timeout: take.Timeout = None,
    as_json: take.AsJson = False,
) -> None:
    """Create an endpoint, show each phase until it runs, and print its URL.

    The commit and the resolved packages are pinned: every later start uses exactly those.
    """
    timeout_s = seconds_of(timeout, "--timeout") if timeout else None
    options: dict[str, Any] = {
        "name": name,
        "git_uri": source_of(git_uri),
        "git_ref": git_ref,
        "routes": routes_of(route or [], routes_file),
        "workspace": workspace,
        "gpu_type": gpu_type,
        "gpu_count": gpu_count,
        "cpu_cores": cpu_cores,
        "memory_gb": memory_gb,
        "disk_gb": disk_gb,
        "target_concurrency": target_concurrency,
        "queue_limit": queue_limit,
        "public": public or None,
        **scaling_of(
            replicas=replicas,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            idle_timeout=idle_timeout,
            scale_down_delay=scale_down_delay,
            queue_wait_target=queue_wait_target,
            schedule=schedule,
            queue_timeout=queue_timeout,
        ),
    }
    with client() as penstock:
        if dry_run:
            _show_forecast(penstock.endpoints.create(dry_run=True, **options), as_json, sleeps=min_replicas == 0)
            return
        endpoint = penstock.endpoints.create(**options)
        if not no_wait:
            wait_for(endpoint, "running", timeout_s=timeout_s, as_json=as_json)
        _show_created(endpoint, as_json)


def source_of(git_uri: str) -> str:
    """The repository's address; a local path made absolute, as the platform does not know our folder.

    Raises UsageProblem for a path that does not exist here.
    """
    scheme = urlsplit(git_uri).scheme if "://" in git_uri else ""
    path = Path(git_uri).expanduser()
    looks_local = git_uri.startswith((".", "~", "/")) or path.exists()
    if scheme or not looks_local:
        return git_uri
    if not path.is_dir():
        raise UsageProblem(
            f"--git-uri: there is no folder {git_uri}.", "Give the path of a git repository, or an https address."
        )
    return os.path.abspath(path)


def _show_created(endpoint: "Endpoint", as_json: bool) -> None:
    if as_json:
        output.document(endpoint)
        return
    if endpoint.state not in ("running", "idle"):
        output.line(f"Endpoint {endpoint.full_name} is {endpoint.state}; it will answer at {endpoint.url}")
        output.note(f"Follow it with `penstock endpoint events -f {endpoint.full_name}`.")
        return
    output.line(f"URL: {endpoint.url}")
    price = cost(money(endpoint.price_micros_per_hour, endpoint.currency), endpoint.spec.scaling)
    if price:
        output.line(f"Cost: {price}")
    if endpoint.state == "idle":
        output.line("It sleeps: the next request wakes it.")
    if endpoint.example_command:
        output.line("Try it:")
        output.line(pasteable(endpoint.example_command))


def _show_forecast(forecast: "Forecast", as_json: bool, *, sleeps: bool) -> None:
    if as_json:
        output.document(forecast)
        return
    place = "" if forecast.position is None else f", at position {forecast.position}"
    commit = forecast.source.commit if forecast.source else ""
    price = f"{money(forecast.price_micros_per_hour, forecast.currency)} an hour while it runs"
    output.fields(
        (
            ("Would", "start now" if forecast.starts_now else f"wait in the queue{place}"),
            ("Because", forecast.reason),
            ("Cost", f"{price}, for the first replica; nothing while it sleeps" if sleeps else price),
            ("Commit", commit),
            ("URL", forecast.url),
        )
    )
    output.note("Nothing was created.")

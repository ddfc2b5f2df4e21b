"""`penstock endpoint …`: everything about endpoints but their creation."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli import calling, creating, metrics, output, scaling, story
from penstock.cli import parameters as take
from penstock.cli.connect import client, named, pasteable
from penstock.cli.waiting import wait_for
from penstock.cli.words import ago, money, plain, seconds_of

if TYPE_CHECKING:
    from penstock.client import Endpoint
    from penstock.flows.waiting import Goal

_SERVING_STATES = frozenset({"queued", "starting", "running", "idle"})
"""States in which requests are taken; they wait while no replica is ready."""

_DECISIONS_SHOWN = 5

app = typer.Typer(help="Create, watch, call and end endpoints.", no_args_is_help=True)
app.command("create", epilog=creating.EXAMPLES)(creating.create)


@app.command("list", epilog="Example:  penstock endpoint list --state running")
def list_endpoints(
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", metavar="SLUG", help="Only those in this workspace.")
    ] = None,
    state: Annotated[str | None, typer.Option("--state", metavar="STATE", help="Only those in this state.")] = None,
    as_json: take.AsJson = False,
) -> None:
    """List endpoints."""
    with client() as penstock:
        found = list(penstock.endpoints.list(workspace=workspace, state=state))
    if as_json:
        output.document(found)
        return
    if not found:
        output.note("There are no endpoints. Make one with `penstock endpoint create`.")
        return
    now = datetime.now(UTC)
    output.table(
        ("ENDPOINT", "STATE", "READY", "LIMITS", "GPU", "IDLE SINCE", "CREATED", "URL"),
        (
            (
                endpoint.full_name,
                output.state(endpoint.state),
                scaling.counts(endpoint),
                scaling.limits(endpoint.spec.scaling),
                _gpus(endpoint),
                ago(endpoint.idle_since, now),
                ago(endpoint.created_at, now),
                endpoint.url,
            )
            for endpoint in found
        ),
    )


@app.command()
def show(endpoint: take.Reference, as_json: take.AsJson = False) -> None:
    """Show everything about one endpoint."""
    with named(endpoint) as found:
        if as_json:
            output.document(found)
        else:
            _show(found)


def _show(endpoint: "Endpoint") -> None:
    now = datetime.now(UTC)
    source = endpoint.source
    output.fields(
        (
            ("Endpoint", endpoint.full_name),
            ("Id", endpoint.id),
            ("State", output.state(endpoint.state)),
            ("Reason", endpoint.reason),
            ("Asleep", scaling.asleep(endpoint, now)),
            ("Queue position", endpoint.position),
            ("May start", endpoint.estimated_start_at),
            ("URL", endpoint.url),
            ("Host URL", endpoint.host_url),
            ("Source", f"{source.uri} at {source.ref}, commit {source.commit}" if source else ""),
            ("GPU", _gpus(endpoint)),
            ("Replicas", scaling.described(endpoint)),
            (
                "Schedule",
                "; ".join(map(scaling.window, endpoint.spec.scaling.schedule if endpoint.spec.scaling else ())),
            ),
            ("Cost", scaling.cost(money(endpoint.price_micros_per_hour, endpoint.currency), endpoint.spec.scaling)),
            ("Created", ago(endpoint.created_at, now)),
            ("Started", ago(endpoint.started_at, now)),
        )
    )
    routes = [
        (r.verb, r.path, f"{r.file}:{r.function}", ", ".join(p.name for p in r.body)) for r in endpoint.spec.routes
    ]
    output.line()
    output.table(("VERB", "PATH", "FUNCTION", "BODY"), routes)
    if endpoint.replicas:
        rows = [(r.id, r.host_id, output.state(r.phase), ago(r.ready_at, now), r.detail) for r in endpoint.replicas]
        output.line()
        output.table(("REPLICA", "HOST", "PHASE", "READY", "DETAIL"), rows)
    if endpoint.scaling_decisions:
        decisions = [
            (ago(d.at, now), d.desired_replicas, d.reason) for d in endpoint.scaling_decisions[:_DECISIONS_SHOWN]
        ]
        output.line()
        output.table(("SCALED", "TO", "BECAUSE"), decisions, right=frozenset({"TO"}))
    if endpoint.log_tail:
        output.line("\nLast lines of its log:")
        output.line(plain(endpoint.log_tail.rstrip()))
    if endpoint.example_command and endpoint.state in _SERVING_STATES:
        output.line("\nTry it:")
        output.line(pasteable(endpoint.example_command))


def _gpus(endpoint: "Endpoint") -> str:
    gpu = endpoint.spec.gpu
    return f"{gpu.count} × {gpu.type}" if gpu else "CPU"


@app.command(epilog="Example:  penstock endpoint stop iris")
def stop(
    endpoint: take.Reference, no_wait: take.NoWait = False, timeout: take.Timeout = None, as_json: take.AsJson = False
) -> None:
    """Stop an endpoint: its cost ends, and it can be restarted."""
    _change(endpoint, "stopped", no_wait, timeout, as_json)


@app.command(epilog="Example:  penstock endpoint restart iris --timeout 5m")
def restart(
    endpoint: take.Reference, no_wait: take.NoWait = False, timeout: take.Timeout = None, as_json: take.AsJson = False
) -> None:
    """Start a stopped endpoint again, from the same commit and packages, or wake one that sleeps."""
    _change(endpoint, "running", no_wait, timeout, as_json)


@app.command(epilog="Example:  penstock endpoint terminate iris")
def terminate(
    endpoint: take.Reference, no_wait: take.NoWait = False, timeout: take.Timeout = None, as_json: take.AsJson = False
) -> None:
    """End an endpoint for good, and remove all its data. It cannot be restarted."""
    _change(endpoint, "terminated", no_wait, timeout, as_json)


def _change(reference: str, until: "Goal", no_wait: bool, timeout: str | None, as_json: bool) -> None:
    """Ask for the change that leads to `until`, and see it through."""
    timeout_s = seconds_of(timeout, "--timeout") if timeout else None
    with named(reference) as endpoint:
        seen = max((event.id for event in endpoint.events()), default=0)
        {"stopped": endpoint.stop, "running": endpoint.restart, "terminated": endpoint.terminate}[until]()
        if not no_wait:
            wait_for(endpoint, until, timeout_s=timeout_s, as_json=as_json, after_event_id=seen)
        if as_json:
            output.document(endpoint)
        else:
            output.line(f"Endpoint {endpoint.full_name} is {endpoint.state}.")


app.command("logs", epilog=story.LOGS_EXAMPLES)(story.logs)
app.command("events", epilog=story.EVENTS_EXAMPLES)(story.events)
app.command("metrics", epilog=metrics.EXAMPLES)(metrics.metrics)
app.command("predict", epilog=calling.EXAMPLES)(calling.predict)

"""What there is, what it costs, and what was used."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import TypeAlias

from penstock.context import Context
from penstock.effects import Steps
from penstock.exchange import fetch
from penstock.models.account import Me
from penstock.models.capacity import Gpus, Usage

Moment: TypeAlias = datetime | date | str
"""A time with its zone, a day (from its first moment in UTC), or either in ISO 8601."""


def me(ctx: Context) -> Steps[Me]:
    """Who this client's API key belongs to, and what it may do."""
    return (yield from fetch(ctx, ctx.api("GET", "/v1/me"), Me))


def gpus(ctx: Context) -> Steps[Gpus]:
    """Each GPU type: how many there are, how many are free, the price, and what could start now."""
    return (yield from fetch(ctx, ctx.api("GET", "/v1/gpus"), Gpus))


def usage(
    ctx: Context,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    group_by: Sequence[str] = (),
    endpoint_id: str | None = None,
) -> Steps[Usage]:
    """What the organization used and cost in `[start, end)`.

    `group_by` names any of `endpoint`, `day`, `gpu_type`; by default rows are grouped by all three.
    """
    return (yield from usage_of(ctx, "/v1/usage", start=start, end=end, group_by=group_by, endpoint_id=endpoint_id))


def usage_of(
    ctx: Context,
    path: str,
    *,
    start: Moment | None,
    end: Moment | None,
    group_by: Sequence[str] = (),
    endpoint_id: str | None = None,
) -> Steps[Usage]:
    query = {
        "from": moment(start),
        "to": moment(end),
        "group_by": ",".join(group_by) or None,
        "endpoint_id": endpoint_id,
    }
    return (yield from fetch(ctx, ctx.api("GET", path, query=query), Usage))


def moment(value: Moment | None) -> str | None:
    """ISO 8601 with its zone. Raises ValueError for a datetime without one."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone: give it one, such as datetime.UTC")
        return value.isoformat()
    return f"{value.isoformat()}T00:00:00Z" if isinstance(value, date) else value

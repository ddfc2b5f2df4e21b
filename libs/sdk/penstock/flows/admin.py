"""What operators of the platform may do; all of it needs the scope platform:admin."""

from penstock.context import Context
from penstock.effects import Emit, Steps, Stream
from penstock.exchange import PAGE_MAX, call, fetch, pages
from penstock.flows.capacity import Moment, moment
from penstock.models.account import NewOrganization, Organization
from penstock.models.admin import DeadLetter, DeadLetters, Host, Hosts, Price, Prices, Replay

REPLAY_TIMEOUT_S = 120.0


def hosts(ctx: Context) -> Steps[tuple[Host, ...]]:
    """Every host that was ever heard of, and how it is."""
    return (yield from fetch(ctx, ctx.api("GET", "/v1/admin/hosts"), Hosts)).items


def dead_letters(ctx: Context, *, limit: int | None = None) -> Stream[DeadLetter]:
    """Messages that consumers gave up on, newest first; at most `limit`."""
    left = limit
    before: int | None = None
    while left is None or left > 0:
        size = PAGE_MAX if left is None else min(left, PAGE_MAX)
        page = yield from fetch(
            ctx, ctx.api("GET", "/v1/admin/dead", query={"limit": size, "before": before}), DeadLetters
        )
        for letter in page.items[:left]:
            yield Emit(letter)
        left = None if left is None else left - len(page.items)
        if page.next_before is None or page.next_before == before:
            return
        before = page.next_before


def retry_dead_letter(ctx: Context, sequence: int) -> Steps[None]:
    """Send a dead letter to its consumer again, once its cause is mended."""
    # Not repeated after a lost answer: the letter would be gone, and the error would mislead.
    yield from call(ctx, ctx.api("POST", f"/v1/admin/dead/{sequence}/retry", repeatable=False))


def drop_dead_letter(ctx: Context, sequence: int) -> Steps[None]:
    """Throw a dead letter away for good."""
    yield from call(ctx, ctx.api("DELETE", f"/v1/admin/dead/{sequence}", repeatable=False))


def replay(ctx: Context, since: Moment) -> Steps[Replay]:
    """Have every service publish its facts since a time again, and all its bucket records."""
    request = ctx.api("POST", "/v1/admin/replay", json={"since": moment(since)}, timeout_s=REPLAY_TIMEOUT_S)
    return (yield from fetch(ctx, request, Replay))


def prices(ctx: Context) -> Steps[tuple[Price, ...]]:
    """The prices in force now."""
    return (yield from fetch(ctx, ctx.api("GET", "/v1/admin/prices"), Prices)).items


def set_price(
    ctx: Context, gpu_type: str, *, micros_per_hour: int, currency: str = "USD", valid_from: Moment | None = None
) -> Steps[tuple[Price, ...]]:
    """Set the price of one GPU of a type (`CPU`: one core; `*`: any other type) and hour, from a time on.

    Returns the prices in force now.
    """
    body: dict[str, object] = {"gpu_type": gpu_type, "micros_per_hour": micros_per_hour, "currency": currency}
    if valid_from is not None:
        body["valid_from"] = moment(valid_from)
    return (yield from fetch(ctx, ctx.api("PUT", "/v1/admin/prices", json=body), Prices)).items


def organizations(ctx: Context) -> Stream[Organization]:
    """Every organization of the platform."""
    return pages(ctx, "/v1/organizations", Organization)


def create_organization(
    ctx: Context,
    name: str,
    *,
    owner_name: str | None = None,
    owner_email: str | None = None,
    idempotency_key: str | None = None,
) -> Steps[NewOrganization]:
    """Make an organization; the answer holds its owner's API key, which is never told again."""
    fields = {"name": name, "owner_name": owner_name, "owner_email": owner_email}
    body = {key: value for key, value in fields.items() if value is not None}
    return (yield from fetch(ctx, ctx.create("/v1/organizations", body, idempotency_key), NewOrganization))

"""Requests that a sleeping endpoint would refuse: refused in the words of the runtime itself, and not woken for."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_common.contracts.endpoint import BodyParameter, ParameterType, RouteSpec
from penstock_gateway.proxy.endpoint import Endpoint
from penstock_gateway.proxy.route_check import RouteCheck
from penstock_runtime.body import BodyTemplate
from penstock_runtime.loading import LoadedRoute
from penstock_runtime.problems import Problem
from penstock_runtime.server import ModelServer
from tests_support import eventually

from .plane import MakePlane, RunningPlane, ready
from .raw import AUTHORIZATION, HOST, Answer
from .replica import ScriptedReplica

FIELDS = HOST + AUTHORIZATION
PREDICT = RouteSpec(
    path="/predict",
    file="predict",
    function="predict",
    body=(
        BodyParameter(name="features", type="list"),
        BodyParameter(name="top", type="int", optional=True, default_value="3"),
        BodyParameter(name="note", type="str", optional=True),
    ),
)
ROUTES = (
    PREDICT,
    RouteSpec(verb="GET", path="/predict", file="predict", function="usage"),
    RouteSpec(verb="GET", path="/info", file="predict", function="info"),
    RouteSpec(path="/", file="predict", function="anything"),
)


async def replica_says(routes: Sequence[RouteSpec], method: str, target: str, body: bytes) -> dict[str, Any]:
    """The answer of the runtime's own server, as an ASGI server would ask it."""
    loaded = [
        LoadedRoute(route.verb, route.path, lambda *_, **__: {"ok": True}, BodyTemplate(route.body), False, False)
        for route in routes
    ]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    path = target.partition("?")[0]
    scope = {"type": "http", "method": method, "path": unquote(path), "raw_path": path.encode(), "headers": []}
    await ModelServer(loaded, 1, 1_000_000)(scope, receive, send)
    headers = dict(sent[0]["headers"])
    return {"status": sent[0]["status"], "body": sent[1]["body"], "allow": headers.get(b"allow", b"").decode()}


def said(answer: Answer) -> dict[str, Any]:
    return {"status": answer.status, "body": answer.body, "allow": "".join(answer.all("Allow"))}


REFUSED = [
    ("POST", "/predict", b'{"features": "x"}'),
    ("POST", "/predict", b'{"features": [1], "top": 1.5}'),
    ("POST", "/predict", b'{"features": [1], "top": null}'),
    ("POST", "/predict", b'{"features": [1], "colour": "red", "size": 3}'),
    ("POST", "/predict?x=1", b"[]"),
    ("POST", "/predict", b""),
    ("POST", "/predict", b'{"features": [NaN]}'),
    ("POST", "/predict", b"{"),
    ("POST", "/", b'{"x": 1}'),
    ("POST", "/unknown", b"{}"),
    ("POST", "/predict/", b"{}"),
    ("GET", "/%70redict%2f", b""),
    ("GET", "/" + "x" * 300, b""),
    ("GET", "/", b""),
    ("POST", "/info", b"{}"),
    ("PUT", "/predict", b"{}"),
    ("DELETE", "/info", b""),
]


@pytest.mark.parametrize(("method", "target", "body"), REFUSED)
async def test_a_sleeping_endpoint_refuses_in_the_words_of_its_replica_and_sleeps_on(
    make_plane: MakePlane, method: str, target: str, body: bytes
) -> None:
    plane, pressed = await asleep(make_plane)
    before_s = plane.endpoint.last_request_s
    async with plane.client() as client:
        for _ in range(2):
            answer = await client.request(method, target, body=body)
            assert said(answer) == await replica_says(ROUTES, method, target, body)
            assert answer.status in {400, 404, 405, 422}
            assert answer.one("Content-Type") == "application/problem+json"
            assert not answer.closes
    assert pressed == []
    assert len(plane.endpoint.queue) == 0
    assert plane.endpoint.last_request_s == before_s
    assert plane.endpoint.stats.statuses == {answer.status: 2}


async def test_by_path_the_prefix_is_no_part_of_the_route(make_plane: MakePlane) -> None:
    plane, pressed = await asleep(make_plane)
    async with plane.client() as client:
        answer = await client.request("POST", "/e/default/iris/nowhere", host=b"Host: localhost\r\n", body=b"{}")
        assert said(answer) == await replica_says(ROUTES, "POST", "/nowhere", b"{}")
    assert pressed == []


async def test_head_is_refused_without_a_body(make_plane: MakePlane) -> None:
    plane, _ = await asleep(make_plane)
    async with plane.client() as client:
        answer = await client.request("HEAD", "/info")
        assert (answer.status, answer.one("Allow")) == (405, "GET")
        assert (await client.request("GET", "/ping")).status == 200


async def test_a_chunked_body_is_checked_as_the_model_would_get_it(make_plane: MakePlane) -> None:
    plane, pressed = await asleep(make_plane)
    async with plane.client() as client:
        head = b"POST /predict HTTP/1.1\r\n" + FIELDS + b"Transfer-Encoding: chunked\r\n\r\n"
        await client.send(head + b'5\r\n{"fea\r\n')
        await client.send(b'c\r\ntures": "x"}\r\n0\r\nX-Sum: 1\r\n\r\n')
        assert said(await client.answer()) == await replica_says(ROUTES, "POST", "/predict", b'{"features": "x"}')
        assert pressed == []
        await client.send(head + b'11\r\n{"features": [1]}\r\n0\r\n\r\n')
        await until_it_waits(plane)
    assert pressed == [plane.endpoint]


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/predict?x=/nowhere", b'{"features": [1]}'),
        ("POST", "/%70redict", b'{"features": [1], "note": null}'),
        ("GET", "/info", b"not looked at"),
        ("POST", "/", b""),
        ("POST", "/predict", b'{"features": "' + b"x" * 100_000 + b'"}'),
    ],
)
async def test_what_the_replica_may_take_wakes_it(
    make_plane: MakePlane, replica: ScriptedReplica, method: str, target: str, body: bytes
) -> None:
    plane, pressed = await asleep(make_plane)
    async with plane.client() as client:
        answer = asyncio.create_task(client.request(method, target, body=body))
        await until_it_waits(plane)
        assert pressed == [plane.endpoint]
        plane.change_route(state="running", replicas=ready(replica))
        assert (await answer).json()["body"].encode() == body


async def test_a_body_longer_than_is_held_is_not_checked_though_it_came_at_once(make_plane: MakePlane) -> None:
    plane, pressed = await asleep(make_plane, settings={"held_bytes_max": 10})
    async with plane.client() as client:
        await client.send(b"POST /predict HTTP/1.1\r\n" + FIELDS + b"Content-Length: 12\r\n\r\n" + b"[1, 2, 3, 4]")
        await until_it_waits(plane)
    assert pressed == [plane.endpoint]


@pytest.mark.parametrize("state", ["queued", "starting", "running"])
async def test_an_endpoint_that_does_not_sleep_answers_for_itself(make_plane: MakePlane, state: str) -> None:
    plane = await make_plane(state=state, routes=ROUTES)
    async with plane.client() as client:
        await client.send(b"GET /nowhere HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await until_it_waits(plane)


async def test_with_a_ready_replica_nothing_is_checked_here(make_plane: MakePlane, replica: ScriptedReplica) -> None:
    plane = await make_plane(replica, state="idle", routes=ROUTES)
    async with plane.client() as client:
        assert (await client.request("GET", "/nowhere")).status == 200


async def test_an_endpoint_whose_routes_are_not_known_takes_anything(make_plane: MakePlane) -> None:
    plane = await make_plane(state="idle")
    async with plane.client() as client:
        await client.send(b"GET /nowhere HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await until_it_waits(plane)


async def test_routes_that_changed_hold_from_then_on(make_plane: MakePlane) -> None:
    plane, _ = await asleep(make_plane)
    async with plane.client() as client:
        assert (await client.request("GET", "/new")).status == 404
        plane.change_route(routes=(RouteSpec(verb="GET", path="/new", file="a", function="b"),))
        await client.send(b"GET /new HTTP/1.1\r\n" + FIELDS + b"\r\n")
        await until_it_waits(plane)


def test_a_template_that_cannot_be_applied_refuses_nothing() -> None:
    broken = RouteSpec(
        path="/x",
        file="a",
        function="b",
        body=(BodyParameter(name="n", type="int", optional=True, default_value="'text'"),),
    )
    assert RouteCheck((broken,)).refusal(b"POST", b"/x", b'{"m": 1}') is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=5,
)
PARAMETERS = st.lists(
    st.builds(
        BodyParameter,
        name=st.sampled_from(["a", "b", "c"]),
        type=st.sampled_from(["str", "int", "float", "bool", "dict", "list"]),
        optional=st.booleans(),
    ),
    max_size=3,
    unique_by=lambda parameter: parameter.name,
)
DEFAULTS: dict[ParameterType, Any] = {"str": "x", "int": 1, "float": 1.5, "bool": True, "dict": {}, "list": []}


@given(parameters=PARAMETERS, document=JSON, defaults=st.booleans())
def test_nothing_is_refused_that_the_replica_would_take(
    parameters: list[BodyParameter], document: Any, defaults: bool
) -> None:
    """Whatever defaults the model's functions have, which the gateway does not know."""
    own = {one.name: DEFAULTS[one.type] for one in parameters if one.optional and defaults}
    body = json.dumps(document).encode()
    check = RouteCheck((RouteSpec(path="/x", file="a", function="b", body=tuple(parameters)),))
    refusal = check.refusal(b"POST", b"/x", body)
    theirs = refused_with(BodyTemplate(parameters, own), body)
    if refusal is not None:
        assert theirs is not None
    if not own:
        assert (refusal and refusal.body) == theirs


def refused_with(template: BodyTemplate, body: bytes) -> bytes | None:
    try:
        template.arguments(body)
    except Problem as problem:
        return problem.encode()
    return None


# --- parts ------------------------------------------------------------------------------------


async def asleep(make_plane: MakePlane, **options: Any) -> tuple[RunningPlane, list[Endpoint]]:
    """A sleeping endpoint, and the list of its wake-ups."""
    plane = await make_plane(state="idle", routes=ROUTES, **options)
    pressed: list[Endpoint] = []
    plane.plane.context.pressed = pressed.append
    return plane, pressed


async def until_it_waits(plane: RunningPlane) -> None:
    await eventually(lambda: len(plane.endpoint.queue))

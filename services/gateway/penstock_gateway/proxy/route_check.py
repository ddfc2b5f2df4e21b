"""Refuses, in its replica's own words, what a sleeping endpoint would refuse: it is not woken for that. Pure.

Bodies are checked by the runtime's own code. It also knows the defaults of the model's functions, so what passes
here may still be refused there, and never the other way round.
"""

from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from penstock_common.contracts.endpoint import RouteSpec
from penstock_gateway.domain import Refusal
from penstock_gateway.proxy.bodies import ChunkedDecoder
from penstock_runtime.body import BodyTemplate, TemplateError
from penstock_runtime.problems import Problem

PING_PATH = "/ping"
PATH_SHOWN_CHARS = 200


class RouteCheck:
    """The routes of one endpoint. Each template is made ready when a request first needs it."""

    def __init__(self, routes: Sequence[RouteSpec]) -> None:
        self.routes = routes
        self._by_path: dict[str, dict[str, RouteSpec]] = {}
        for route in routes:
            self._by_path.setdefault(route.path, {})[route.verb] = route
        self._templates: dict[tuple[str, str], BodyTemplate | None] = {}

    def refusal(self, method: bytes, target: bytes, body: bytes | None) -> Refusal | None:
        """What the replica would answer to such a request, or None when it may take it.

        `body` is None when it is not known whole. An endpoint without routes takes anything.
        """
        path = unquote(target.partition(b"?")[0].decode("latin-1"))
        if not self.routes or path == PING_PATH:
            return None
        verb = method.decode()
        try:
            route = self._find(verb, path)
            template = self._template(route) if body is not None and verb == "POST" else None
            if template is not None:
                template.arguments(body or b"")
        except Problem as problem:
            headers = tuple(problem.headers)
            return Refusal(problem.status, problem.code, problem.detail, headers=headers, body=problem.encode())
        return None

    def _find(self, verb: str, path: str) -> RouteSpec:
        verbs = self._by_path.get(path)
        if verbs is None:
            raise _unknown_path(path, self._by_path)
        route = verbs.get(verb)
        if route is None:
            raise _wrong_verb(verb, path, verbs)
        return route

    def _template(self, route: RouteSpec) -> BodyTemplate | None:
        key = (route.verb, route.path)
        if key not in self._templates:
            try:
                self._templates[key] = BodyTemplate(route.body)
            except TemplateError:
                self._templates[key] = None  # the replica will say what is wrong with it
        return self._templates[key]


def plain_body(pieces: Sequence[bytes], *, chunked: bool) -> bytes:
    """A whole body as the model gets it, from the pieces that go to the replica. Raises BadChunk."""
    framed = b"".join(pieces)
    return b"".join(ChunkedDecoder().feed(framed)[0]) if chunked else framed


def _unknown_path(path: str, by_path: dict[str, dict[str, RouteSpec]]) -> Problem:
    known = ", ".join(f"{verb} {known_path}" for known_path, verbs in by_path.items() for verb in verbs)
    shown = path if len(path) <= PATH_SHOWN_CHARS else f"{path[: PATH_SHOWN_CHARS - 1]}…"
    return Problem(404, "unknown_path", "There is no such route", f"No route {shown}; this endpoint answers {known}.")


def _wrong_verb(verb: str, path: str, allowed: Iterable[str]) -> Problem:
    listed = ", ".join(allowed)
    detail = f"{path} does not answer {verb}; use {listed}."
    return Problem(
        405, "method_not_allowed", "The route does not answer this method", detail, headers=[("allow", listed)]
    )

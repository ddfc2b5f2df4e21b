"""Where an endpoint answers, and a command that asks it something."""

import json
import shlex
from dataclasses import dataclass
from urllib.parse import urlsplit

from penstock_common.contracts.endpoint import BodyParameter, ParameterType, RouteSpec

KEY_VARIABLE = "PENSTOCK_API_KEY"
_SAMPLES: dict[ParameterType, object] = {
    "str": "The quick brown fox jumps over the lazy dog.",
    "int": 3,
    "float": 0.5,
    "bool": True,
    "dict": {"key": "value"},
    "list": [5.1, 3.5, 1.4, 0.2],
}


@dataclass(frozen=True, slots=True)
class Addresses:
    """How users reach the gateway: its URL without a path, and the domain of host names."""

    gateway_url: str
    domain: str

    def url(self, workspace: str, slug: str) -> str:
        return f"{self.gateway_url}/e/{workspace}/{slug}"

    def host_url(self, workspace: str, slug: str) -> str:
        parts = urlsplit(self.gateway_url)
        port = "" if parts.port is None else f":{parts.port}"
        return f"{parts.scheme}://{slug}.{workspace}.{self.domain}{port}"


def example_command(url: str, routes: tuple[RouteSpec, ...], *, public: bool) -> str:
    """A curl command that works as pasted, for the first POST route, or else the first route."""
    route = next((route for route in routes if route.verb == "POST"), routes[0])
    words = ["curl", "-sS"]
    if not public:
        # Double quotes, so that the shell puts the key in.
        words += ["-H", f'"Authorization: Bearer ${KEY_VARIABLE}"']
    if route.verb == "POST":
        body = json.dumps(sample_body(route.body), ensure_ascii=False)
        words += ["-H", "'Content-Type: application/json'", "-d", shlex.quote(body)]
    words.append(shlex.quote(url + route.path))
    return " ".join(words)


def sample_body(template: tuple[BodyParameter, ...]) -> dict[str, object]:
    """Plausible values for the fields that must be given."""
    return {parameter.name: _SAMPLES[parameter.type] for parameter in template if not parameter.optional}

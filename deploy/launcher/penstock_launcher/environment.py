"""What each process of the platform finds in its environment: what it needs, and nobody else's secrets."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from penstock_launcher.layout import Layout
from penstock_launcher.processes import DATA_DIR, PROCESS
from penstock_launcher.state import State

SERVICES = ("scheduler", "api", "billing", "gateway", "provisioner")

_PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_.+|TZ|TMPDIR|XDG_.+|SSL_CERT_.+|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|NETRC|(?i:https?_proxy|no_proxy|all_proxy)"
    r"|LD_LIBRARY_PATH|CUDA_.+|NVIDIA_.+|UV_.+|PIP_.+|PENSTOCK_.+"
)
"""What the platform takes over from whoever starts it: where programs, certificates, package indexes
and GPUs are, and every setting of a service that somebody chose to set."""
_INDEXES = re.compile(r"UV_.+|PIP_.+")
"""Where packages come from: it may hold passwords, and is for who installs them alone."""
_DEFAULTS = {
    # A model runs as this user, without isolation: it could read any repository here anyway.
    "PENSTOCK_ALLOW_LOCAL_SOURCES": "true",
}
"""Settings for one machine; whoever starts the platform may set them otherwise."""
_KEPT_BACK = re.compile(
    r"PENSTOCK_(HOME|API_URL|API_KEY|DATA_DIR|PROCESS|DATABASE_URL|NATS_.+|ADMIN_.+|.+_DB_PASSWORD|OPS_.+)"
)
"""What speaks of the user's own key or of another platform, and what the launcher itself decides."""


WEBHOOKS = "webhooks"
"""Name of the secret that webhooks are signed with, among the passwords."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers are, known once they run. `databases` holds each service's own address."""

    nats_url: str
    databases: Mapping[str, str]


def inherited(environ: Mapping[str, str], layout: Layout) -> dict[str, str]:
    """What every process of the platform has: the part of `environ` to take over, and the data directory."""
    passed = {
        name: value for name, value in environ.items() if _PASSED.fullmatch(name) and not _KEPT_BACK.fullmatch(name)
    }
    return {**passed, DATA_DIR: str(layout.root), "PYTHONUNBUFFERED": "1"}


def without_indexes(base: Mapping[str, str]) -> dict[str, str]:
    """What may be known to whatever installs no packages: all but the provisioner."""
    return {name: value for name, value in base.items() if not _INDEXES.fullmatch(name)}


def of_service(service: str, base: Mapping[str, str], state: State, addresses: Addresses) -> dict[str, str]:
    """The whole environment of one service, with its own credentials only."""
    environment = {
        **_DEFAULTS,
        **(base if service == "provisioner" else without_indexes(base)),
        **_OWN[service](state),
        PROCESS: service,
        "PENSTOCK_NATS_URL": addresses.nats_url,
        "PENSTOCK_NATS_USER": service,
        "PENSTOCK_NATS_PASSWORD": state.passwords[service],
        "PENSTOCK_OPS_PORT": str(state.ports[service]),
    }
    if service in addresses.databases:
        environment["PENSTOCK_DATABASE_URL"] = addresses.databases[service]
    if state.otlp_endpoint:
        environment["PENSTOCK_OTLP_ENDPOINT"] = state.otlp_endpoint
    return environment


def gateway_url(state: State) -> str:
    return f"http://127.0.0.1:{state.ports['gateway-http']}"


def api_url(state: State) -> str:
    return f"http://127.0.0.1:{state.ports['api-http']}"


def _api(state: State) -> dict[str, str]:
    return {"PENSTOCK_API_PORT": str(state.ports["api-http"]), "PENSTOCK_GATEWAY_URL": gateway_url(state)}


def _gateway(state: State) -> dict[str, str]:
    return {
        "PENSTOCK_GATEWAY_PORT": str(state.ports["gateway-http"]),
        "PENSTOCK_WEBHOOK_SECRET": state.passwords[WEBHOOKS],
    }


def _provisioner(state: State) -> dict[str, str]:
    own = {"PENSTOCK_HOST_ID": state.host_id, "PENSTOCK_STOP_REPLICAS_ON_EXIT": "true"}
    if state.simulate_gpus:
        own["PENSTOCK_SIMULATE_GPUS"] = state.simulate_gpus
    return own


def _nothing(_: State) -> dict[str, str]:
    return {}


_OWN = {"scheduler": _nothing, "api": _api, "billing": _nothing, "gateway": _gateway, "provisioner": _provisioner}

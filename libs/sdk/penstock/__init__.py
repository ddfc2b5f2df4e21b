"""Penstock's Python client: endpoints for models on your own GPU machines.

    from penstock import Penstock

    client = Penstock()
    endpoint = client.endpoints.create(name="Iris", git_uri="https://github.com/acme/iris.git", routes=[...])
    endpoint.wait()
    print(endpoint.predict("/predict", features=[5.1, 3.5, 1.4, 0.2]))

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

import importlib
from typing import TYPE_CHECKING

from penstock.version import __version__

if TYPE_CHECKING:
    from penstock.async_client import AsyncEndpoint, AsyncPenstock
    from penstock.client import Endpoint, Penstock
    from penstock.effects import Response
    from penstock.errors import (
        Ambiguous,
        ApiError,
        Conflict,
        EndpointFailed,
        FieldError,
        Forbidden,
        InvalidRequest,
        ModelError,
        NotConfigured,
        NotFound,
        NotRunning,
        Overloaded,
        PenstockError,
        RateLimited,
        ServerError,
        TimedOut,
        Unauthorized,
        Unavailable,
        UnexpectedAnswer,
        Unreachable,
        WrongState,
    )
    from penstock.models.account import ApiKey, Me, Member, NewApiKey, NewOrganization, Organization, Workspace
    from penstock.models.admin import DeadLetter, Host, Price, Replay
    from penstock.models.capacity import Capacity, Gpus, Usage, UsageRow
    from penstock.models.endpoint import (
        EndpointSpec,
        Forecast,
        LifecycleEvent,
        LogLine,
        Parameter,
        Replica,
        Route,
        ScalingDecision,
        ScheduledMinimum,
    )
    from penstock.models.metrics import Metrics, MetricsPoint, Quantiles
    from penstock.retry import RetryPolicy

__all__ = [
    "Ambiguous",
    "ApiError",
    "ApiKey",
    "AsyncEndpoint",
    "AsyncPenstock",
    "Capacity",
    "Conflict",
    "DeadLetter",
    "Endpoint",
    "EndpointFailed",
    "EndpointSpec",
    "FieldError",
    "Forbidden",
    "Forecast",
    "Gpus",
    "Host",
    "InvalidRequest",
    "LifecycleEvent",
    "LogLine",
    "Me",
    "Member",
    "Metrics",
    "MetricsPoint",
    "ModelError",
    "NewApiKey",
    "NewOrganization",
    "NotConfigured",
    "NotFound",
    "NotRunning",
    "Organization",
    "Overloaded",
    "Parameter",
    "Penstock",
    "PenstockError",
    "Price",
    "Quantiles",
    "RateLimited",
    "Replay",
    "Replica",
    "Response",
    "RetryPolicy",
    "Route",
    "ScalingDecision",
    "ScheduledMinimum",
    "ServerError",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "Usage",
    "UsageRow",
    "Workspace",
    "WrongState",
    "__version__",
]

_HOMES = (
    "penstock.errors",
    "penstock.retry",
    "penstock.effects",
    "penstock.models.account",
    "penstock.models.admin",
    "penstock.models.capacity",
    "penstock.models.endpoint",
    "penstock.models.metrics",
    "penstock.client",
    "penstock.async_client",
)


def __getattr__(name: str) -> object:
    for home in _HOMES if name in __all__ else ():
        module = importlib.import_module(home)
        if hasattr(module, name):
            value: object = getattr(module, name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

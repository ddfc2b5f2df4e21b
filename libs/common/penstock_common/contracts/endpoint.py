"""What a user asks for: the specification of an endpoint, shared by the API and every service."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from penstock_common.contracts.base import Contract

ParameterType = Literal["str", "int", "float", "bool", "dict", "list"]
Verb = Literal["GET", "POST"]
EndpointState = Literal[
    "queued", "starting", "running", "idle", "stopping", "stopped", "failed", "terminating", "terminated"
]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]

REPLICAS_MAX = 64

INFERENCES_PATH = "/.inferences"
"""Below an endpoint's URL: what the gateway keeps of requests that are answered later."""

_ROUTE_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+|/")
_MODULE_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(/[A-Za-z0-9_][A-Za-z0-9_-]*)*(\.py)?")


def _cron(value: str) -> str:
    try:
        CronSim(value, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(f"{value!r} is no cron line ({error}): write five fields such as 0 8 * * 1-5") from error
    return value


Cron = Annotated[str, Field(max_length=128), AfterValidator(_cron)]


class UserInput(BaseModel):
    """Part of a request body: an unknown field is an error, because it is usually a typing slip."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BodyParameter(UserInput):
    """One field of a route's request body."""

    name: str = Field(
        description="Field of the JSON body, and the function's argument when arguments go by keyword.",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        max_length=64,
        examples=["features"],
    )
    type: ParameterType = Field(description="Type the field must have.", examples=["list"])
    optional: bool = Field(default=False, description="Whether the field may be left out.")
    default_value: str | None = Field(
        default=None,
        description='Value used when an optional field is left out, as a Python literal: `None`, `"a"`, `[1]`.',
        max_length=4096,
        examples=["None"],
    )

    @model_validator(mode="after")
    def _default_needs_optional(self) -> Self:
        if self.default_value is not None and not self.optional:
            raise ValueError("default_value needs optional to be true")
        return self


class RouteSpec(UserInput):
    """Which function of the model's code answers which request."""

    verb: Verb = Field(default="POST", description="HTTP method of the route.")
    path: str = Field(description="Path of the route below the endpoint's URL.", max_length=256, examples=["/predict"])
    file: str = Field(
        description="Python file in the source, with or without `.py`.", max_length=256, examples=["predict"]
    )
    function: str = Field(
        description="Function in that file.",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        max_length=128,
        examples=["predict"],
    )
    positional: bool = Field(
        default=False, description="Pass the body's fields by position, in template order, instead of by keyword."
    )
    body: tuple[BodyParameter, ...] = Field(
        default=(), max_length=64, description="Template of the JSON body: a request that does not match is refused."
    )

    @field_validator("path")
    @classmethod
    def _path_is_plain(cls, value: str) -> str:
        if not _ROUTE_PATH.fullmatch(value) or "/./" in f"{value}/" or "/../" in f"{value}/":
            raise ValueError("must start with / and hold only letters, digits, . _ ~ - between slashes")
        if value == "/ping":
            raise ValueError("/ping is the health check of every endpoint: choose another path")
        if value == INFERENCES_PATH or value.startswith(f"{INFERENCES_PATH}/"):
            raise ValueError(f"{INFERENCES_PATH} is where answers are kept for later: choose another path")
        return value

    @field_validator("file")
    @classmethod
    def _file_is_inside(cls, value: str) -> str:
        if not _MODULE_PATH.fullmatch(value):
            raise ValueError("must be the relative path of a Python file in the source, such as predict or app/main.py")
        return value

    @field_validator("body")
    @classmethod
    def _body_is_coherent(cls, value: tuple[BodyParameter, ...], info: ValidationInfo) -> tuple[BodyParameter, ...]:
        names = [parameter.name for parameter in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"body names the field {twice[0]!r} twice")
        if info.data.get("verb") == "GET" and value:
            raise ValueError("a GET route takes no body: use POST, or leave body empty")
        return value


class GitSource(UserInput):
    """A git repository holding the model's code and, if it needs packages, a requirements.txt."""

    kind: Literal["git"] = Field(default="git", description="Kind of source.")
    uri: str = Field(
        description="Address of the repository: https, or a local path where the operator allows it.",
        min_length=1,
        max_length=1024,
        examples=["https://github.com/acme/iris.git"],
    )
    ref: str = Field(
        default="HEAD",
        description="Branch, tag or full commit. What it names when the endpoint is created is what always runs.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/+-]{0,254}$",
        examples=["main"],
    )


class GpuRequest(UserInput):
    """GPUs of one type for each replica, all on one host."""

    type: str = Field(description="GPU type, as GET /v1/gpus names it.", max_length=64, examples=["RTX 4090"])
    count: int = Field(default=1, ge=1, le=4, description="GPUs for each replica, from 1 to 4.")


class Resources(UserInput):
    """What each replica may use besides GPUs."""

    cpu_cores: int = Field(default=1, ge=1, le=128, description="CPU cores for each replica.")
    memory_gb: int = Field(default=2, ge=1, le=2048, description="Memory for each replica, in GB.")
    disk_gb: int = Field(default=10, ge=1, le=4096, description="Working disk for each replica, in GB.")


class ScheduledMinimum(UserInput):
    """A window in which more replicas run at least, such as office hours."""

    start: Cron = Field(description="When the window opens, as a cron line of five fields.", examples=["0 8 * * 1-5"])
    end: Cron = Field(description="When it closes, as a cron line of five fields.", examples=["0 18 * * 1-5"])
    time_zone: str = Field(
        default="UTC", description="Time zone of both lines, as the IANA names it.", examples=["Europe/Berlin"]
    )
    min_replicas: int = Field(ge=1, le=REPLICAS_MAX, description="Replicas that run at least while it is open.")

    @field_validator("time_zone")
    @classmethod
    def _zone_exists(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{value!r} is no IANA time zone: write one such as UTC or Europe/Berlin") from error
        return value


class Scaling(UserInput):
    """How many replicas run, and how requests wait for them."""

    min_replicas: int = Field(
        default=1,
        ge=0,
        le=REPLICAS_MAX,
        description="Replicas that always run; 0 lets the endpoint go to sleep when nobody calls it.",
    )
    max_replicas: int = Field(
        default=1, ge=1, le=REPLICAS_MAX, validate_default=True, description="Most replicas that may run."
    )
    idle_timeout_s: int = Field(
        default=300,
        ge=1,
        le=7 * 86_400,
        description="Seconds without a request until the last replica stops, when min_replicas is 0.",
    )
    scale_down_delay_s: int = Field(
        default=60, ge=0, le=86_400, description="Seconds that a lower load must last until a replica is taken away."
    )
    queue_wait_target_s: float | None = Field(
        default=None,
        gt=0,
        le=3600,
        description="Also add replicas while requests would wait longer than this, in seconds.",
    )
    schedule: tuple[ScheduledMinimum, ...] = Field(
        default=(), max_length=16, description="Windows of time with a higher minimum."
    )
    target_concurrency: int = Field(
        default=1, ge=1, le=1024, description="Requests that one replica works on at the same time."
    )
    queue_limit: int = Field(
        default=1000, ge=0, le=100_000, description="Requests that may wait for a replica; more are answered 503."
    )
    queue_timeout_s: int = Field(
        default=60, ge=1, le=3600, description="Longest that a request waits for a replica, in seconds; then 503."
    )

    @field_validator("max_replicas")
    @classmethod
    def _maximum_holds_the_minimum(cls, value: int, info: ValidationInfo) -> int:
        least = info.data.get("min_replicas", 0)
        if value < least:
            raise ValueError(f"must be at least min_replicas ({least})")
        return value

    @field_validator("schedule")
    @classmethod
    def _maximum_holds_the_schedule(
        cls, value: tuple[ScheduledMinimum, ...], info: ValidationInfo
    ) -> tuple[ScheduledMinimum, ...]:
        most = info.data.get("max_replicas", REPLICAS_MAX)
        for window in value:
            if window.min_replicas > most:
                raise ValueError(f"a window asks for {window.min_replicas} replicas: raise max_replicas ({most})")
        return value

    @property
    def fixed(self) -> bool:
        """Whether the number of replicas never changes."""
        return self.min_replicas == self.max_replicas


class EndpointSpec(UserInput):
    """Everything a user says about an endpoint when creating it. It cannot be changed afterwards."""

    name: str = Field(
        description="Name, unique in its workspace. The URL uses it in lower case with hyphens.",
        min_length=1,
        max_length=63,
        examples=["New Inference Endpoint"],
    )
    workspace: Slug = Field(default="default", description="Workspace that the endpoint belongs to.")
    source: GitSource = Field(description="Where the model's code comes from.")
    routes: tuple[RouteSpec, ...] = Field(
        min_length=1, max_length=64, description="Requests that the endpoint answers."
    )
    gpu: GpuRequest | None = Field(default=None, description="GPUs for each replica; none means CPU only.")
    resources: Resources = Field(default=Resources(), description="CPU, memory and disk for each replica.")
    scaling: Scaling = Field(default=Scaling(), description="Replicas and request queue.")
    public: bool = Field(default=False, description="Whether requests need no API key.")

    @field_validator("name")
    @classmethod
    def _name_makes_a_slug(cls, value: str) -> str:
        if not slug_of(value):
            raise ValueError("must contain a letter or digit (a-z, 0-9)")
        return value

    @field_validator("routes")
    @classmethod
    def _routes_differ(cls, value: tuple[RouteSpec, ...]) -> tuple[RouteSpec, ...]:
        seen: set[tuple[str, str]] = set()
        for route in value:
            if (route.verb, route.path) in seen:
                raise ValueError(given_twice(route))
            seen.add((route.verb, route.path))
        return value


def given_twice(route: RouteSpec) -> str:
    """What is wrong with the second of two routes for the same request."""
    return f"{route.verb} {route.path} is given twice: each route needs its own path or verb"


def slug_of(name: str) -> str:
    """The part of the URL made from an endpoint's name: lower case, hyphens for all else."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


class PinnedSource(Contract):
    """A source as it was when the endpoint was created: every start uses exactly this."""

    uri: str
    ref: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}([0-9a-f]{24})?$")
    requirements: str
    """The resolved requirement set, one `name==version` a line; the runtime's own are included."""

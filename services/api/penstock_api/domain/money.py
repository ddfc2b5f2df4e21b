"""What an endpoint costs while it runs, from the prices in force."""

from collections.abc import Mapping
from dataclasses import dataclass

from penstock_common.contracts.endpoint import EndpointSpec, GpuRequest, Resources, Scaling
from penstock_common.contracts.questions import CPU_TYPE, FieldProblem, Price

OTHER_GPUS = "*"


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in millionths of a currency."""

    micros: int
    currency: str


def price_of(prices: Mapping[str, Price], gpu_type: str) -> Price | None:
    """The price of one GPU of a type (or of one core, for CPU) and hour; `*` stands in for a GPU type
    that has none of its own."""
    own = prices.get(gpu_type)
    return prices.get(OTHER_GPUS) if own is None and gpu_type != CPU_TYPE else own


def hourly_price(
    prices: Mapping[str, Price], gpu: GpuRequest | None, resources: Resources, replicas: int
) -> Money | None:
    """What `replicas` ready replicas cost an hour; None when there is no price for them."""
    price = price_of(prices, CPU_TYPE if gpu is None else gpu.type)
    if price is None:
        return None
    units = resources.cpu_cores if gpu is None else gpu.count
    return Money(units * price.micros_per_hour * replicas, price.currency)


def price_of_spec(prices: Mapping[str, Price] | None, spec: EndpointSpec) -> Money | None:
    """The same for an endpoint at its least size; None also while the prices are not known."""
    if prices is None:
        return None
    return hourly_price(prices, spec.gpu, spec.resources, least_running(spec.scaling))


def least_running(scaling: Scaling) -> int:
    """Replicas that run at least while it runs at all: the first is priced also where none always runs."""
    return max(1, scaling.min_replicas)


def missing_price(gpu: GpuRequest | None) -> FieldProblem:
    gpu_type = CPU_TYPE if gpu is None else gpu.type
    return FieldProblem(
        field="resources.cpu_cores" if gpu is None else "gpu.type",
        message=f"no price is set for {gpu_type}: ask who runs the platform to set one "
        f"(`penstock admin price set {gpu_type!r} …`), or choose another type from GET /v1/gpus",
    )

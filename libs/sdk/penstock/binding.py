"""How a method that runs a flow presents itself to `help()` and to editors: as the flow's own."""

import functools
import inspect
from collections.abc import Callable
from typing import Any


def present_as(method: Callable[..., Any], flow: Callable[..., Any]) -> None:
    """Give `method` the name, documentation and parameters of `flow`, but not what a flow returns."""
    functools.update_wrapper(method, flow)
    first, *others = inspect.signature(flow).parameters.values()
    parameters = [first.replace(name="self", annotation=inspect.Parameter.empty), *others]
    method.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]

"""Exceptions raised by the model's code: told from our own, and shown in an answer, a sentence and the log."""

import asyncio
import importlib
import traceback
from collections.abc import Awaitable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from penstock_runtime.encoding import UnencodableResult
from penstock_runtime.log import complain

T = TypeVar("T")

_OWN_FRAMES = (str(Path(__file__).parent), str(importlib.__file__), "<frozen importlib")
_SENTENCE_CHARS_MAX = 500


class ModelError(Exception):
    """The model's code raised; `__cause__` is what it raised."""


def failure_of(error: BaseException) -> Exception:
    """The failure to report for something raised while the model's code ran, be it SystemExit."""
    if isinstance(error, (ModelError, UnencodableResult)):
        return error
    failure = ModelError(one_line(error))
    failure.__cause__ = error
    return failure


async def guarded(work: Awaitable[T]) -> T:
    """The result of the model's async code. Whatever it raises becomes ModelError.

    SystemExit and KeyboardInterrupt would end the loop if they left its task. A cancellation passes only if this
    task was asked to cancel: because the client left, or the server stops.
    """
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise failure_of(error) from error
    except GeneratorExit:
        raise
    except BaseException as error:
        raise failure_of(error) from error


def log_failure(what: str, failure: Exception) -> None:
    """Writes to the log what failed, and the traceback of the model's code if that raised."""
    if failure.__cause__ is None:
        complain(f"{what}: {failure}")
    else:
        complain(f"{what}: {failure}\n{model_traceback(failure.__cause__)}")


def one_line(error: BaseException) -> str:
    """`Type: message` on one line, cut to a length that fits a sentence."""
    try:
        message = " ".join(str(error).split())
    except Exception:  # the model's own __str__ may be what is broken
        message = "(its message cannot be shown: __str__ raised)"
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= _SENTENCE_CHARS_MAX else text[: _SENTENCE_CHARS_MAX - 1] + "…"


def model_traceback(error: BaseException) -> str:
    """The traceback from where the model's code begins: the frames of this package would only distract."""
    return "".join(traceback.format_exception(type(error), error, _first_model_frame(error.__traceback__)))


def place_in(error: BaseException, directory: Path) -> str | None:
    """The deepest line of the model's source that the error passed, as `predict.py line 3`; None if there is none."""
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(directory):
            place = f"{file.relative_to(directory)} line {line}"
    return place


def _first_model_frame(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None:
        if not frames.tb_frame.f_code.co_filename.startswith(_OWN_FRAMES):
            break
        frames = frames.tb_next
    return frames

"""Running other programs (git, uv, Python) with a bound on everything, leaving none behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from penstock_provisioner.threads import in_thread
from penstock_provisioner.waiting import child_ended

HELPER = "PENSTOCK_HELPER"
"""Marks a helper of one host directory in its environment, so that the next provisioner can end it."""
_MEASURE_EVERY_S = 0.2


class HelperFailed(Exception):
    """A program did not do its work: it took too long, or said too much. The message is a sentence's end."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended by itself. Output that is no UTF-8 is decoded with replacement."""

    code: int
    stdout: bytes
    stderr: str


class Helpers:
    """Runs programs on behalf of one host. `marks` are environment variables that every one gets."""

    def __init__(self, marks: Mapping[str, str]) -> None:
        self._marks = dict(marks)

    def marked(self, env: Mapping[str, str]) -> dict[str, str]:
        """`env` with the marks."""
        return {**env, **self._marks}

    async def run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        timeout_s: float,
        stdin: bytes = b"",
        output_bytes_max: int = 1024 * 1024,
        guard: Callable[[], Awaitable[None]] | None = None,
    ) -> Completed:
        """Run a program to its end, in a session of its own and with `env` alone.

        `guard` is called now and then meanwhile, and may raise to end it. Raises HelperFailed after
        `timeout_s`, or when it writes more than `output_bytes_max`; whatever happens, nothing of it is
        left running.
        """
        # Files and not pipes: nothing can block on them, and nobody has to read while it runs.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            process = _start(argv, cwd, self.marked(env), given, out, err)
            try:
                async with asyncio.timeout(timeout_s):
                    await _attend(process, guard, lambda: _check_size((out, err), output_bytes_max))
            except TimeoutError:
                raise HelperFailed(f"took longer than {timeout_s:g} s") from None
            finally:
                # The group outlives its leader where the program left something running.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await in_thread(process.wait)
            _check_size((out, err), output_bytes_max)
            out.seek(0)
            err.seek(0)
            return Completed(process.returncode, out.read(), err.read().decode(errors="replace"))


def _start(
    argv: Sequence[str], cwd: Path, env: Mapping[str, str], given: IO[bytes], out: IO[bytes], err: IO[bytes]
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(argv, cwd=cwd, env=env, stdin=given, stdout=out, stderr=err, start_new_session=True)


async def _attend(
    process: "subprocess.Popen[bytes]", guard: Callable[[], Awaitable[None]] | None, check: Callable[[], None]
) -> None:
    """Wait for its end, unless `guard` or `check` raises before."""

    async def keep_checking() -> None:
        while True:
            await asyncio.sleep(_MEASURE_EVERY_S)
            check()
            if guard is not None:
                await guard()

    ended = asyncio.create_task(child_ended(process.pid))
    checking = asyncio.create_task(keep_checking())
    try:
        await asyncio.wait({ended, checking}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            checking.result()
    finally:
        for task in (ended, checking):
            task.cancel()
        await asyncio.gather(ended, checking, return_exceptions=True)


def _check_size(files: Sequence[IO[bytes]], bytes_max: int) -> None:
    if sum(os.fstat(file.fileno()).st_size for file in files) > bytes_max:
        raise HelperFailed(f"wrote more than {bytes_max} bytes")

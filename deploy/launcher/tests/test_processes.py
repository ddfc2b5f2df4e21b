"""The sweep, on real processes."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock_launcher.processes import DATA_DIR, PROCESS, sweep

OBEDIENT = "import signal, sys; print('up', flush=True); signal.pause()"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n"
    "while True: signal.pause()"
)
Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts a program with an environment, and waits until it runs."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str = OBEDIENT, **environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_belongs_to_the_directory_is_ended_and_nothing_else(begin: Begin, tmp_path: Path) -> None:
    ours = [begin(**{DATA_DIR: str(tmp_path)}), begin(**{DATA_DIR: str(tmp_path), PROCESS: "api"})]
    others = [begin(), begin(**{DATA_DIR: f"{tmp_path}-other"}), begin(**{"NOT_" + DATA_DIR: str(tmp_path)})]
    assert sweep(tmp_path, grace_s=10) == 2
    assert [process.wait(10) for process in ours] == [-signal.SIGTERM, -signal.SIGTERM]
    assert [process.poll() for process in others] == [None, None, None]


def test_what_ignores_sigterm_is_killed_after_its_grace(begin: Begin, tmp_path: Path) -> None:
    stubborn = begin(STUBBORN, **{DATA_DIR: str(tmp_path)})
    assert sweep(tmp_path, grace_s=0.1) == 1
    assert stubborn.wait(10) == -signal.SIGKILL


def test_replicas_are_spared_when_only_supervised_processes_are_meant(begin: Begin, tmp_path: Path) -> None:
    replica = begin(**{DATA_DIR: str(tmp_path)})
    service = begin(**{DATA_DIR: str(tmp_path), PROCESS: "scheduler"})
    assert sweep(tmp_path, grace_s=10, supervised_only=True) == 1
    assert service.wait(10) == -signal.SIGTERM
    assert replica.poll() is None


def test_an_empty_directory_has_nothing_to_end(tmp_path: Path) -> None:
    assert sweep(tmp_path, grace_s=10) == 0


def test_whoever_sweeps_and_its_parents_are_spared(tmp_path: Path) -> None:
    """A shell that exports the variable runs `penstock down`."""
    code = (
        "import sys; from pathlib import Path; from penstock_launcher.processes import sweep;"
        "print(sweep(Path(sys.argv[1]), grace_s=1))"
    )
    shell = subprocess.run(
        ["/bin/sh", "-c", 'echo "$("$0" -c "$1" "$2") swept, shell alive"', sys.executable, code, str(tmp_path)],
        env={**os.environ, DATA_DIR: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert shell.stdout == "0 swept, shell alive\n"


def test_a_shell_on_a_terminal_is_spared(begin: Begin, tmp_path: Path) -> None:
    """Somebody exported the variable in another window."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ[DATA_DIR] = str(tmp_path)
        os.execv("/bin/sh", ["/bin/sh", "-c", "echo up; read line"])
    try:
        assert os.read(terminal, 2) == b"up"
        marked = begin(**{DATA_DIR: str(tmp_path)})
        assert sweep(tmp_path, grace_s=10) == 1
        assert marked.wait(10) == -signal.SIGTERM
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)

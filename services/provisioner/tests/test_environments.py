"""Exact versions from requirements, and environments from exact versions, with an index that is a folder."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock_runtime
from penstock_provisioner.files import remove_tree
from penstock_provisioner.helpers import Helpers
from penstock_provisioner.source import environment as environment_module
from penstock_provisioner.source.environment import Environments, InstallFailed
from penstock_provisioner.source.installed import copy_installed, installed_pins
from penstock_provisioner.source.problems import SourceProblem
from penstock_provisioner.source.requirements import Requirements, read_requirements
from penstock_provisioner.source.resolving import Resolver
from penstock_provisioner.source.uv import Uv


@pytest.fixture
def uv(tmp_path: Path) -> Uv:
    return Uv(Helpers({}), tmp_path / "uv-work", tmp_path / "uv-cache")


@pytest.fixture
def make_environments(tmp_path: Path, uv: Uv) -> Callable[..., Environments]:
    def make(**overrides: Any) -> Environments:
        values: dict[str, Any] = {
            "count_max": 10,
            "wheels_bytes_max": 10**9,
            "parallel": 2,
            "timeout_s": 60,
            "allow_builds": False,
            "in_use": list,
            **overrides,
        }
        return Environments(uv, tmp_path / "environments", **values)

    return make


@pytest.fixture
def resolver(tmp_path: Path, uv: Uv) -> Resolver:
    return Resolver(uv, tmp_path / "resolving", timeout_s=60, allow_builds=False)


def requirements(text: str, **files: str) -> Requirements:
    content = {"requirements.txt": text, **files}
    found = read_requirements(lambda name: content[name].encode() if name in content else None)
    assert found.problems == []
    return found


def imported(environment: Path, expression: str) -> str:
    code = f"import sys, importlib.metadata as m; print({expression})"
    python = [str(environment / "bin/python"), "-I", "-c", code]
    return subprocess.run(python, capture_output=True, text=True, check=True).stdout.strip()


PACKAGES = "sorted(d.name for d in m.distributions())"


# --- resolving --------------------------------------------------------------------------------


async def test_a_source_without_requirements_gets_the_runtimes_as_installed_here(
    resolver: Resolver, base_requirements: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/index")  # nobody is asked
    assert await resolver.resolve(Requirements()) == base_requirements
    assert {"pydantic", "uvicorn", "httptools"} <= {line.split("==")[0] for line in base_requirements.splitlines()}


async def test_requirements_are_pinned_together_with_the_runtimes(
    resolver: Resolver, wheels: Callable[..., None], base_requirements: str
) -> None:
    wheels("weather", "1.2", "clouds>=2")
    for version in ("1.0", "2.0", "2.1", "3.0"):
        wheels("clouds", version)
    found = await resolver.resolve(requirements("weather\n-c limits.txt\n", **{"limits.txt": "clouds<3\n"}))
    # Those of the runtime are in the folder without what they need in turn.
    own = [line for line in base_requirements.splitlines() if line.startswith(("httptools=", "pydantic=", "uvicorn="))]
    assert found.splitlines() == sorted([*own, "weather==1.2", "clouds==2.1"])


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("clouds\nno-such-thing\n", 2, "cannot be satisfied: Because no-such-thing"),
        ("clouds==9\n", 1, "there is no version of clouds==9"),
        ("clouds==1\nweather\n", 1, "cannot be satisfied together with requirements.txt line 2: "),
        ("pydantic<2\n", 1, "Penstock itself needs pydantic"),
    ],
)
async def test_what_cannot_be_satisfied_is_named_with_its_lines(
    resolver: Resolver, wheels: Callable[..., None], text: str, line: int, says: str
) -> None:
    wheels("weather", "1.2", "clouds>=2")
    wheels("clouds", "1")
    wheels("clouds", "2")
    with pytest.raises(SourceProblem) as caught:
        await resolver.resolve(requirements(text))
    assert caught.value.field == f"requirements.txt line {line}"
    assert says in caught.value.message


async def test_packages_that_would_have_to_be_built_are_refused(
    resolver: Resolver, wheels: Callable[..., None], tmp_path: Path
) -> None:
    trap = tmp_path / "trapped"
    source = tmp_path / "hostile-1.0"
    source.mkdir()
    (source / "setup.py").write_text(f"open({str(trap)!r}, 'w')\n")
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1.0\n")
    archive = str(tmp_path / "wheels/hostile-1.0.tar.gz")
    await asyncio.to_thread(subprocess.run, ["tar", "-czf", archive, source.name], cwd=tmp_path, check=True)
    with pytest.raises(SourceProblem, match=r"only packages with a wheel are installed|no usable wheels"):
        await resolver.resolve(requirements("hostile\n"))
    assert "trapped" not in os.listdir(tmp_path)


async def test_an_index_that_is_away_is_not_the_requirements_fault(
    resolver: Resolver, wheels: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/index")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(SourceProblem, match="the package index cannot be reached from this host"):
        await resolver.resolve(requirements("numpy\n"))


async def test_a_password_of_the_operators_index_is_in_no_message(
    resolver: Resolver, wheels: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://me:hunter2@127.0.0.1:9/index")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(SourceProblem) as caught:
        await resolver.resolve(requirements("numpy\n"))
    assert "hunter2" not in caught.value.message


async def test_answers_are_remembered_for_an_hour(
    tmp_path: Path, uv: Uv, wheels: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    resolver = Resolver(uv, tmp_path / "resolving", timeout_s=60, allow_builds=False, clock=lambda: now[0])
    wheels("clouds", "1.0")
    first = await resolver.resolve(requirements("clouds\n"))
    wheels("clouds", "2.0")
    now[0] = 3599
    assert await resolver.resolve(requirements("clouds\n")) == first
    assert "clouds==2.0" in await resolver.resolve(requirements("clouds>=1\n"))
    now[0] = 3601
    assert "clouds==2.0" in await resolver.resolve(requirements("clouds\n"))


async def test_settings_of_pip_are_meant_for_every_installation(
    resolver: Resolver, wheels: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels("clouds", "1.0")
    monkeypatch.setenv("PIP_FIND_LINKS", os.environ["UV_FIND_LINKS"])
    monkeypatch.delenv("UV_FIND_LINKS")
    assert "clouds==1.0" in await resolver.resolve(requirements("clouds\n"))


async def test_resolving_that_takes_too_long_is_ended(
    tmp_path: Path, uv: Uv, wheels: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver(uv, tmp_path / "resolving", timeout_s=0.001, allow_builds=False)
    with pytest.raises(SourceProblem, match=r"resolving its versions took longer than 0\.001 s"):
        await resolver.resolve(requirements("clouds\n"))


# --- environments -----------------------------------------------------------------------------


async def test_an_environment_holds_exactly_the_locked_packages(
    make_environments: Callable[..., Environments], wheels: Callable[..., None]
) -> None:
    wheels("weather", "1.2", "clouds", "sunshine", code="report = 'rain'\n")
    wheels("clouds", "1.0")
    path = await make_environments().ensure("weather==1.2\nclouds==1.0\n")
    assert imported(path, PACKAGES) == "['clouds', 'weather']"
    assert imported(path, "__import__('weather').report") == "rain"
    assert imported(path, "sys.version_info[:3]") == str(tuple(sys.version_info[:3]))


async def test_the_base_environment_needs_no_index_at_all(
    make_environments: Callable[..., Environments], base_requirements: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    path = await make_environments().ensure(base_requirements)
    names = [line.split("==")[0].replace("-", "_") for line in base_requirements.splitlines()]
    assert imported(path, PACKAGES.replace("d.name", "d.name.replace('-', '_')")) == str(sorted(names))
    assert imported(path, "bool(__import__('uvicorn') and __import__('pydantic_core') and __import__('httptools'))")
    assert list(path.glob("lib/*/site-packages/uvicorn/__pycache__/main.*.pyc"))


async def test_the_same_lock_is_built_once_and_found_again(
    make_environments: Callable[..., Environments], wheels: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels("clouds", "1.0")
    wheels("weather", "1.2")
    environments = make_environments()
    paths = await asyncio.gather(*(environments.ensure("clouds==1.0\nweather==1.2\n") for _ in range(3)))
    monkeypatch.setenv("UV_FIND_LINKS", "/nowhere")
    assert {*paths, await make_environments().ensure("weather==1.2\n\nclouds==1.0")} == {paths[0]}
    assert make_environments().path("clouds==1.1\n") != paths[0]


async def test_an_environment_that_was_left_unfinished_is_built_again(
    make_environments: Callable[..., Environments], wheels: Callable[..., None]
) -> None:
    wheels("clouds", "1.0")
    environments = make_environments()
    leftover = environments.path("clouds==1.0\n") / "lib/python3/site-packages/half.py"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    path = await environments.ensure("clouds==1.0\n")
    assert imported(path, PACKAGES) == "['clouds']"
    assert not leftover.exists()


async def test_a_build_that_fails_or_is_cancelled_leaves_nothing(
    make_environments: Callable[..., Environments], wheels: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    environments = make_environments()
    with pytest.raises(InstallFailed, match="no-such-thing"):
        await environments.ensure("no-such-thing==1.0\n")
    assert not environments.path("no-such-thing==1.0\n").exists()
    building = asyncio.Event()

    def slow_copy(*_args: Any) -> bool:
        loop.call_soon_threadsafe(building.set)
        return False

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(environment_module, "copy_installed", slow_copy)
    wheels("clouds", "1.0")
    task = asyncio.create_task(environments.ensure("clouds==1.0\n"))
    await building.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not environments.path("clouds==1.0\n").exists()
    assert imported(await environments.ensure("clouds==1.0\n"), PACKAGES) == "['clouds']"


async def test_environments_beyond_the_bound_go_except_those_in_use(
    make_environments: Callable[..., Environments], wheels: Callable[..., None]
) -> None:
    for number in range(5):
        wheels("clouds", f"{number}.0")
    locks = [f"clouds=={number}.0\n" for number in range(5)]
    environments: Environments = make_environments(count_max=2, in_use=lambda: [environments.path(locks[0])])
    for lock in locks:
        await environments.ensure(lock)
    left = [environments.path(lock).exists() for lock in locks]
    assert left[0]
    assert left[4]
    assert sum(left) <= 3


async def test_an_environment_that_a_start_has_just_chosen_is_not_removed_under_it(
    make_environments: Callable[..., Environments], wheels: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        wheels("clouds", f"{number}.0")
    environments = make_environments(count_max=1)
    first = await environments.ensure("clouds==1.0\n")
    loop, removing, chosen = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def slow_removal(path: Path) -> None:
        if path.exists() and not removing.is_set():
            loop.call_soon_threadsafe(removing.set)
            chosen.wait(20)
        remove_tree(path)

    monkeypatch.setattr(environment_module, "remove_tree", slow_removal)
    evicting = asyncio.create_task(environments.ensure("clouds==2.0\n"))
    await removing.wait()
    await environments.ensure("clouds==1.0\n")
    chosen.set()
    await evicting
    assert imported(first, PACKAGES) == "['clouds']"


async def test_what_an_earlier_process_was_building_or_removing_is_cleared_away(
    make_environments: Callable[..., Environments], wheels: Callable[..., None]
) -> None:
    wheels("clouds", "1.0")
    whole = await make_environments().ensure("clouds==1.0\n")
    half, doomed = whole.with_name("0123"), whole.with_name(".4567.89ab")
    (half / "lib").mkdir(parents=True)
    shutil.copytree(whole, doomed, symlinks=True)
    make_environments()
    assert list(whole.parent.iterdir()) == [whole]


async def test_a_finished_environment_is_compiled_and_nobody_may_write_to_it(
    make_environments: Callable[..., Environments], wheels: Callable[..., None], tmp_path: Path
) -> None:
    wheels("clouds", "1.0")
    wheels("weather", "1.2")
    mode = os.stat(sys.executable).st_mode
    environments = make_environments(count_max=1)
    path = await environments.ensure("clouds==1.0\n")
    entries = [path, *path.rglob("*")]
    writable = [entry for entry in entries if not entry.is_symlink() and entry.stat().st_mode & 0o222]
    assert writable == []
    assert os.stat(sys.executable).st_mode == mode
    assert list(path.glob("lib/*/site-packages/clouds/__pycache__/*.pyc"))
    # The same wheel, from uv's cache, whose files these may be; and then this one has to go.
    other = await environments.ensure("clouds==1.0\nweather==1.2\n")
    assert imported(other, PACKAGES) == "['clouds', 'weather']"
    assert [entry for entry in path.parent.iterdir() if entry != other] == []


async def test_the_cache_of_wheels_is_bounded(
    make_environments: Callable[..., Environments], wheels: Callable[..., None], tmp_path: Path
) -> None:
    wheels("clouds", "1.0", code="x = 1\n" * 100_000)
    path = await make_environments(wheels_bytes_max=1000).ensure("clouds==1.0\n")
    assert not list((tmp_path / "uv-cache").rglob("clouds"))
    assert imported(path, "__import__('clouds').x") == "1"


# --- what is installed here -------------------------------------------------------------------


def test_pins_cover_everything_needed_and_nothing_that_is_not_there() -> None:
    pins = installed_pins(["pydantic>=2", "uvicorn"])
    assert pins is not None
    assert {"pydantic", "pydantic-core", "typing-extensions", "click", "h11"} <= {
        line.split("==")[0] for line in pins.splitlines()
    }
    assert installed_pins(["penstock-no-such-package"]) is None
    assert installed_pins(["pydantic<1"]) is None
    assert installed_pins(penstock_runtime.REQUIREMENTS) is not None


def test_only_what_is_here_in_that_very_version_is_copied(tmp_path: Path) -> None:
    assert not copy_installed("pydantic==0.1\n", tmp_path)
    assert not copy_installed("penstock-no-such-package==1.0\n", tmp_path)
    assert not copy_installed("penstock==0.1.0\n", tmp_path)  # installed from its folder
    assert list(tmp_path.iterdir()) == []


# --- a real index -----------------------------------------------------------------------------


async def test_a_real_index_gives_real_packages(
    resolver: Resolver, make_environments: Callable[..., Environments]
) -> None:
    try:
        pins = await resolver.resolve(requirements("six==1.16.0\n"))
    except SourceProblem as problem:
        if "cannot be reached" in problem.message:
            pytest.skip(f"the package index is not reachable: {problem.message}")
        raise
    path = await make_environments().ensure(pins)
    assert imported(path, "__import__('six').__version__") == "1.16.0"
    assert imported(path, "__import__('pydantic').VERSION > '2'") == "True"

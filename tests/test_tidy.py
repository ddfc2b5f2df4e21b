"""House rules, as tests over every file that git tracks or would track.

A rule takes the repository as a mapping of path to text and yields what breaks it, one sentence
each. Every rule is proved by snippets: one that it must catch, and near misses that it must not.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]

Repository = Mapping[str, str]
Rule = Callable[[Repository], Iterator[str]]

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 450
README_LINES_MAX = 100

PURE_ROOMS = {
    "autoscaling",
    "checking",
    "domain",
    "fairness",
    "lifecycle",
    "planning",
    "queueing",
    "reconciling",
    "routing",
}
CONTRACTS = "libs/common/penstock_common/contracts/"
IMPURE_MODULES = {"time", "random", "secrets", "uuid", "logging", "asyncio", "threading", "socket", "subprocess", "os"}
PURE_LIBRARIES = (
    "cronsim",
    "pydantic",
    "pydantic_core",
    "penstock_common.contracts",
    "penstock_common.errors",
    "penstock_common.ids",
    "penstock_runtime.body",
    "penstock_runtime.problems",
)
IMPURE_CALLS = {"new_id", "now", "utcnow", "today", "open", "print", "input"}

SUBJECT = re.compile(r"(events|rpc|dead|logs|hosts)\.([a-z_]+|[*>]|$)(\.|$)|\$(KV|JS)\.|KV_[a-z]")
SQL = re.compile(
    r"\s*(select\s.+?\sfrom\s|select\s+(\d|\w+\()|insert\s+into\s|update\s+\w+\s+set\s|delete\s+from\s\S+(\s+where\b|$)"
    r"|(create|alter|drop)\s+(unique\s+)?(table|index|schema|role|database|function)\s|lock\s+table\s|truncate\s+\w+$)",
    re.IGNORECASE | re.DOTALL,
)
SQL_ROOMS = ("store.py", "store/", "postgres.py", "bootstrap.py", "delivery/")
UNFINISHED = re.compile(r"\b(T[O]DO|F[I]XME|X[X]X)\b|pragma:\s*no cover|#\s*(type:\s*ignore|noqa)(?![:\[])")
MACHINE = re.compile(
    r"(?<![\w.~-])/(work|root|Users)/|(?<![\w.~-])/home/[a-z]"
    r"|https?://[^\s\"'`<>)]*(\bpypi\b|pythonhosted\.org|/simple/?(?=[\s\"'`<>)]|$))|file://[^\s\"']*/simple"
)


# --- reading --------------------------------------------------------------------------------


@cache
def repository() -> dict[str, str]:
    """Every text file that is tracked, or would be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    found = {}
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and not path.is_symlink():
            try:
                found[name] = path.read_text()
            except UnicodeDecodeError:
                continue  # not text
    return found


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def python_files(repo: Repository, *, with_tests: bool = True) -> Iterator[tuple[str, ast.Module]]:
    for path, text in repo.items():
        if path.endswith(".py") and (with_tests or not is_test(path)):
            yield path, parsed(text)


def is_test(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return "tests" in parts or parts[-1] == "conftest.py"


def pure_files(repo: Repository) -> set[str]:
    """The contracts, the pure rooms of the services, and what these import of their own service."""
    modules = module_paths(repo)
    found: set[str] = set()
    growing = [path for path in repo if path.endswith(".py") and not is_test(path) and is_pure_room(path)]
    while growing:
        path = growing.pop()
        found.add(path)
        for _, name in imports(parsed(repo[path])):
            target = modules.get(name, path)
            if target not in found and package_of(target) == package_of(path):
                growing.append(target)
    return found


def is_pure_room(path: str) -> bool:
    parts = PurePosixPath(path).with_suffix("").parts
    return path.startswith(CONTRACTS) or (parts[0] == "services" and bool(PURE_ROOMS & set(parts[3:])))


def package_of(path: str) -> str:
    return "/".join(PurePosixPath(path).parts[:3])


def literals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """String literals (of an f-string, its fixed parts) with their lines; docstrings left out."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def imports(tree: ast.Module, module: str = "") -> Iterator[tuple[int, str]]:
    """Every module that may be meant by an import, absolute; `module` is the one that imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def called(node: ast.Call) -> str:
    """The last part of the name that is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_entry(node: ast.stmt) -> bool:
    """Whether this is `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def packages(repo: Repository) -> dict[str, set[str]]:
    """Folder of each package → the names of its rooms, as files (`x.py`) and folders (`x/`)."""
    found: dict[str, set[str]] = {}
    for path in module_paths(repo).values():
        room, *inside = PurePosixPath(path).parts[3:]
        found.setdefault(package_of(path), set()).add(f"{room}/" if inside else room)
    return found


def module_paths(repo: Repository) -> dict[str, str]:
    """Every module of every package by its dotted name; a package itself ends in `.__init__`."""
    found = {}
    for path in repo:
        parts = PurePosixPath(path).with_suffix("").parts
        if path.endswith(".py") and len(parts) > 3 and parts[2].startswith("penstock") and not is_test(path):
            found[".".join(parts[2:])] = path
    return found


# --- the rules ------------------------------------------------------------------------------


def pure_rooms_have_no_clock_chance_or_log(repo: Repository) -> Iterator[str]:
    for path in sorted(pure_files(repo)):
        for line, name in imports(parsed(repo[path])):
            if name.partition(".")[0] in IMPURE_MODULES:
                yield f"{path}:{line}: a pure room imports {name}: take what it gives as an argument"
        for top in parsed(repo[path]).body:
            for node in [] if is_entry(top) else ast.walk(top):
                if isinstance(node, ast.Call) and called(node) in IMPURE_CALLS:
                    yield f"{path}:{node.lineno}: a pure room calls {called(node)}(): take its result as an argument"


def pure_rooms_import_pure_things_only(repo: Repository) -> Iterator[str]:
    for path in sorted(pure_files(repo)):
        own = PurePosixPath(path).parts[2]
        allowed = {own, *sys.stdlib_module_names, *PURE_LIBRARIES}
        for line, name in imports(parsed(repo[path])):
            parents = {".".join(name.split(".")[:length]) for length in range(1, name.count(".") + 2)}
            if not parents & allowed and not any(library.startswith(f"{name}.") for library in PURE_LIBRARIES):
                yield f"{path}:{line}: a pure room imports {name}"


def subjects_are_named_in_contracts_only(repo: Repository) -> Iterator[str]:
    for path, tree in python_files(repo, with_tests=False):
        if path.startswith((CONTRACTS, "bench/")):
            continue
        for line, text in literals(tree):
            if SUBJECT.match(text):
                yield f"{path}:{line}: the subject {text!r} is spelled out: use the one in contracts"


def sql_is_in_stores_only(repo: Repository) -> Iterator[str]:
    for path, tree in python_files(repo, with_tests=False):
        room = "/".join(PurePosixPath(path).parts[3:])
        if path.startswith("bench/") or room.startswith(SQL_ROOMS):
            continue
        for line, text in literals(tree):
            if SQL.match(text):
                yield f"{path}:{line}: SQL outside a store: {text[:40]!r}"


def functions_fit_a_screen(repo: Repository) -> Iterator[str]:
    for path, tree in python_files(repo):
        for function in functions(tree):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{path}:{function.lineno}: {function.name} has {lines} lines, more than {FUNCTION_LINES_MAX}"


def files_are_short(repo: Repository) -> Iterator[str]:
    for path, text in repo.items():
        lines = text.count("\n")
        if path.endswith(".py") and lines > FILE_LINES_MAX:
            yield f"{path}: {lines} lines, more than {FILE_LINES_MAX}: make it a folder of that name"


def nothing_is_left_unfinished_or_silenced(repo: Repository) -> Iterator[str]:
    for path, text in repo.items():
        for number, line in enumerate(text.splitlines(), 1):
            if found := UNFINISHED.search(line):
                yield f"{path}:{number}: {found[0]!r}: finish it, or name what is silenced and why"


def no_test_sleeps(repo: Repository) -> Iterator[str]:
    for path, tree in python_files(repo):
        for node in ast.walk(tree):
            if is_test(path) and isinstance(node, ast.Call) and called(node) == "sleep" and node.args:
                length = node.args[0]
                if isinstance(length, ast.Constant) and length.value != 0:
                    yield f"{path}:{node.lineno}: sleeps {length.value!r} s: wait with eventually() instead"


def packages_have_a_readme_that_names_their_rooms(repo: Repository) -> Iterator[str]:
    for package, rooms in packages(repo).items():
        path = f"{package.rpartition('/')[0]}/README.md"
        text = repo.get(path)
        if text is None:
            yield f"{path} is missing"
            continue
        if text.count("\n") > README_LINES_MAX:
            yield f"{path}: longer than one screen ({README_LINES_MAX} lines)"
        for room in sorted(rooms - {"__init__.py"}):
            if room not in text and f"`{room.removesuffix('.py').removesuffix('/')}`" not in text:
                yield f"{path} does not name {room}"


def every_module_is_used(repo: Repository) -> Iterator[str]:
    modules = module_paths(repo)
    used = {"penstock.cli.main"}  # the entry point that pyproject.toml names
    names = {path: module for module, path in modules.items()}
    for path, tree in python_files(repo, with_tests=False):
        module = names.get(path, "")
        used |= {name for _, name in imports(tree, module) if name != module}
        # A process is started by the dotted name of its module, or by its file beside the caller.
        used |= {text for _, text in literals(tree) if text in modules}
        used |= {f"{module.rpartition('.')[0]}.{text[:-3]}" for _, text in literals(tree) if text.endswith(".py")}
        if any(is_entry(node) for node in tree.body):
            used.add(module)
    for module, path in modules.items():
        if module.rpartition(".")[2] not in ("__init__", "__main__") and module not in used:
            yield f"{path}: nobody imports this module, and it is no entry point"


def the_sdk_reaches_the_platform_only_when_asked(repo: Repository) -> Iterator[str]:
    for path, tree in python_files(repo, with_tests=False):
        if not path.startswith("libs/sdk/"):
            continue
        inside = {id(part) for function in functions(tree) for part in ast.walk(function)}
        outside = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and id(node) not in inside]
        at_once = [node for node in outside if isinstance(node, ast.Import | ast.ImportFrom)]
        for line, name in imports(ast.Module(body=[*at_once], type_ignores=[])):
            if name.startswith("penstock_"):
                yield f"{path}:{line}: imports {name} at once: import it in the function that needs it"


def nothing_tells_of_one_machine(repo: Repository) -> Iterator[str]:
    for path, text in repo.items():
        for number, line in enumerate(text.splitlines(), 1):
            if found := MACHINE.search(line):
                yield f"{path}:{number}: {found[0]!r} holds on one machine only, or names a package index"


RULES: tuple[Rule, ...] = (
    pure_rooms_have_no_clock_chance_or_log,
    pure_rooms_import_pure_things_only,
    subjects_are_named_in_contracts_only,
    sql_is_in_stores_only,
    functions_fit_a_screen,
    files_are_short,
    nothing_is_left_unfinished_or_silenced,
    no_test_sleeps,
    packages_have_a_readme_that_names_their_rooms,
    every_module_is_used,
    the_sdk_reaches_the_platform_only_when_asked,
    nothing_tells_of_one_machine,
)


# --- the repository keeps them --------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_repository_keeps_the_rule(rule: Rule) -> None:
    broken = list(rule(repository()))
    assert not broken, "\n" + "\n".join(broken)


# --- the rules catch what they are for ------------------------------------------------------

DOMAIN = "services/x/penstock_x/domain.py"
SUMS = "services/x/penstock_x/sums.py"
HANDLERS = "services/x/penstock_x/handlers.py"
STORE = "services/x/penstock_x/store.py"
SDK = "libs/sdk/penstock/cli/platform.py"
TEST = "services/x/tests/test_x.py"
README = "services/x/README.md"
LONG_FUNCTION = "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX

CAUGHT: list[tuple[Rule, Repository]] = [
    (pure_rooms_have_no_clock_chance_or_log, {DOMAIN: "import time\n"}),
    (pure_rooms_have_no_clock_chance_or_log, {DOMAIN: "from random import choice\n"}),
    (pure_rooms_have_no_clock_chance_or_log, {DOMAIN: "import logging.config\n"}),
    (pure_rooms_have_no_clock_chance_or_log, {"services/x/penstock_x/domain/a.py": "d = datetime.now(UTC)\n"}),
    (pure_rooms_have_no_clock_chance_or_log, {f"{CONTRACTS}a.py": "import secrets\n"}),
    (pure_rooms_have_no_clock_chance_or_log, {DOMAIN: "from penstock_x import sums", SUMS: "import time\n"}),
    (pure_rooms_import_pure_things_only, {DOMAIN: "import asyncpg\n"}),
    (pure_rooms_import_pure_things_only, {DOMAIN: "from penstock_common.service import Service\n"}),
    (pure_rooms_import_pure_things_only, {DOMAIN: "from penstock_x import sums", SUMS: "import penstock_y\n"}),
    (subjects_are_named_in_contracts_only, {HANDLERS: 'x = "events.api.endpoint.requested.v1"\n'}),
    (subjects_are_named_in_contracts_only, {HANDLERS: 'x = f"rpc.{service}.replay"\n'}),
    (subjects_are_named_in_contracts_only, {HANDLERS: 'x = f"logs.{host}"\n'}),
    (subjects_are_named_in_contracts_only, {HANDLERS: 'x = "$KV.routes.>"\n'}),
    (subjects_are_named_in_contracts_only, {HANDLERS: 'x = "KV_routes"\n'}),
    (sql_is_in_stores_only, {HANDLERS: 'x = "select * from hosts"\n'}),
    (sql_is_in_stores_only, {HANDLERS: 'x = "select clock_timestamp()"\n'}),
    (sql_is_in_stores_only, {HANDLERS: 'x = f"UPDATE hosts SET a = {b}"\n'}),
    (sql_is_in_stores_only, {HANDLERS: 'x = "delete from hosts where id = $1"\n'}),
    (functions_fit_a_screen, {TEST: LONG_FUNCTION}),
    (files_are_short, {HANDLERS: "x = 1\n" * (FILE_LINES_MAX + 1)}),
    (nothing_is_left_unfinished_or_silenced, {"README.md": "TO" + "DO: write\n"}),
    (nothing_is_left_unfinished_or_silenced, {HANDLERS: "x = 1  # type: " + "ignore\n"}),
    (no_test_sleeps, {TEST: "await asyncio.sleep(0.1)\n"}),
    (no_test_sleeps, {TEST: "from time import sleep\nsleep(2)\n"}),
    (packages_have_a_readme_that_names_their_rooms, {DOMAIN: ""}),
    (packages_have_a_readme_that_names_their_rooms, {DOMAIN: "", README: "# x\n"}),
    (packages_have_a_readme_that_names_their_rooms, {DOMAIN: "", README: "`domain.py`" + "\n" * 101}),
    (every_module_is_used, {DOMAIN: "from penstock_x import domain\n"}),
    (every_module_is_used, {DOMAIN: "", TEST: "from penstock_x import domain\n"}),
    (the_sdk_reaches_the_platform_only_when_asked, {SDK: "from penstock_launcher import up\n"}),
    (the_sdk_reaches_the_platform_only_when_asked, {SDK: "if a:\n    import penstock_common.ids\n"}),
    (nothing_tells_of_one_machine, {"README.md": "see /wo" + "rk/x\n"}),
    (nothing_tells_of_one_machine, {"a.toml": 'url = "https://packages.example.com/repo/sim' + 'ple/"\n'}),
    (nothing_tells_of_one_machine, {"a.toml": 'url = "https://py' + 'pi.org/x"\n'}),
]

LET_PASS: list[tuple[Rule, Repository]] = [
    (pure_rooms_have_no_clock_chance_or_log, {DOMAIN: "from datetime import datetime\n", HANDLERS: "import time\n"}),
    (pure_rooms_have_no_clock_chance_or_log, {"services/x/tests/domain.py": "import random\n"}),
    (pure_rooms_have_no_clock_chance_or_log, {DOMAIN: 'if __name__ == "__main__":\n    print(1)\n'}),
    (pure_rooms_import_pure_things_only, {DOMAIN: "from penstock_common.contracts import base\n"}),
    (pure_rooms_import_pure_things_only, {DOMAIN: "import re\n", HANDLERS: "import asyncpg\n"}),
    (subjects_are_named_in_contracts_only, {HANDLERS: '"""events.api.x.v1"""\nx = ("event", "logs", "a.events.b")\n'}),
    (subjects_are_named_in_contracts_only, {f"{CONTRACTS}a.py": 'x = "events.>"\n', TEST: 'x = "events.>"\n'}),
    (sql_is_in_stores_only, {STORE: 'x = "select 1"\n', TEST: 'x = "select 1"\n'}),
    (sql_is_in_stores_only, {HANDLERS: 'x = ("Select a GPU type", "update the price", "create an endpoint")\n'}),
    (functions_fit_a_screen, {TEST: LONG_FUNCTION.replace("    x = 1\n", "", 1)}),
    (files_are_short, {HANDLERS: "x = 1\n" * FILE_LINES_MAX, "requirements.lock": "x\n" * 1000}),
    (nothing_is_left_unfinished_or_silenced, {HANDLERS: "x = 1  # type: ignore[misc]  # noqa: E501\n"}),
    (no_test_sleeps, {TEST: "await asyncio.sleep(0)\n", HANDLERS: "time.sleep(1)\n"}),
    (packages_have_a_readme_that_names_their_rooms, {DOMAIN: "", README: "`domain.py` (pure)\n"}),
    (every_module_is_used, {DOMAIN: "", "services/x/penstock_x/__main__.py": "from penstock_x import domain\n"}),
    (every_module_is_used, {DOMAIN: "", "services/x/penstock_x/__init__.py": "from .domain import a\n"}),
    (every_module_is_used, {DOMAIN: "", "deploy/y/penstock_y/__main__.py": 'run("-m", "penstock_x.domain")\n'}),
    (the_sdk_reaches_the_platform_only_when_asked, {SDK: "class A:\n  def f():\n    import penstock_x\n"}),
    (nothing_tells_of_one_machine, {"README.md": "from PyPI; /tmp/x, ~/wo" + "rk/y, https://example.com/simple.git\n"}),
]


def named(cases: list[tuple[Rule, Repository]]) -> list[object]:
    return [pytest.param(rule, repo, id=f"{rule.__name__}-{number}") for number, (rule, repo) in enumerate(cases)]


@pytest.mark.parametrize(("rule", "repo"), named(CAUGHT))
def test_a_rule_catches_what_breaks_it(rule: Rule, repo: Repository) -> None:
    assert list(rule(repo))


@pytest.mark.parametrize(("rule", "repo"), named(LET_PASS))
def test_a_rule_lets_pass_what_keeps_it(rule: Rule, repo: Repository) -> None:
    assert list(rule(repo)) == []


def test_every_rule_has_a_snippet_that_it_catches_and_one_that_it_lets_pass() -> None:
    assert {rule for rule, _ in CAUGHT} == {rule for rule, _ in LET_PASS} == set(RULES)

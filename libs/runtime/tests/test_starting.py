"""Starting: readiness, arguments, what loading failures look like from outside, and what is imported."""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest

import penstock_runtime
from penstock_runtime import config
from tests_support import eventually

from .conftest import Gate, Start, field, route, write_source

PACKAGE = Path(config.__file__).parent


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "penstock_runtime", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def write_config(folder: Path, source: str) -> Path:
    written = {
        "directory": str(write_source(folder / "source", source)),
        "routes": [route("/predict", "predict")],
        "concurrency": 1,
        "name": "team/model",
    }
    (folder / "config.json").write_text(json.dumps(written))
    return folder / "config.json"


# --- loading --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "last_line"),
    [
        (
            "import nosuchpackage\n",
            "POST /predict needs predict in predict.py, but importing predict.py raised ModuleNotFoundError: "
            "No module named 'nosuchpackage' (predict.py line 1): add the package that provides nosuchpackage "
            "to requirements.txt.",
        ),
        (
            "def load():\n    raise ValueError('no weights')\nload()\n",
            "POST /predict needs predict in predict.py, but importing predict.py raised ValueError: no weights "
            "(predict.py line 2): mend the code there, or the data or package that it needs.",
        ),
        (
            "import sys\nsys.exit()\n",
            "POST /predict needs predict in predict.py, but importing predict.py called exit with None "
            "(predict.py line 2): move what only a script does under if __name__ == '__main__'.",
        ),
    ],
)
async def test_code_that_fails_at_import_exits_3_with_its_traceback_and_a_last_sentence(
    start: Start, source: str, last_line: str
) -> None:
    replica = start(source, route("/predict", "predict"))
    assert await replica.ended() == 3
    assert replica.errors.startswith('Traceback (most recent call last):\n  File "')
    assert "penstock_runtime" not in replica.errors
    assert replica.errors.splitlines()[-1] == last_line


async def test_a_route_that_does_not_fit_exits_3_with_one_sentence(start: Start) -> None:
    replica = start("def predict(a): ...\n", route("/predict", "predict", field("b", "int")))
    assert await replica.ended() == 3
    assert replica.errors == (
        "POST /predict needs predict in predict.py, but the body gives b and the function has only a: "
        "make the names the same.\n"
    )


async def test_a_model_that_leaves_the_process_at_import_leaves_its_own_exit_code(start: Start) -> None:
    replica = start("import os\nos._exit(9)\n", route("/predict", "predict"))
    assert await replica.ended() == 9


async def test_ping_is_not_answered_until_the_model_is_loaded(start: Start, gate: Gate) -> None:
    source = f"""
    print("loading", flush=True)
    open({gate.path!r}).close()
    def predict(): ...
    """
    replica = start(source, route("/predict", "predict"))
    await eventually(lambda: "loading" in replica.output)
    with pytest.raises(httpx.ReadTimeout):
        await replica.client.get("/ping", timeout=0.2)
    gate.open()
    await replica.ready()
    assert (await replica.client.get("/ping")).json() == {"status": "ok"}


async def test_files_of_the_source_named_like_libraries_do_not_break_the_server(start: Start) -> None:
    source = dict.fromkeys(("uvicorn.py", "email.py", "logging.py", "json.py"), "raise RuntimeError(__name__)\n")
    replica = await start({**source, "predict.py": "def predict(): return 1\n"}, route("/predict", "predict")).ready()
    assert (await replica.post("/predict")).json() == 1
    replica.process.terminate()
    assert await replica.ended() == 0


async def test_files_where_the_server_was_started_are_not_the_models(start: Start) -> None:
    source = "try:\n    import source\nexcept ImportError:\n    found = False\nelse:\n    found = True\n"
    replica = await start(source + "def predict(): return found\n", route("/predict", "predict")).ready()
    assert (await replica.post("/predict")).json() is False


async def test_a_process_that_the_model_starts_does_not_keep_the_port(start: Start) -> None:
    source = """
    import subprocess
    files = subprocess.check_output(["ls", "-l", "/proc/self/fd"], close_fds=False, text=True)
    def predict(): return files
    """
    replica = await start(source, route("/predict", "predict")).ready()
    files = (await replica.post("/predict")).json()
    assert "/stderr" in files
    assert "socket:" not in files


async def test_answers_are_not_held_back_by_nagles_algorithm(start: Start) -> None:
    source = """
    import os, socket
    def delays():
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                sock = socket.socket(fileno=os.dup(int(name)))
            except OSError:
                continue
            if sock.family == socket.AF_INET and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            sock.close()
        return found
    """
    replica = await start(source, route("/delays", "delays")).ready()
    found = (await replica.post("/delays")).json()
    assert found
    assert all(found)


# --- arguments ------------------------------------------------------------------------------


async def test_it_listens_on_an_address_of_its_own_and_says_which(start: Start) -> None:
    listen = "import sys; del sys.argv[-2:]; sys.argv += ['--listen', '127.0.0.1:0']\n"
    program = listen + "from penstock_runtime.__main__ import main\nsys.exit(main())"
    replica = start("def predict(): return 1\n", route("/predict", "predict"), command=(sys.executable, "-c", program))
    address = (await eventually(lambda: replica.output)).split()[-1]
    assert address != replica.address
    async with httpx.AsyncClient(base_url=f"http://{address}") as client:

        async def predicts() -> bool:
            try:
                return bool((await client.post("/predict")).json() == 1)
            except httpx.ConnectError:
                return False

        await eventually(predicts)
    replica.process.terminate()
    assert await replica.ended() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --config"),
        (["--config", "{config}"], "one of the arguments --fd --listen is required"),
        (["--config", "{config}", "--fd", "0", "--listen", "127.0.0.1:0"], "not allowed with argument"),
        (["--config", "{config}", "--fd", "99"], "Bad file descriptor"),
        (["--config", "{config}", "--listen", "localhost"], "'localhost' is not HOST:PORT"),
        (["--config", "{config}", "--listen", "127.0.0.1:99999"], "'127.0.0.1:99999' is not HOST:PORT"),
        (["--config", "{config}", "--listen", "203.0.113.1:1"], "Cannot assign requested address"),
        (["--config", "no-such.json", "--listen", "127.0.0.1:0"], "No such file or directory"),
    ],
)
def test_wrong_arguments_exit_4_and_say_why(tmp_path: Path, arguments: list[str], message: str) -> None:
    file = write_config(tmp_path, "")
    ended = run(*(argument.format(config=file) for argument in arguments))
    assert ended.returncode == 4
    assert message in ended.stderr.splitlines()[-1]


def test_a_wrong_configuration_exits_4_and_names_every_fault(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"directory": "/", "routes": [], "concurrency": "x", "name": "a", "b": 1}')
    ended = run("--config", str(tmp_path / "config.json"), "--listen", "127.0.0.1:0")
    assert ended.returncode == 4
    assert ended.stderr.splitlines()[:2] == [
        "concurrency: Input should be a valid integer",
        "b: Unexpected keyword argument",
    ]
    assert ended.stderr.splitlines()[-1].startswith("The configuration is wrong: concurrency: ")


# --- what it costs --------------------------------------------------------------------------


def imported_by(module: str) -> set[str]:
    program = f"import {module}, sys; print(*sys.modules)"
    listed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in listed.stdout.split()}


def test_the_server_imports_nothing_heavy() -> None:
    heavy = {
        "numpy",
        "opentelemetry",
        "starlette",
        "fastapi",
        "uvloop",
        "websockets",
        "httpx",
        "penstock_common",
        "h11",
    }
    assert not heavy & imported_by("penstock_runtime.__main__")
    assert not (heavy | {"uvicorn", "click", "email"}) & imported_by("penstock_runtime.server")


def test_templates_can_be_checked_without_the_server() -> None:
    assert not {"uvicorn", "asyncio", "httptools"} & imported_by("penstock_runtime.body")


def test_nothing_of_the_platform_is_imported() -> None:
    for file in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            ours = {name.partition(".")[0] for name in names if name.startswith("penstock")}
            assert ours <= {"penstock_runtime"}, file


def test_what_it_requires_is_what_the_project_installs_for_it() -> None:
    root = next(folder for folder in PACKAGE.parents if (folder / "pyproject.toml").is_file())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert tuple(project["optional-dependencies"]["runtime"]) == penstock_runtime.REQUIREMENTS

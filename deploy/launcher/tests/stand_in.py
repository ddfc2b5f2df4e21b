"""Stands in for a service: ready after it listens, stops at SIGTERM, and notes when it did what.

Run as `stand_in.py <service> <folder> <behaviour>`; behaviours: serve, die, never-ready,
and hears-no-host for the scheduler.
"""

import http.server
import os
import signal
import socket
import sys
import threading
from pathlib import Path


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if sys.argv[3] == "never-ready" else 200)
        self.end_headers()
        if self.path == "/metrics":
            hosts = 0 if sys.argv[3] == "hears-no-host" else 1
            self.wfile.write(f'penstock_scheduler_hosts{{state="up"}} {hosts}.0\n'.encode())

    def log_message(self, format: str, *_: object) -> None:
        """Says nothing."""


def note(what: str) -> None:
    with Path(sys.argv[2], "notes").open("a") as notes:
        notes.write(f"{sys.argv[1]} {what}\n")


def main() -> int:
    note("started")
    if sys.argv[3] == "die":
        print("no model can be served: the moon is full", flush=True)
        return 7
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PENSTOCK_OPS_PORT"])), Answers)
    public = os.environ.get(f"PENSTOCK_{sys.argv[1].upper()}_PORT")
    listener = socket.create_server(("127.0.0.1", int(public))) if public else None
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.01)
    if listener is not None:
        listener.close()
    note("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())

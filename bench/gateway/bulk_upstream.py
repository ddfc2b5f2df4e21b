"""Process: takes uploads and gives downloads as fast as they go. Argument: PORT. One thread a connection."""

import re
import socket
import sys
import threading

from bench.gateway.workload import BULK_BYTES

BLOCK = bytes(1 << 20)
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


def serve(connection: socket.socket) -> None:
    """Answer the requests of one connection, in order, until it closes."""
    buffer = bytearray(1 << 20)
    with connection:
        while head := _read_head(connection):
            head, _, body = head.partition(b"\r\n\r\n")
            if head.startswith(b"GET "):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BULK_BYTES)
                left = BULK_BYTES
                while left:
                    left -= connection.send(BLOCK[:left] if left < len(BLOCK) else BLOCK)
            else:
                length = _LENGTH.search(head + b"\r\n")
                left = int(length[1]) - len(body) if length else 0
                while left:
                    read = connection.recv_into(buffer, min(left, len(buffer)))
                    if not read:
                        return
                    left -= read
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def _read_head(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        read = connection.recv(65536)
        if not read:
            return b""
        data += read
    return data


def _serve_quietly(connection: socket.socket) -> None:
    try:
        serve(connection)
    except OSError:
        return  # the candidate was stopped, or its client left


def main() -> None:
    """Serve for ever."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve_quietly, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()

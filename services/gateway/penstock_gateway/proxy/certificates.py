"""TLS of the listener: the certificate is taken from files, and again whenever they change."""

import asyncio
import logging
import ssl
from pathlib import Path

log = logging.getLogger(__name__)

CHECK_S = 2.0
"""How often the files are looked at."""

Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """`context` serves every new connection with the newest pair of files that could be used.

    Raises OSError (ssl.SSLError is one) when there is none at first.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._seen = _stamp(self._files)
        self._newest = self.context = _load(*self._files)
        self.context.sni_callback = self._hello

    async def run(self, check_s: float = CHECK_S) -> None:
        """Follow the files, for ever."""
        while True:
            await asyncio.sleep(check_s)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Load the files if they changed. A pair that cannot be used is logged, and the old one stays."""
        stamp = _stamp(self._files)
        if stamp == self._seen:
            return
        # Also when it fails: one change is one line in the log.
        self._seen = stamp
        try:
            self._newest = _load(*self._files)
        except OSError as error:
            log.error("the TLS files cannot be used; the last certificate stays", extra={"error": repr(error)})
        else:
            log.info("the TLS certificate was changed", extra={"path": str(self._files[0])})

    def _hello(self, connection: "ssl.SSLObject | ssl.SSLSocket", name: str | None, context: ssl.SSLContext) -> None:
        """Called for every handshake, with a server name or without."""
        if self._newest is not context:
            connection.context = self._newest


def _stamp(files: tuple[Path, ...]) -> Stamp:
    """What changes when a file is written again, or replaced. Links are followed, as secrets are mounted."""
    try:
        found = [file.stat() for file in files]
    except OSError:
        return ()
    return tuple((one.st_mtime_ns, one.st_ino, one.st_size) for one in found)


def _load(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    # An empty password, or the library would ask for one on the terminal.
    context.load_cert_chain(certificate, key, password="")
    return context

"""Certificates for tests, made with the `openssl` command."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate for 127.0.0.1 and localhost, and its key."""

    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, Path]:
        return {"tls_certificate_file": self.certificate, "tls_key_file": self.key}

    def replace_with(self, other: "Pair") -> None:
        """Put another pair in the place of this one, a file at a time, as those who renew do."""
        for mine, theirs in ((self.certificate, other.certificate), (self.key, other.key)):
            fresh = mine.with_suffix(".fresh")
            fresh.write_bytes(theirs.read_bytes())
            fresh.replace(mine)

    def trusted(self) -> ssl.SSLContext:
        """What a client needs that trusts this certificate and no other."""
        return ssl.create_default_context(cafile=str(self.certificate))


def make_pair(folder: Path, name: str) -> Pair:
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(pair.key), "-out", str(pair.certificate)]
    subprocess.run(["openssl", "req", "-x509", *kind, *names, *files], check=True, capture_output=True)
    return pair

"""Settings of the provisioner. Each is an environment variable with the prefix `PENSTOCK_`."""

import re
import socket
from pathlib import Path

from pydantic import Field, field_validator

from penstock_common.settings import ServiceSettings
from penstock_provisioner.gpus import parse_simulated_gpus

_HOST_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def _own_host_id() -> str:
    cleaned = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-")[:63].rstrip("-")
    return cleaned or "host"


class ProvisionerSettings(ServiceSettings):
    """What the provisioner needs besides the settings that every service has."""

    host_id: str = Field(default_factory=_own_host_id, description="Name of this host, unique in the platform.")
    data_dir: Path = Field(
        default=Path("/var/lib/penstock"),
        description="Data directory of the platform: the mark by which `penstock down` finds replicas.",
    )
    host_dir: Path | None = Field(
        default=None, description="Directory of this host's own state; by default hosts/<host_id> in data_dir."
    )
    cache_dir: Path | None = Field(
        default=None, description="Directory of cached sources and environments; by default cache in host_dir."
    )
    stop_replicas_on_exit: bool = Field(
        default=False, description="Whether SIGTERM also ends the replicas, instead of leaving them to the next start."
    )
    simulate_gpus: str = Field(
        default="", description='GPUs to make up, to try the platform without them: "RTX 4090=4,A100 80GB=2".'
    )

    allow_local_sources: bool = Field(
        default=False, description="Whether a source may be a repository on this machine, by absolute path or file://."
    )
    allow_private_sources: bool = Field(
        default=False, description="Whether a source's server may have a private, loopback or link-local address."
    )
    allow_source_builds: bool = Field(
        default=False,
        description="Whether packages without a wheel may be built. That runs their code on this host when it is"
        " only being looked at.",
    )
    source_mb_max: int = Field(default=2048, ge=1, description="Largest source, in MB, fetched and unpacked each.")
    source_files_max: int = Field(default=50_000, ge=1, description="Most files in a source.")
    source_cache_gb_max: float = Field(default=20, gt=0, description="Cached sources beyond this, in GB, are removed.")
    environments_max: int = Field(default=32, ge=1, description="Most cached environments; unused ones go first.")
    fetch_timeout_s: float = Field(default=90, gt=0, description="Longest fetch of a source.")
    resolve_timeout_s: float = Field(default=60, gt=0, description="Longest resolution of a requirements.txt.")
    install_timeout_s: float = Field(default=1800, gt=0, description="Longest installation of an environment.")
    wheel_cache_gb_max: float = Field(
        default=50, gt=0, description="The cache of downloaded packages is emptied beyond this, in GB."
    )
    parallel_fetches: int = Field(default=4, ge=1, description="Sources fetched at the same time.")
    parallel_installs: int = Field(default=2, ge=1, description="Environments built at the same time.")
    parallel_inspections: int = Field(default=4, ge=1, description="Sources inspected at the same time.")

    ready_timeout_s: float = Field(default=300, gt=0, description="Longest wait from start to the first good ping.")
    liveness_interval_s: float = Field(default=5, gt=0, description="Time between two pings of a ready replica.")
    liveness_timeout_s: float = Field(default=10, gt=0, description="Longest wait for the answer to one of them.")
    liveness_misses: int = Field(default=3, ge=1, description="Missed pings in a row after which a replica is killed.")
    stop_grace_s: float = Field(default=10, ge=0, description="Time between SIGTERM and SIGKILL when stopping.")
    heartbeat_interval_s: float = Field(default=2, gt=0, description="Time between two heartbeats.")
    replica_nice: int = Field(default=5, ge=0, le=19, description="Niceness of replicas: the platform goes first.")
    replica_open_files_max: int = Field(default=65_536, ge=256, description="Most open files of a replica.")

    log_lines_per_s: int = Field(default=500, ge=1, description="Log lines of one replica that are kept, per second.")
    log_lines_burst: int = Field(default=2000, ge=1, description="Log lines of one replica that may come at once.")
    log_file_mb_max: int = Field(default=16, ge=1, description="A replica's log file is emptied beyond this, in MB.")

    @field_validator("host_id")
    @classmethod
    def _host_id_fits_a_subject(cls, value: str) -> str:
        if not _HOST_ID.fullmatch(value):
            raise ValueError("must be up to 63 lower-case letters, digits and dashes")
        return value

    @field_validator("simulate_gpus")
    @classmethod
    def _gpus_can_be_read(cls, value: str) -> str:
        parse_simulated_gpus(value, host_id="host")
        return value

    @property
    def stop_grace_on_exit_s(self) -> float:
        """The grace of replicas at our own exit, which has to end within `shutdown_grace_s`."""
        return min(self.stop_grace_s, max(self.shutdown_grace_s - 2.0, 0.0))

    @property
    def own_dir(self) -> Path:
        """Where this host keeps its state."""
        return (self.host_dir or self.data_dir / "hosts" / self.host_id).absolute()

    @property
    def own_cache_dir(self) -> Path:
        return (self.cache_dir or self.own_dir / "cache").absolute()

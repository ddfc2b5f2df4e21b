"""Settings of the gateway. Each is an environment variable with the prefix `PENSTOCK_`."""

import re
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from penstock_common.settings import ServiceSettings

KIB = 1024
GIB = 1024**3


class GatewaySettings(ServiceSettings):
    """What the gateway needs besides the settings that every service has."""

    gateway_host: str = Field(default="127.0.0.1", description="Address that requests are taken on.")
    gateway_port: int = Field(default=8080, ge=0, le=65535, description="Its port; 0 takes any free one.")
    domain: str = Field(
        default="localhost",
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$",
        description="Endpoints answer at `<endpoint>.<workspace>.<domain>`.",
    )
    gateway_secret: SecretStr | None = Field(
        default=None,
        description="What all gateways of a platform share, 16 or more printable characters without spaces. With it "
        "they share the endpoints: each has one owner, the others forward to it. Without it there is one gateway.",
    )
    forward_host: str = Field(
        default="127.0.0.1",
        description="Address that the other gateways reach this one at, and that it takes their requests on. It is "
        "not encrypted: keep it on a private network.",
    )
    forward_port: int = Field(
        default=0, ge=0, le=65535, description="Its port; 0, or one that is taken during a hand-over: any free one."
    )
    data_dir: Path | None = Field(
        default=None,
        description="Folder for `gateway/snapshot.json`: the routes and keys to start with while NATS is away. "
        "Without one nothing is kept.",
    )

    tls_certificate_file: Path | None = Field(
        default=None,
        description="PEM file with the certificate and its chain. With it and tls_key_file requests are taken over "
        "TLS (1.2 or later) only. Both files are read again when they change.",
    )
    tls_key_file: Path | None = Field(default=None, description="PEM file with its private key, without a password.")

    head_bytes_max: int = Field(
        default=32 * KIB, ge=256, description="Longest request line and headers, in bytes; more is answered 431."
    )
    headers_max: int = Field(default=100, ge=1, description="Most headers of a request; more is answered 431.")
    target_bytes_max: int = Field(
        default=8 * KIB, ge=1, description="Longest path and query, in bytes; more is answered 414."
    )
    body_bytes_max: int = Field(
        default=1 * GIB, ge=0, description="Longest request body, in bytes; more is answered 413."
    )
    response_head_bytes_max: int = Field(
        default=64 * KIB, ge=256, description="Longest status line and headers of a replica, in bytes; then 502."
    )
    held_bytes_max: int = Field(
        default=64 * KIB,
        ge=1,
        description="What of a body, or of the next requests, is held in memory while a request waits, in bytes; "
        "beyond it the client is not read. A body that fits is read whole before its request takes a replica.",
    )
    connections_max: int = Field(
        default=20_000, ge=1, description="Most client connections; further ones are answered 503 and closed."
    )

    head_timeout_s: float = Field(
        default=10, gt=0, description="Longest time from the first byte of a request to the end of its headers."
    )
    idle_timeout_s: float = Field(
        default=75, gt=0, description="How long a connection without a request stays open, in seconds."
    )
    body_timeout_s: float = Field(
        default=30, gt=0, description="Longest silence of a client in the middle of a request body, in seconds."
    )
    body_bytes_per_s_min: float = Field(
        default=8 * KIB,
        gt=0,
        description="Slowest that a request body may arrive on average once body_timeout_s has passed, in bytes a "
        "second: it bounds how long a client can hold a replica with a body of a given length.",
    )
    stall_timeout_s: float = Field(
        default=120, gt=0, description="How long a client may take nothing of a response that waits for it, in seconds."
    )
    linger_s: float = Field(
        default=2, gt=0, description="How long input is thrown away after a refusal, so that the client can read it."
    )
    tunnel_idle_timeout_s: float = Field(
        default=3600, gt=0, description="Longest silence of an upgraded connection (WebSocket), in seconds."
    )
    start_timeout_s: float = Field(
        default=900,
        gt=0,
        description="Longest that a request waits for an endpoint without a ready replica, in seconds; then 503. "
        "From its first ready replica on, the endpoint's queue_timeout_s counts.",
    )
    connect_timeout_s: float = Field(default=2, gt=0, description="Longest wait for a connection to a replica.")
    replica_timeout_s: float = Field(
        default=900, gt=0, description="Longest silence of a replica that works on a request, in seconds; then 504."
    )
    replica_idle_s: float = Field(
        default=4,
        gt=0,
        description="How long an unused connection to a replica is kept, in seconds. It must be shorter than the "
        "replica's own keep-alive time, or requests meet connections that are just being closed.",
    )
    eject_s_min: float = Field(
        default=0.25, gt=0, description="How long a replica that failed gets no requests, in seconds."
    )
    eject_s_max: float = Field(
        default=10, gt=0, description="The same after several failures in a row: it doubles up to this."
    )
    drain_idle_s: float = Field(
        default=1,
        ge=0,
        description="When stopping: how long connections without a request stay open, so that the next request on "
        "them is answered rather than lost.",
    )
    metrics_endpoints_max: int = Field(
        default=200, ge=1, description="Most endpoints with time series of their own; the rest are summed as `other`."
    )

    @field_validator("gateway_secret")
    @classmethod
    def _long_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and re.fullmatch(r"[!-~]{16,256}", secret.get_secret_value()) is None:
            raise ValueError("gateway_secret must be 16 to 256 printable characters without spaces: make a longer one")
        return secret

    @field_validator("forward_host")
    @classmethod
    def _reachable(cls, host: str) -> str:
        if host in {"0.0.0.0", "::", ""}:
            raise ValueError("forward_host must be an address that other gateways can reach: name one of this machine")
        return host

    @model_validator(mode="after")
    def _both_tls_files(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            missing = "tls_key_file" if self.tls_key_file is None else "tls_certificate_file"
            raise ValueError(f"{missing} is not set: set both of tls_certificate_file and tls_key_file, or neither")
        return self

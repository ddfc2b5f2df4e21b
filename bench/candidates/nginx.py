"""nginx with one worker, and as the upstream that answers small requests."""

from pathlib import Path

from bench.candidates.kinds import DOMAIN, MANY_CONNECTIONS, Endpoints, Upstreams
from bench.installing import program, said_version
from bench.processes import Child

KEPT_CONNECTIONS = 1024
PREDICTION = '{"prediction":[0.1,0.2,0.3,0.4],"model":"iris","ok":true}'
COMPLETION = (
    '{"id":"c1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,"message":'
    '{"role":"assistant","content":"hello"},"finish_reason":"stop"}],'
    '"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}}'
)


class Nginx:
    """Connections to the upstreams are kept, as many as there may be requests."""

    name = "nginx"

    def prepare(self) -> str:
        return said_version([program("nginx"), "-v"])

    def start(self, endpoints: Endpoints, *, port: int, core: int, folder: Path) -> Child:
        servers = [_server(name, one, port, first=not number) for number, (name, one) in enumerate(endpoints.items())]
        return _start("\n".join(servers), core, folder)


def start_upstream(*, port: int, core: int, folder: Path) -> Child:
    """An nginx that answers every request at once: below /v1/ like an LLM, elsewhere like a small model."""
    answers = f"""server {{
        listen 127.0.0.1:{port} backlog=4096;
        default_type application/json;
        location / {{ return 200 '{PREDICTION}'; }}
        location /v1/ {{ return 200 '{COMPLETION}'; }}
    }}"""
    return _start(answers, core, folder)


def _start(servers: str, core: int, folder: Path) -> Child:
    temporary = "\n".join(
        f"    {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(f"""
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
worker_rlimit_nofile {MANY_CONNECTIONS};
events {{ worker_connections {MANY_CONNECTIONS}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_read_timeout 900s;
{temporary}
    {servers}
}}
""")
    arguments = ["-e", f"{folder}/nginx.err", "-c", f"{folder}/nginx.conf", "-p", str(folder)]
    return Child([program("nginx"), *arguments], core=core, log=folder / "nginx.log")


def _server(name: str, upstreams: Upstreams, port: int, *, first: bool) -> str:
    servers = " ".join(f"server {address};" for address in upstreams.addresses)
    buffering = "off" if upstreams.streams else "on"
    backlog = "backlog=4096" if first else ""
    return f"""
    upstream {name} {{ least_conn; {servers} keepalive {KEPT_CONNECTIONS}; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} {backlog};
        server_name {name}.{DOMAIN};
        location / {{
            proxy_pass http://{name};
            proxy_buffering {buffering};
            proxy_request_buffering {buffering};
        }}
    }}"""

"""HAProxy with one thread. With replicas of one slot it queues centrally: `maxconn 1`."""

from pathlib import Path

from bench.candidates.kinds import MANY_CONNECTIONS, Endpoints, Upstreams
from bench.installing import program, said_version
from bench.processes import Child


class HAProxy:
    """`option http-no-delay` where answers are streams: without it events wait for company."""

    name = "haproxy"

    def prepare(self) -> str:
        return said_version([program("haproxy"), "-v"])

    def start(self, endpoints: Endpoints, *, port: int, core: int, folder: Path) -> Child:
        uses = "\n".join(f"    use_backend {name} if {{ req.hdr(host) -m beg {name}. }}" for name in endpoints)
        # Each connection is counted twice against the limit on open files, although idle ones need one.
        (folder / "haproxy.cfg").write_text(f"""
global
    nbthread 1
    maxconn {MANY_CONNECTIONS}
    no strict-limits
defaults
    mode http
    timeout connect 5s
    timeout client 900s
    timeout server 900s
    timeout queue 900s
    timeout http-keep-alive 900s
    option http-keep-alive
    http-reuse always
frontend all
    bind 127.0.0.1:{port} backlog 4096
{uses}
{"".join(_backend(name, one) for name, one in endpoints.items())}
""")
        command = [program("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]
        return Child(command, core=core, log=folder / "haproxy.log")


def _backend(name: str, upstreams: Upstreams) -> str:
    servers = "\n".join(
        f"    server replica{number} {address} maxconn {upstreams.concurrency}"
        for number, address in enumerate(upstreams.addresses)
    )
    no_delay = "    option http-no-delay\n" if upstreams.streams else ""
    return f"backend {name}\n    balance leastconn\n{no_delay}{servers}\n"

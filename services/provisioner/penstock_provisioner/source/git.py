"""git, held to fetching objects from one address: no prompts, hooks, helpers, redirects or other transports."""

import os
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock_provisioner.files import tree_bytes, write_atomically
from penstock_provisioner.helpers import Completed, HelperFailed, Helpers
from penstock_provisioner.source.address import Address, LocalAddress, RemoteAddress
from penstock_provisioner.source.network import IpAddress
from penstock_provisioner.source.problems import URI, SourceProblem
from penstock_provisioner.threads import in_thread

_REFS_BYTES_MAX = 32 * 1024 * 1024
_LISTING_BYTES_MAX = 64 * 1024 * 1024
_PASSED_ON = re.compile(
    r"(https?|all|no)_proxy|SSL_CERT_(FILE|DIR)|CURL_CA_BUNDLE|GIT_SSL_(CAINFO|CAPATH)", re.IGNORECASE
)

# A file of its own, because git does not pass `-c` on to the process that reads a local repository.
_CONFIG = """\
[protocol]
    allow = never
    version = 2
[protocol "https"]
    allow = always
[http]
    followRedirects = false
    lowSpeedLimit = 1000
    lowSpeedTime = 20
[credential]
    helper =
[core]
    hooksPath = /dev/null
    symlinks = false
    fsmonitor = false
[fetch]
    recurseSubmodules = false
    unpackLimit = 1
[submodule]
    recurse = false
[gc]
    auto = 0
[maintenance]
    auto = false
[advice]
    detachedHead = false
"""
_LOCAL_CONFIG = """\
[protocol "file"]
    allow = always
[safe]
    directory = *
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A repository to fetch from. Only `ips` are connected to, unless a proxy does the looking up."""

    address: Address
    ips: tuple[IpAddress, ...] = ()

    @property
    def where(self) -> str:
        """What git is given as the repository."""
        return self.address.path if isinstance(self.address, LocalAddress) else self.address.url


@dataclass(frozen=True, slots=True)
class GitLimits:
    """`bytes_max` bounds what is fetched, and `timeout_s` each call."""

    bytes_max: int
    timeout_s: float


class Git:
    """Runs git with a configuration of our own and no other. `directory` holds that configuration."""

    def __init__(self, helpers: Helpers, directory: Path, limits: GitLimits) -> None:
        self._helpers = helpers
        self._directory = directory
        self._limits = limits
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(self._config("remote"), _CONFIG.encode(), durable=False)
        write_atomically(self._config("local"), (_CONFIG + _LOCAL_CONFIG).encode(), durable=False)

    async def refs(self, target: Target) -> dict[str, str]:
        """Every branch and tag of the repository, and HEAD, by full name: the object that each names.

        Raises SourceProblem when it cannot be reached, or is no repository.
        """
        completed = await self._run(
            ["ls-remote", "--quiet", "--", target.where], target=target, output_bytes_max=_REFS_BYTES_MAX
        )
        if completed.code != 0:
            raise explained(target, completed.stderr)
        return await in_thread(_parsed_refs, completed.stdout)

    async def fetch(self, target: Target, repository: Path, wanted: str) -> bool:
        """Fetch one commit (or ref) without its history into a new bare `repository`; whether it was there.

        Raises SourceProblem when the repository cannot be reached or is too large.
        """
        await self.read(repository, ["init", "--quiet", "--bare", "--template=", "--", str(repository)])
        completed = await self._run(
            ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", target.where, wanted],
            target=target,
            repository=repository,
            guard=lambda: self._guard_size(repository),
        )
        if completed.code == 0:
            return True
        if _NOT_THERE.search(completed.stderr):
            return False
        raise explained(target, completed.stderr)

    async def read(self, repository: Path, arguments: Sequence[str]) -> bytes:
        """What a command says that only reads `repository`. Raises SourceProblem when it fails."""
        completed = await self._run(arguments, repository=repository, output_bytes_max=_LISTING_BYTES_MAX)
        if completed.code != 0:
            raise SourceProblem(URI, f"the repository cannot be read: {_last_line(completed.stderr)}")
        return completed.stdout

    def environment(self, target: Target | None = None) -> dict[str, str]:
        """The environment of every git process: proxies and certificates pass, settings of users do not."""
        passed = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
        if "SSL_CERT_FILE" in passed:
            # git has a variable of its own for what other programs read from this one.
            passed.setdefault("GIT_SSL_CAINFO", passed["SSL_CERT_FILE"])
        is_local = target is not None and isinstance(target.address, LocalAddress)
        return self._helpers.marked(
            {
                **passed,
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(self._directory),
                "LC_ALL": "C",
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": str(self._config("local" if is_local else "remote")),
                "GIT_ALLOW_PROTOCOL": "file" if is_local else "https",
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_ASKPASS": "",
                "SSH_ASKPASS": "",
                "GIT_LFS_SKIP_SMUDGE": "1",
                "GIT_NO_REPLACE_OBJECTS": "1",
                "GIT_NO_LAZY_FETCH": "1",
            }
        )

    async def _run(
        self,
        arguments: Sequence[str],
        *,
        target: Target | None = None,
        repository: Path | None = None,
        output_bytes_max: int = 1024 * 1024,
        guard: Callable[[], Awaitable[None]] | None = None,
    ) -> Completed:
        env = self.environment(target)
        if repository is not None:
            env["GIT_DIR"] = str(repository)
        try:
            return await self._helpers.run(
                ["git", *_pinned(target), *arguments],
                cwd=self._directory,
                env=env,
                timeout_s=self._limits.timeout_s,
                output_bytes_max=output_bytes_max,
                guard=guard,
            )
        except HelperFailed as failure:
            raise SourceProblem(URI, f"fetching the repository {failure}: use a smaller or faster one") from failure
        except FileNotFoundError as error:
            raise SourceProblem(URI, "this host has no git: install it on the host") from error

    async def _guard_size(self, repository: Path) -> None:
        if await in_thread(tree_bytes, repository) > self._limits.bytes_max:
            raise too_big(self._limits.bytes_max)

    def _config(self, kind: str) -> Path:
        return self._directory / f"{kind}.gitconfig"


def _parsed_refs(listing: bytes) -> dict[str, str]:
    lines = listing.decode(errors="replace").splitlines()
    return {name: oid for oid, _, name in (line.partition("\t") for line in lines)}


def too_big(bytes_max: int) -> SourceProblem:
    return SourceProblem(
        URI,
        f"the repository holds more than {bytes_max // 1024**2} MB: keep large files out of it, and load them "
        "when the model starts, or raise PENSTOCK_SOURCE_MB_MAX on the hosts",
    )


def explained(target: Target, stderr: str) -> SourceProblem:
    """What git said, as a problem with a mend."""
    for pattern, message in _EXPLANATIONS:
        if pattern.search(stderr):
            return SourceProblem(URI, message.format(where=target.where))
    return SourceProblem(URI, f"{target.where} cannot be fetched: {_last_line(stderr)}")


def _pinned(target: Target | None) -> list[str]:
    """Tells git's http client the addresses that were checked, so that it does not look them up again."""
    if target is None or not isinstance(target.address, RemoteAddress) or not target.ips:
        return []
    ips = ",".join(f"[{ip}]" if ip.version == 6 else str(ip) for ip in target.ips)
    return ["-c", f"http.curloptResolve={target.address.host}:{target.address.port}:{ips}"]


def _last_line(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    text = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "no reason")
    return "".join(c if c.isprintable() else " " for c in text.partition(": ")[2] or text)[:300]


_NOT_THERE = re.compile(r"couldn't find remote ref|not our ref|no such remote ref|unadvertised object", re.IGNORECASE)
_EXPLANATIONS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), message)
    for pattern, message in (
        (
            r"could not read (username|password)|authentication failed|error: 40[13]|terminal prompts disabled",
            "{where} asks for a login, so it is private or does not exist: give a public repository, "
            "or mend the address",
        ),
        (r"error: 404|repository .* not found", "{where} does not exist, or is private: check the address"),
        (
            r"error: 30\d|redirect",
            "{where} redirects to another address: give the address that it leads to",
        ),
        (
            r"does not appear to be a git repository|not a git repository|no such file or directory",
            "{where} is no git repository: check the path, or run git init and commit there",
        ),
        (r"could not resolve host", "the server of {where} cannot be reached: its name is not known here"),
        (
            r"failed to connect|connection (refused|reset|timed out)|couldn't connect|too slow|timed out|"
            r"empty reply|no route to host|recv failure",
            "the server of {where} cannot be reached, or is too slow: check the address, and try again",
        ),
        (r"certificate", "the certificate of the server of {where} is not trusted on this host"),
        (
            r"not valid: is this a git repository|dumb http|protocol error|bad line length",
            "{where} does not answer as a git server does: check the address",
        ),
    )
)

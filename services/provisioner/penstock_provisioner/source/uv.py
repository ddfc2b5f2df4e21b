"""uv, with the operator's own index settings and nothing of the source's."""

import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import uv

from penstock_provisioner.files import tree_bytes
from penstock_provisioner.helpers import Completed, Helpers
from penstock_provisioner.threads import in_thread

log = logging.getLogger(__name__)

_CLEAN_TIMEOUT_S = 120.0
_COMPILE_WORKERS_MAX = 4

_PASSED_ON = re.compile(
    r"UV_\w+|PIP_\w+|(https?|all|no)_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|"
    r"NETRC|HOME|XDG_CONFIG_HOME|PATH|LANG|TMPDIR",
    re.IGNORECASE,
)
# uv does not read pip's variables, and an operator who set them means every installation.
_FROM_PIP = {
    "UV_DEFAULT_INDEX": "PIP_INDEX_URL",
    "UV_INDEX": "PIP_EXTRA_INDEX_URL",
    "UV_FIND_LINKS": "PIP_FIND_LINKS",
}


class Uv:
    """Runs uv in `directory`, which must hold no settings for it, with its cache in `cache`."""

    def __init__(self, helpers: Helpers, directory: Path, cache: Path) -> None:
        self._helpers = helpers
        self._directory = directory
        self._cache = cache
        directory.mkdir(parents=True, exist_ok=True)

    async def run(self, arguments: Sequence[str], *, timeout_s: float, cwd: Path | None = None) -> Completed:
        """Run uv. Raises HelperFailed when it takes too long; a refusal is in what is returned."""
        return await self._helpers.run(
            [uv.find_uv_bin(), "--color", "never", "--no-progress", "--no-python-downloads", *arguments],
            cwd=cwd or self._directory,
            env=self.environment(),
            timeout_s=timeout_s,
            output_bytes_max=8 * 1024 * 1024,
        )

    async def compile_bytecode(self, environment: Path, *, timeout_s: float) -> bool:
        """Compile what an environment holds, so that no replica has to; whether all of it compiled.

        Nothing of it is run: by its own interpreter, a package's `.pth` files would be.
        """
        workers = str(min(_COMPILE_WORKERS_MAX, os.cpu_count() or 1))
        completed = await self._helpers.run(
            [python(), "-I", "-S", "-m", "compileall", "-qq", "-j", workers, str(environment / "lib")],
            cwd=self._directory,
            env={},
            timeout_s=timeout_s,
        )
        return completed.code == 0

    async def bound_cache(self, bytes_max: int) -> None:
        """Empty the cache of wheels when it has grown beyond `bytes_max`; environments keep what they use."""
        if await in_thread(tree_bytes, self._cache) > bytes_max:
            log.info("emptying the cache of wheels", extra={"bytes_max": bytes_max})
            await self.run(["cache", "clean", "--quiet"], timeout_s=_CLEAN_TIMEOUT_S)

    def environment(self) -> dict[str, str]:
        """The operator's settings of uv and pip, proxies and certificates."""
        found = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
        for ours, theirs in _FROM_PIP.items():
            if ours not in found and found.get(theirs):
                found[ours] = found[theirs]
        return {"UV_CACHE_DIR": str(self._cache), **found}


def python() -> str:
    """The interpreter that environments are made for: the one that runs this process."""
    return sys.executable


def python_tag() -> str:
    """What an environment depends on besides its packages."""
    version = ".".join(map(str, sys.version_info[:3]))
    return f"{sys.implementation.name}-{version}-{os.uname().machine}-{sys.base_prefix}"


def reason(completed: Completed) -> str:
    """What uv said went wrong, as one line."""
    text = " ".join(re.sub(r"[│×├╰─▶]+", " ", completed.stderr).split())
    text = re.sub(r"^(warning: .*? )?error: ", "", text)
    text = re.sub(r"\b(cause|Caused by): ", "", text)
    # Addresses may hold an operator's password.
    text = re.sub(r"//[^/\s@]+@", "//***@", text)
    return text[:1000]

"""The first organization, and the key with which everything else is made."""

import asyncio
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock_api.app import MIGRATIONS, build
from penstock_api.bootstrap import bootstrap
from penstock_api.domain.keys import is_key, sha256_of
from penstock_api.settings import ApiSettings
from penstock_common.errors import DomainError
from tests_support import eventually, running

pytestmark = pytest.mark.connected


@pytest.fixture
def url(settings: ApiSettings) -> str:
    assert settings.database_url is not None
    return settings.database_url.get_secret_value()


async def test_the_first_key_may_do_everything_and_reaches_the_gateway(
    settings: ApiSettings, url: str, tmp_path: Path
) -> None:
    path = tmp_path / "key"

    assert await bootstrap(url, MIGRATIONS, "Acme", path) is True

    text = path.read_text().strip()
    assert is_key(text)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["key"]
    application = build(settings)
    async with running(application.service):
        transport = httpx.ASGITransport(application.http)
        headers = {"Authorization": f"Bearer {text}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
            me = (await client.get("/v1/me")).json()
            assert (me["organization"], me["role"]) == ("Acme", "owner")
            assert len(me["scopes"]) == 7
            workspaces = (await client.get("/v1/workspaces")).json()["items"]
            assert [workspace["slug"] for workspace in workspaces] == ["default"]
        record = await eventually(lambda: application.bucket.snapshot.get(sha256_of(text)))
        assert "endpoints:invoke" in record.scopes


async def test_a_key_made_while_the_api_runs_reaches_the_gateway_at_once(
    settings: ApiSettings, url: str, tmp_path: Path
) -> None:
    application = build(settings)
    async with running(application.service):
        await application.bucket.ready.wait()
        await application.upkeep.repair()

        await bootstrap(url, MIGRATIONS, "Acme", tmp_path / "key")

        sha256 = sha256_of((tmp_path / "key").read_text().strip())
        await eventually(lambda: sha256 in application.bucket.snapshot)


async def test_a_valid_key_is_left_as_it_is(url: str, tmp_path: Path, database: Any) -> None:
    path = tmp_path / "key"
    await bootstrap(url, MIGRATIONS, "Acme", path)
    before = path.read_text()

    assert await bootstrap(url, MIGRATIONS, "Another name", path) is False

    assert path.read_text() == before
    assert await database.fetchval("select count(*) from api_keys") == 1
    assert await database.fetchval("select count(*) from organizations") == 1


@pytest.mark.parametrize("content", [None, "", "nonsense", "psk_" + "0" * 36])
async def test_a_key_that_is_lost_or_wrong_is_replaced(
    url: str, tmp_path: Path, database: Any, content: str | None
) -> None:
    path = tmp_path / "key"
    await bootstrap(url, MIGRATIONS, "Acme", path)
    before = path.read_text()
    if content is None:
        path.unlink()
    else:
        path.write_text(content)

    assert await bootstrap(url, MIGRATIONS, "Acme", path) is True

    assert path.read_text() != before
    assert await database.fetchval("select count(*) from organizations") == 1


async def test_a_revoked_key_is_replaced(url: str, tmp_path: Path, database: Any) -> None:
    path = tmp_path / "key"
    await bootstrap(url, MIGRATIONS, "Acme", path)
    await database.execute("update api_keys set revoked_at = now()")

    assert await bootstrap(url, MIGRATIONS, "Acme", path) is True


async def test_many_at_once_make_one_key(url: str, tmp_path: Path, database: Any) -> None:
    path = tmp_path / "key"

    made = await asyncio.gather(*(bootstrap(url, MIGRATIONS, "Acme", path) for _ in range(4)))

    assert sorted(made) == [False, False, False, True]
    assert await database.fetchval("select count(*) from api_keys") == 1


async def test_without_the_file_there_is_no_key(url: str, tmp_path: Path, database: Any) -> None:
    with pytest.raises(OSError, match="missing"):
        await bootstrap(url, MIGRATIONS, "Acme", tmp_path / "missing" / "key")

    assert await database.fetchval("select count(*) from api_keys") == 0


async def test_without_an_owner_the_operator_is_told(url: str, tmp_path: Path, database: Any) -> None:
    await bootstrap(url, MIGRATIONS, "Acme", tmp_path / "key")
    await database.execute("update members set role = 'viewer'")

    with pytest.raises(DomainError, match="make a member owner"):
        await bootstrap(url, MIGRATIONS, "Acme", tmp_path / "other")


async def run_command(*arguments: str, **environment: str) -> tuple[int, str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "penstock_api",
        *arguments,
        env={**plain, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_command_says_what_it_did(url: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    command = ("bootstrap", "--organization", "Acme", "--key-file", str(path))

    code, out, _ = await run_command(*command, PENSTOCK_DATABASE_URL=url)
    assert (code, out) == (0, f"a new API key is in {path}\n")
    assert path.read_text().strip() not in out
    assert await run_command(*command, PENSTOCK_DATABASE_URL=url) == (0, f"the API key in {path} is valid\n", "")


async def test_the_command_says_what_keeps_it_from_working(tmp_path: Path, unused_tcp_port: int) -> None:
    command = ("bootstrap", "--organization", "Acme", "--key-file", str(tmp_path / "key"))

    assert (await run_command(*command))[0] == 2
    nowhere = f"postgresql://u:hidden@127.0.0.1:{unused_tcp_port}/d"
    code, _, err = await run_command(*command, PENSTOCK_DATABASE_URL=nowhere)
    assert code == 1
    assert err.startswith("bootstrap failed:")
    assert "hidden" not in err
    assert "Traceback" not in err


async def test_the_command_prints_the_document() -> None:
    code, out, err = await run_command("openapi")

    assert (code, err) == (0, "")
    assert json.loads(out)["openapi"].startswith("3.")

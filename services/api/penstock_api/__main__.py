"""`python -m penstock_api`: serve; with `bootstrap` or `openapi`: see `--help`."""

import argparse
import asyncio
import json
import sys
from pathlib import Path

import asyncpg
import uvloop

from penstock_api.app import MIGRATIONS, build_server, make_http
from penstock_api.bootstrap import bootstrap
from penstock_api.settings import ApiSettings
from penstock_common.errors import DomainError


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.command == "openapi":
        print(json.dumps(make_http(ApiSettings()).openapi(), indent=2, ensure_ascii=False))
        return 0
    if arguments.command == "bootstrap":
        return _bootstrap(arguments.organization, arguments.key_file)
    uvloop.run(_serve())
    return 0


async def _serve() -> None:
    application, _ = build_server(ApiSettings())
    await application.service.run()


def _bootstrap(organization: str, key_file: Path) -> int:
    settings = ApiSettings()
    if settings.database_url is None:
        print("PENSTOCK_DATABASE_URL is not set: give the address of PostgreSQL", file=sys.stderr)
        return 2
    try:
        is_new = asyncio.run(bootstrap(settings.database_url.get_secret_value(), MIGRATIONS, organization, key_file))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DomainError) as error:
        print(f"bootstrap failed: {error}", file=sys.stderr)
        return 1
    print(f"a new API key is in {key_file}" if is_new else f"the API key in {key_file} is valid")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="penstock_api", description="The public REST API of Penstock.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    first = commands.add_parser("bootstrap", help="create the first organization and a key that may do all")
    first.add_argument("--organization", required=True, help="name of the organization that runs the platform")
    first.add_argument("--key-file", required=True, type=Path, help="where the key is written, for its owner only")
    commands.add_parser("openapi", help="print the OpenAPI document")
    return parser


if __name__ == "__main__":
    sys.exit(main())

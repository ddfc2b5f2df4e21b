"""Composition root: wires settings, database, messages, questions and routes. The only file that does."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

from penstock_api.authentication import Authentication
from penstock_api.bounds import Bounds
from penstock_api.context import Api
from penstock_api.dead_letters import DeadLetters
from penstock_api.domain.connection import Addresses
from penstock_api.domain.rate import Rate
from penstock_api.handlers.endpoints import Desk
from penstock_api.handlers.facts import LIFECYCLE_HANDLERS, lines_printed
from penstock_api.handlers.keys import rewrite_records
from penstock_api.handlers.prices import PriceBoard
from penstock_api.handlers.turns import Turns
from penstock_api.problem_answers import install_problem_answers
from penstock_api.rate_limit import RateLimit
from penstock_api.rollups import Rollups
from penstock_api.routes import accounts, admin, endpoints, history, metrics, usage
from penstock_api.routes.schemas import DESCRIPTION, install_openapi
from penstock_api.server import PublicServer
from penstock_api.settings import ApiSettings
from penstock_api.store import Store
from penstock_api.store.listening import listen
from penstock_api.streams import StreamPlaces, Wakeups
from penstock_api.upkeep import Upkeep
from penstock_common.contracts.events import LogBatch
from penstock_common.contracts.records import ApiKeyRecord
from penstock_common.contracts.topology import API_LIFECYCLE, API_LOGS
from penstock_common.delivery.watch import BucketWatch
from penstock_common.service import Service

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION = "1"


@dataclass(frozen=True, slots=True)
class Application:
    """The service, the HTTP application on it, and the parts that tests look into."""

    service: Service[Store]
    http: FastAPI
    api: Api
    bucket: BucketWatch[ApiKeyRecord]
    upkeep: Upkeep


def build(settings: ApiSettings) -> Application:
    """The API without its HTTP server, ready to start."""
    service: Service[Store] = Service("api", settings, make_store=Store, migrations=MIGRATIONS)
    api = _parts(service, settings)
    bucket = service.watch(ApiKeyRecord, _ignore)
    upkeep = Upkeep(service, settings, bucket, connected=lambda: service.nats.is_connected)
    service.subscribe(API_LIFECYCLE, LIFECYCLE_HANDLERS)
    service.subscribe(API_LOGS, {LogBatch: lines_printed})
    service.on_replay(rewrite_records)
    service.background("wake streams", lambda: _wake_streams(settings, api.wakeups))
    service.background("repair api_keys", upkeep.run_repair)
    service.background("clean tables", upkeep.run_cleaning)
    rollups = _rollups(service, settings)
    service.background("metrics", rollups.run)
    http = make_http(settings)
    http.state.api = api

    async def end_streams() -> None:
        api.wakeups.stop()

    service.on_stop(end_streams)
    service.on_stop(rollups.stop)
    return Application(service, http, api, bucket, upkeep)


def build_server(settings: ApiSettings) -> tuple[Application, PublicServer]:
    """The API with its HTTP server, which answers once the service is connected, and leaves with it."""
    application = build(settings)
    FastAPIInstrumentor.instrument_app(
        application.http, excluded_urls="healthz,readyz,metrics", exclude_spans=["send", "receive"]
    )
    server = PublicServer(application.http, settings.api_host, settings.api_port, grace_s=settings.shutdown_grace_s / 2)
    application.service.background("public API", server.serve)
    application.service.on_stop(server.stop)
    return application, server


def make_http(settings: ApiSettings) -> FastAPI:
    """The HTTP application by itself; its parts come in `state.api`."""
    http = FastAPI(
        title="Penstock",
        version=VERSION,
        description=DESCRIPTION,
        openapi_url="/openapi.json",
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    http.add_middleware(Bounds, body_bytes_max=settings.body_bytes_max, requests_at_once=settings.requests_at_once)
    routers = [room.router for room in (accounts, endpoints, history, metrics, usage, admin)]
    for router in routers:
        http.include_router(router)
    install_problem_answers(http)
    install_openapi(http, routers)
    return http


def _parts(service: Service[Store], settings: ApiSettings) -> Api:
    desk = Desk(
        service,
        PriceBoard(service),
        Addresses(settings.gateway_url, settings.domain),
        asyncio.Semaphore(settings.creates_at_once),
        Turns(settings.inspections_per_organization),
    )
    return Api(
        platform=service,
        desk=desk,
        authentication=Authentication(service),
        rate_limit=RateLimit(Rate(settings.requests_per_s, settings.requests_burst)),
        wakeups=Wakeups(),
        places=StreamPlaces(in_all=settings.streams_at_once, per_organization=settings.streams_per_organization),
        dead_letters=DeadLetters(lambda: service.js),
        stream_heartbeat_s=settings.stream_heartbeat_s,
        resolutions=settings.resolutions,
    )


def _rollups(service: Service[Store], settings: ApiSettings) -> Rollups:
    return Rollups(
        lambda: service.nats,
        service,
        step_s=settings.resolutions[0].step_s,
        write_every_s=settings.metrics_write_s,
        held_max=settings.metrics_rows_max,
    )


async def _wake_streams(settings: ApiSettings, wakeups: Wakeups) -> None:
    if settings.database_url is None:
        raise RuntimeError("PENSTOCK_DATABASE_URL is not set: give the address of PostgreSQL")
    await listen(settings.database_url.get_secret_value(), wakeups.wake, wakeups.wake_all)


def _ignore(_key: str, _record: ApiKeyRecord | None) -> None:
    """The snapshot is read when it is needed; its changes are nobody's business here."""

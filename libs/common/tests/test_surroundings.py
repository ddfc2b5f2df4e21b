"""Around delivery, on real servers: watched buckets, questions, permissions, migrations, pruning."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from penstock_common.contracts.events import HostJoined
from penstock_common.contracts.questions import AskHosts, HostsReply
from penstock_common.contracts.records import ApiKeyRecord
from penstock_common.contracts.topology import API_KEYS
from penstock_common.delivery.inbox import prune
from penstock_common.delivery.publish import publish_message
from penstock_common.delivery.topology import declare
from penstock_common.errors import DomainError, Unavailable
from penstock_common.service import Service
from tests_support import Servers, eventually, running

from .delivering import Make, Notes, api

pytestmark = pytest.mark.connected


async def test_bucket_records_reach_a_watcher_and_deletions_too(make_settings: Make) -> None:
    seen: dict[str, ApiKeyRecord | None] = {}
    gateway: Service[None] = Service("gateway", make_settings("gateway"))
    watch = gateway.watch(ApiKeyRecord, lambda key, record: seen.update({key: record}))
    record = ApiKeyRecord(sha256="ab12", key_id="key_1", organization_id="org_1", scopes=("endpoints:invoke",))
    async with running(api(make_settings)) as sender, running(gateway):
        await asyncio.wait_for(watch.ready.wait(), 10)
        async with sender.transaction() as store:
            await store.outbox.put(record)
        await eventually(lambda: seen.get("ab12") == record)
        async with sender.transaction() as store:
            await store.outbox.delete(ApiKeyRecord, "ab12")
        await eventually(lambda: "ab12" in seen and seen["ab12"] is None)
        assert watch.snapshot == {}


async def test_a_watcher_gets_a_whole_snapshot_after_a_restart(make_settings: Make) -> None:
    seen: dict[str, ApiKeyRecord | None] = {}
    gateway: Service[None] = Service("gateway", make_settings("gateway"))
    watch = gateway.watch(ApiKeyRecord, lambda key, record: seen.update({key: record}))
    record = ApiKeyRecord(sha256="ab12", key_id="key_1", organization_id="org_1", scopes=())
    async with running(api(make_settings)) as sender, running(gateway):
        await asyncio.wait_for(watch.ready.wait(), 10)
        async with sender.transaction() as store:
            await store.outbox.put(record)
        await eventually(lambda: "ab12" in watch.snapshot)
        watch.snapshot["gone"] = record
        await eventually(lambda: watch.current)
        watch.restart()
        assert not watch.current
        await eventually(lambda: watch.current)
        assert set(watch.snapshot) == {"ab12"}
        assert seen["gone"] is None


async def test_a_bucket_made_anew_takes_nothing_away_until_its_owner_has_filled_it(
    make_settings: Make, clean_servers: Servers
) -> None:
    gone: list[str] = []

    def note(key: str, record: ApiKeyRecord | None) -> None:
        if record is None:
            gone.append(key)

    record = ApiKeyRecord(sha256="ab12", key_id="key_1", organization_id="org_1", scopes=())
    other = record.model_copy(update={"sha256": "cd34"})

    async def rewrite(store: Notes) -> int:
        await store.outbox.put(record)
        return 1

    def owner() -> Service[Notes]:
        service = api(make_settings)
        service.on_replay(rewrite)
        return service

    gateway: Service[None] = Service("gateway", make_settings("gateway"))
    watch = gateway.watch(ApiKeyRecord, note)
    admin = await clean_servers.admin_client()
    js = admin.jetstream()
    async with running(gateway):
        async with running(owner()) as sender:
            async with sender.transaction() as store:
                await store.outbox.put(record)
                await store.outbox.put(other)
            await eventually(lambda: set(watch.snapshot) == {"ab12", "cd34"})
        # The owner is away while NATS loses the bucket.
        await js.delete_stream(API_KEYS.stream)
        await declare(js)
        watch.restart()
        await js.publish(
            API_KEYS.subject("ef56"), record.model_copy(update={"sha256": "ef56"}).model_dump_json().encode()
        )
        await eventually(lambda: "ef56" in watch.snapshot)
        assert gone == []
        async with running(owner()):
            await eventually(lambda: "cd34" in gone, deadline_s=20)
            assert "ab12" in watch.snapshot
    await admin.close()


async def test_writes_to_one_key_keep_their_order_when_some_are_sent_again(
    make_settings: Make, clean_servers: Servers
) -> None:
    record = ApiKeyRecord(sha256="ab12", key_id="key_1", organization_id="org_1", scopes=())
    admin = await clean_servers.admin_client()
    async with running(api(make_settings)) as sender:
        async with sender.transaction() as store:
            await store.outbox.put(record)
            await store.outbox.delete(ApiKeyRecord, "ab12")

        async def sent() -> bool:
            return bool(await sender.pool.fetchval("select count(*) = 0 from outbox where sent_at is null"))

        await eventually(sent)
        # As when the first was not acknowledged though the second was: both are sent again.
        await sender.pool.execute("update outbox set sent_at = null")
        await sender.pool.execute("select pg_notify('outbox_api', '')")
        await eventually(sent)
        last = await admin.jetstream().get_last_msg(API_KEYS.stream, API_KEYS.subject("ab12"))
        assert (last.headers or {}).get("KV-Operation") == "DEL"
    await admin.close()


async def test_pruning_forgets_what_is_old_and_keeps_the_rest(make_settings: Make) -> None:
    async with running(api(make_settings)) as service:
        await service.pool.execute(
            "insert into outbox (message_id, subject, headers, payload, sent_at)"
            " select n::text, 's', '{}', '', now() - make_interval(days => 8) from generate_series(1, 25000) n"
        )
        await service.pool.execute(
            "insert into inbox (consumer, event_id, handled_at)"
            " values ('c', 'old', now() - make_interval(days => 31)), ('c', 'new', now())"
        )
        await prune(service.pool)
        assert await service.pool.fetchval("select count(*) from outbox where subject = 's'") == 0
        assert [row["event_id"] for row in await service.pool.fetch("select event_id from inbox")] == ["new"]


async def test_a_service_may_not_speak_for_another(make_settings: Make) -> None:
    async with running(Service("billing", make_settings("billing"), make_store=Notes)) as billing:
        event = HostJoined(host_id="h", at=datetime.now(UTC))
        with pytest.raises(Exception, match="timeout"):
            await publish_message(
                billing.js, event.message_type, event, message_id="1", source="billing", timeout_s=0.5
            )


async def test_a_service_may_not_read_anothers_tables(make_settings: Make, clean_servers: Servers) -> None:
    async with (
        running(api(make_settings)) as one,
        running(Service("billing", make_settings("billing"), make_store=Notes)) as other,
    ):
        assert await one.pool.fetchval("select count(*) from api.outbox") == 0
        with pytest.raises(Exception, match="permission denied"):
            await other.pool.fetchval("select count(*) from api.outbox")


async def test_a_question_is_answered_refused_or_unavailable(make_settings: Make) -> None:
    async def answer(question: AskHosts) -> HostsReply:
        return HostsReply(hosts=())

    async def refuse(question: AskHosts) -> HostsReply:
        raise DomainError("not_now", "come back later")

    async with running(api(make_settings)) as asker:
        with pytest.raises(Unavailable, match="no scheduler is connected"):
            await asker.ask(AskHosts())
        one: Service[Notes] = Service("scheduler", make_settings("scheduler"), make_store=Notes)
        one.answer(AskHosts, answer)
        async with running(one):
            assert await asker.ask(AskHosts()) == HostsReply(hosts=())
        two: Service[Notes] = Service("scheduler", make_settings("scheduler"), make_store=Notes)
        two.answer(AskHosts, refuse)
        async with running(two):
            with pytest.raises(DomainError, match="come back later") as raised:
                await asker.ask(AskHosts())
            assert raised.value.code == "not_now"


async def test_migrations_apply_once_and_refuse_a_changed_file(make_settings: Make, tmp_path: Path) -> None:
    file = tmp_path / "0001_things.sql"
    file.write_text("create table things (id int)")

    def service() -> Service[Notes]:
        return Service("billing", make_settings("billing"), make_store=Notes, migrations=tmp_path)

    async with running(service()) as first:
        await first.pool.execute("insert into things values (1)")
    async with running(service()) as second:
        assert await second.pool.fetchval("select count(*) from things") == 1
    file.write_text("create table things (id bigint)")
    with pytest.raises(RuntimeError, match="changed after it was applied"):
        async with running(service()):
            pass

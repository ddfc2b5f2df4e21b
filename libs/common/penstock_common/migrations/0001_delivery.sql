-- In every service's schema: messages to send, and messages already handled.

create table outbox (
    id bigint generated always as identity primary key,
    message_id text not null,
    subject text not null,
    headers text not null,
    payload bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    sent_at timestamptz
);
create index outbox_unsent on outbox (id) where sent_at is null;
create index outbox_created on outbox (created_at);

create table inbox (
    consumer text not null,
    event_id text not null,
    handled_at timestamptz not null default clock_timestamp(),
    primary key (consumer, event_id)
);
create index inbox_handled on inbox (handled_at);

create function outbox_notify() returns trigger language plpgsql as $$
begin
    perform pg_notify('outbox_' || tg_table_schema, '');
    return null;
end
$$;
create trigger outbox_written after insert on outbox
    for each statement execute function outbox_notify();

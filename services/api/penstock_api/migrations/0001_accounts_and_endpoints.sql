-- Ids sort by creation time; the collation "C" keeps that order whatever the database's language.

create table organizations (
    id text collate "C" primary key,
    name text not null,
    operator boolean not null default false, -- runs the platform: its owners may hold platform:admin
    created_at timestamptz not null default clock_timestamp()
);
create unique index organizations_one_operator on organizations (operator) where operator;
create unique index organizations_name on organizations (lower(name));

create table workspaces (
    id text collate "C" primary key,
    organization_id text not null references organizations (id),
    slug text not null,
    created_at timestamptz not null default clock_timestamp(),
    deleted_at timestamptz
);
create unique index workspaces_slug on workspaces (slug) where deleted_at is null;
create index workspaces_of_organization on workspaces (organization_id, id) where deleted_at is null;

create table members (
    id text collate "C" primary key,
    organization_id text not null references organizations (id),
    email text not null,
    name text not null,
    role text not null check (role in ('owner', 'admin', 'developer', 'viewer')),
    created_at timestamptz not null default clock_timestamp(),
    removed_at timestamptz
);
create unique index members_email on members (organization_id, email) where removed_at is null;

create table api_keys (
    id text collate "C" primary key,
    organization_id text not null references organizations (id),
    member_id text not null references members (id),
    name text not null,
    sha256 text not null unique,
    start text not null, -- the first characters, by which its owner knows it
    scopes text[] not null,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz
);
create index api_keys_of_organization on api_keys (organization_id, id) where revoked_at is null;
create index api_keys_of_member on api_keys (member_id) where revoked_at is null;

create table endpoints (
    id text collate "C" primary key,
    organization_id text not null references organizations (id),
    workspace_id text not null references workspaces (id),
    name text not null,
    slug text not null,
    spec jsonb not null,
    source jsonb not null,
    request_version bigint not null, -- of the last request published; each one's is higher
    wanted text not null check (wanted in ('running', 'stopped', 'terminated')),
    state text not null check (state in ('queued', 'starting', 'running', 'idle', 'stopping', 'stopped', 'failed',
        'terminating', 'terminated')),
    version bigint not null default 0, -- of the last lifecycle fact applied
    reason text not null default '',
    position integer,
    estimated_start_at timestamptz,
    started_at timestamptz,
    log_tail text not null default '',
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp()
);
create unique index endpoints_slug on endpoints (workspace_id, slug) where state <> 'terminated';
create index endpoints_of_organization on endpoints (organization_id, id);

create table endpoint_events (
    id bigint generated always as identity primary key,
    endpoint_id text not null references endpoints (id),
    at timestamptz not null,
    type text not null,
    phase text not null,
    message text not null,
    replica_id text
);
create index endpoint_events_of_endpoint on endpoint_events (endpoint_id, id);

create table replicas (
    id text collate "C" primary key,
    endpoint_id text not null references endpoints (id),
    host_id text not null,
    generation bigint not null,
    version bigint not null,
    phase text not null check (phase in ('scheduled', 'fetching', 'installing', 'starting', 'ready', 'ended')),
    detail text not null default '',
    gpu_uuids text[] not null default '{}',
    scheduled_at timestamptz,
    ready_at timestamptz,
    ended_at timestamptz
);
create index replicas_alive on replicas (endpoint_id, id) where phase <> 'ended';
create index replicas_ended on replicas (ended_at) where phase = 'ended';

-- No reference to replicas: a line may come before the fact that its replica was scheduled.
create table log_lines (
    id bigint generated always as identity primary key,
    endpoint_id text not null,
    replica_id text not null,
    line_offset bigint not null,
    at timestamptz not null,
    received_at timestamptz not null default clock_timestamp(), -- the host's clock may be wrong, this one ages lines
    text text not null,
    unique (replica_id, line_offset)
);
create index log_lines_of_endpoint on log_lines (endpoint_id, id);

-- How many lines each endpoint has. Who writes or deletes lines locks this row first, so line ids
-- become visible in order: a follower that saw line n has missed none before it.
create table log_counts (
    endpoint_id text primary key references endpoints (id),
    lines bigint not null
);

create table idempotency_keys (
    api_key_id text not null references api_keys (id), -- who sent the request
    key text not null,
    request_sha256 text not null,
    status smallint not null,
    answer text not null,
    nonce bytea, -- from which the caller's own key derives the new key that the answer left out
    created_at timestamptz not null default clock_timestamp(),
    primary key (api_key_id, key)
);
create index idempotency_keys_created on idempotency_keys (created_at);

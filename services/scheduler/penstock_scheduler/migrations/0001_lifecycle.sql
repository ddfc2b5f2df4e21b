-- Hosts, their GPUs, the queue, and every replica there was.

create table hosts (
    host_id text primary key,
    state text not null check (state in ('up', 'lost', 'left')),
    boot_id text not null,
    driver text not null,
    cpu_cores int not null,
    memory_gb int not null,
    disk_gb int not null,
    simulated boolean not null,
    -- It still runs replicas that were given up: nothing new goes there until they have stopped.
    fenced boolean not null default false,
    last_seen_at timestamptz not null
);

create table gpus (
    host_id text not null references hosts,
    uuid text not null,
    type text not null,
    memory_gb int not null,
    primary key (host_id, uuid)
);

create table endpoints (
    endpoint_id text primary key,
    organization_id text not null,
    workspace_id text not null,
    workspace text not null,
    slug text not null,
    spec jsonb not null,
    source jsonb not null,
    traceparent text,
    -- What planning needs of the specification, so that a plan reads no documents.
    gpu_type text,
    gpu_count int not null,
    cpu_cores int not null,
    memory_gb int not null,
    disk_gb int not null,
    replicas_wanted int not null,
    state text not null check (
        state in ('queued', 'starting', 'running', 'idle', 'stopping', 'stopped', 'failed', 'terminating', 'terminated')
    ),
    reason text not null,
    requested_at timestamptz not null,
    request_version bigint not null,
    version bigint not null,
    position int,
    estimated_start_at timestamptz,
    told_at timestamptz,
    generation int not null,
    crash_streak int not null,
    crashed_at timestamptz,
    next_start_at timestamptz,
    stopped_at timestamptz,
    restart_wanted boolean not null
);
create index endpoints_wanted on endpoints (requested_at, endpoint_id)
    where state in ('queued', 'starting', 'running');
create index endpoints_stopped on endpoints (stopped_at) where state = 'stopped';

-- Requests that arrived before the creation of their endpoint: the newest of each.
create table early_requests (
    endpoint_id text primary key,
    kind text not null check (kind in ('stop', 'restart', 'terminate')),
    version bigint not null
);

create table replicas (
    replica_id text primary key,
    endpoint_id text not null references endpoints,
    host_id text not null references hosts,
    generation int not null,
    gpu_type text,
    gpu_count int not null,
    gpu_uuids text[] not null,
    cpu_cores int not null,
    memory_gb int not null,
    disk_gb int not null,
    phase text not null check (phase in ('scheduled', 'fetching', 'installing', 'starting', 'ready', 'ended')),
    detail text not null,
    address text,
    sequence bigint not null,
    scheduled_at timestamptz not null,
    ready_at timestamptz,
    unassign_at timestamptz,
    unassigned_at timestamptz,
    ended_at timestamptz,
    cause text,
    exit_code int,
    unique (endpoint_id, generation)
);
create index replicas_live on replicas (endpoint_id) where ended_at is null;
create index replicas_live_on_host on replicas (host_id) where ended_at is null;
create index replicas_ended on replicas (ended_at);
create index replicas_stopped on replicas (ended_at) where cause = 'stopped';

create table gpu_reservations (
    id bigint generated always as identity primary key,
    gpu_uuid text not null,
    replica_id text not null references replicas on delete cascade,
    reserved_at timestamptz not null default clock_timestamp(),
    released_at timestamptz
);
-- Whatever a plan says, one GPU is never held by two replicas.
create unique index gpu_reserved_once on gpu_reservations (gpu_uuid) where released_at is null;
create index gpu_reservations_of_replica on gpu_reservations (replica_id);

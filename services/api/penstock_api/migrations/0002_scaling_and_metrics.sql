alter table endpoints
    add column idle_since timestamptz,
    add column desired_replicas integer, -- null until the scheduler has said
    add column scaled_version bigint not null default 0, -- of the last fact that said how many are desired
    add column scalings jsonb not null default '[]'; -- the last decisions, oldest first
create index endpoints_terminated on endpoints (updated_at) where state = 'terminated';

-- What gateways counted of an endpoint in the step_s seconds from `at` on. Each process of the API writes
-- rows of its own, and overwrites one until its time is over: several rows of the same time add up.
create table rollups (
    id uuid primary key,
    endpoint_id text collate "C" not null references endpoints (id),
    at timestamptz not null,
    step_s integer not null,
    tally jsonb not null
);
create index rollups_of_endpoint on rollups (endpoint_id, at);
create index rollups_by_age on rollups (step_s, at);

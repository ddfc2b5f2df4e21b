-- The metered time of every replica, and what a unit of time costs.

-- One row for each replica that a fact was heard of. The end may be heard of before the start: the
-- replica is metered once the start is known, and one that never became ready stays without it.
create table segments (
    replica_id text primary key,
    organization_id text not null,
    endpoint_id text not null,
    started_at timestamptz,
    ended_at timestamptz,
    gpu_type text not null,
    gpu_count integer not null check (gpu_count >= 0),
    cpu_cores integer not null check (cpu_cores >= 0)
);
-- A bill asks for what still ran after some time.
create index segments_billed on segments (organization_id, (coalesce(ended_at, 'infinity')))
    where started_at is not null;
-- A change of price asks whether anything of a type ran after some time.
create index segments_priced on segments ((coalesce(ended_at, 'infinity')), gpu_type) where started_at is not null;

-- The price of one GPU of a type (or one CPU core) for an hour, from a date until the next line of
-- the same type. A line that was used is never changed.
create table prices (
    gpu_type text not null,
    valid_from timestamptz not null,
    micros_per_hour bigint not null check (micros_per_hour >= 0),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    primary key (gpu_type, valid_from)
);

-- To start from; types are named as hosts report them. They hold since before any replica ran.
insert into prices (gpu_type, valid_from, micros_per_hour, currency)
select gpu_type, '1970-01-01 00:00:00+00', micros_per_hour, 'USD'
from (values
    ('CPU', 50000),
    ('*', 2000000),
    ('T4', 400000),
    ('L4', 700000),
    ('A10', 900000),
    ('L40S', 1500000),
    ('RTX 3090', 300000),
    ('RTX 4090', 600000),
    ('A100', 1500000),
    ('A100 40GB', 1500000),
    ('A100 80GB', 1800000),
    ('H100', 3000000),
    ('H100 80GB', 3000000),
    ('H200', 3800000)
) as defaults (gpu_type, micros_per_hour);

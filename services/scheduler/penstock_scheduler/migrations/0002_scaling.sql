-- The number of replicas follows the load, down to none.

alter table endpoints rename column replicas_wanted to desired_replicas;
alter table endpoints
    -- Of those desired, how many must run: the others give way when they are idle.
    add column required_replicas int not null default 0,
    -- Version of the route that last changed what the autoscaler decides from.
    add column route_version bigint not null default 0,
    add column shortage text not null default '',
    add column idle_since timestamptz,
    -- Replicas without a request, as the autoscaler last said, and when.
    add column idle_replicas text[] not null default '{}',
    add column idle_told_at timestamptz;
-- Until now every replica was one that must run.
update endpoints set required_replicas = desired_replicas;

alter table replicas
    -- Version of the first route that says it drains.
    add column drain_version bigint,
    add column gives_way boolean not null default false;

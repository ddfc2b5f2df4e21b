"""Rows of the tables, as the domain's data."""

from typing import TypeAlias

import asyncpg

from penstock_common.contracts.endpoint import EndpointSpec, PinnedSource
from penstock_scheduler.domain import Definition, Demand, EndpointRecord, Gpu, Host, Replica

Row: TypeAlias = "asyncpg.Record"


def demand_of(row: Row) -> Demand:
    return Demand(row["cpu_cores"], row["memory_gb"], row["disk_gb"], row["gpu_type"], row["gpu_count"])


def definition_of(row: Row) -> Definition:
    return Definition(
        endpoint_id=row["endpoint_id"],
        organization_id=row["organization_id"],
        workspace_id=row["workspace_id"],
        workspace=row["workspace"],
        slug=row["slug"],
        spec=EndpointSpec.model_validate_json(row["spec"], extra="ignore"),
        source=PinnedSource.model_validate_json(row["source"], extra="ignore"),
        traceparent=row["traceparent"],
    )


def endpoint_of(row: Row) -> EndpointRecord:
    return EndpointRecord(
        endpoint_id=row["endpoint_id"],
        state=row["state"],
        demand=demand_of(row),
        desired_replicas=row["desired_replicas"],
        requested_at=row["requested_at"],
        request_version=row["request_version"],
        version=row["version"],
        reason=row["reason"],
        position=row["position"],
        estimated_start_at=row["estimated_start_at"],
        told_at=row["told_at"],
        generation=row["generation"],
        crash_streak=row["crash_streak"],
        crashed_at=row["crashed_at"],
        next_start_at=row["next_start_at"],
        stopped_at=row["stopped_at"],
        restart_wanted=row["restart_wanted"],
        required_replicas=row["required_replicas"],
        route_version=row["route_version"],
        shortage=row["shortage"],
        idle_since=row["idle_since"],
        idle_replicas=tuple(row["idle_replicas"]),
        idle_told_at=row["idle_told_at"],
    )


def replica_of(row: Row) -> Replica:
    return Replica(
        replica_id=row["replica_id"],
        endpoint_id=row["endpoint_id"],
        host_id=row["host_id"],
        generation=row["generation"],
        demand=demand_of(row),
        gpu_uuids=tuple(row["gpu_uuids"]),
        phase=row["phase"],
        scheduled_at=row["scheduled_at"],
        sequence=row["sequence"],
        detail=row["detail"],
        address=row["address"],
        ready_at=row["ready_at"],
        unassign_at=row["unassign_at"],
        unassigned_at=row["unassigned_at"],
        ended_at=row["ended_at"],
        cause=row["cause"],
        exit_code=row["exit_code"],
        drain_version=row["drain_version"],
        gives_way=row["gives_way"],
    )


def gpu_of(row: Row) -> Gpu:
    return Gpu(row["uuid"], row["type"], row["memory_gb"])


def host_of(row: Row, gpus: list[Gpu]) -> Host:
    return Host(
        host_id=row["host_id"],
        state=row["state"],
        boot_id=row["boot_id"],
        driver=row["driver"],
        cpu_cores=row["cpu_cores"],
        memory_gb=row["memory_gb"],
        disk_gb=row["disk_gb"],
        simulated=row["simulated"],
        last_seen_at=row["last_seen_at"],
        gpus=tuple(gpus),
        fenced=row["fenced"],
    )

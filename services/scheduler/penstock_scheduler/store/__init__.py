"""All of the scheduler's SQL and nothing else."""

from penstock_scheduler.store.tables import Store

__all__ = ["Store"]

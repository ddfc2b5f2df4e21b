"""Every transition of the lifecycle, as pure functions: what happened → new state and facts."""

from penstock_scheduler.lifecycle.ends import lose
from penstock_scheduler.lifecycle.planned import place, purge, unassign, wait
from penstock_scheduler.lifecycle.reports import report
from penstock_scheduler.lifecycle.requests import create, request

__all__ = ["create", "lose", "place", "purge", "report", "request", "unassign", "wait"]

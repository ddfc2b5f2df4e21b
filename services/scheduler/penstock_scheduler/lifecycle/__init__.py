"""Every transition of the lifecycle, as pure functions: what happened → new state and facts."""

from penstock_scheduler.lifecycle.ends import lose
from penstock_scheduler.lifecycle.planned import lack, place, purge, unassign, wait
from penstock_scheduler.lifecycle.reports import report
from penstock_scheduler.lifecycle.requests import create, request
from penstock_scheduler.lifecycle.scaling import give_way, scale

__all__ = ["create", "give_way", "lack", "lose", "place", "purge", "report", "request", "scale", "unassign", "wait"]

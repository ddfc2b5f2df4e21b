"""What should happen next: `plan(snapshot, now)`, and the queue that answers about capacity walk, too."""

from penstock_scheduler.planning.deciding import plan
from penstock_scheduler.planning.fleet import last_ran_at
from penstock_scheduler.planning.line import Entry, Walk, waiting_entries, walk_queue

__all__ = ["Entry", "Walk", "last_ran_at", "plan", "waiting_entries", "walk_queue"]

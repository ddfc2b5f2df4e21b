"""`python -m penstock_scheduler`: run the scheduler until SIGTERM."""

import uvloop

from penstock_scheduler.app import build
from penstock_scheduler.settings import SchedulerSettings

uvloop.run(build(SchedulerSettings()).run())

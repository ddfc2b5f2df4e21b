"""`python -m penstock_scheduler`: run the scheduler until SIGTERM."""

import asyncio

from penstock_scheduler.app import build
from penstock_scheduler.settings import SchedulerSettings

asyncio.run(build(SchedulerSettings()).run())

"""`python -m penstock_billing`: run the billing service until SIGTERM."""

import asyncio

from penstock_billing.app import build
from penstock_billing.settings import BillingSettings

asyncio.run(build(BillingSettings()).run())

"""`python -m penstock_billing`: run the billing service until SIGTERM."""

import uvloop

from penstock_billing.app import build
from penstock_billing.settings import BillingSettings

uvloop.run(build(BillingSettings()).run())

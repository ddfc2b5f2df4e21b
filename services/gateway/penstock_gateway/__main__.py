"""`python -m penstock_gateway`: run the gateway until SIGTERM."""

import uvloop

from penstock_gateway.app import Gateway
from penstock_gateway.settings import GatewaySettings

uvloop.run(Gateway(GatewaySettings()).run())

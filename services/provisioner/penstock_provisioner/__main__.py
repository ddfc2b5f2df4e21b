"""`python -m penstock_provisioner`: run the provisioner of this host until SIGTERM."""

import asyncio
import sys

from penstock_provisioner.app import build
from penstock_provisioner.journal import DirectoryInUse
from penstock_provisioner.settings import ProvisionerSettings

try:
    asyncio.run(build(ProvisionerSettings()).run())
except DirectoryInUse as error:
    sys.exit(f"penstock_provisioner: {error}")

"""The environment of a replica's process: what it needs, and nothing of the platform's own."""

from collections.abc import Mapping
from pathlib import Path

from penstock_common.contracts.records import Assignment

REPLICA = "PENSTOCK_REPLICA"
HOST_DIR = "PENSTOCK_HOST_DIR"
ADDRESS = "PENSTOCK_ADDRESS"
DATA_DIR = "PENSTOCK_DATA_DIR"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def replica_variables(
    assignment: Assignment,
    *,
    directory: Path,
    environment: Path,
    runtime: Path,
    address: str,
    marks: Mapping[str, str],
) -> dict[str, str]:
    """Built up from nothing: what is not named here, a replica never sees.

    `marks` say whose replica it is, so that it is found again whatever happens to the provisioner.
    """
    variables = {
        "PATH": f"{environment}/bin:{_SYSTEM_PATH}",
        "VIRTUAL_ENV": str(environment),
        "HOME": str(directory / "home"),
        "TMPDIR": str(directory / "tmp"),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(runtime),
        # Empty hides every GPU; without the variable, CUDA would show all of them.
        "CUDA_VISIBLE_DEVICES": ",".join(assignment.gpu_uuids),
        REPLICA: assignment.replica_id,
        ADDRESS: address,
        **marks,
    }
    if assignment.traceparent:
        variables["TRACEPARENT"] = assignment.traceparent
    return variables

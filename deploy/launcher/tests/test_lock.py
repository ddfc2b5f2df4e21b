import os
import subprocess
import sys
from pathlib import Path

from penstock_launcher import lock

HOLD = """
import sys
from pathlib import Path
from penstock_launcher import lock
held = lock.take(Path(sys.argv[1]))
print("held" if held is not None else "refused", flush=True)
sys.stdin.read()
"""


def holding(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_holder_is_told_without_taking_the_lock_and_is_gone_when_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert lock.holder(path) is None
    with holding(path) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        assert lock.holder(path) == first.pid
        with holding(path) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "refused\n"
            second.communicate()
        first.kill()
        first.wait()
        assert lock.holder(path) is None
    descriptor = lock.take(path)
    assert descriptor is not None
    os.close(descriptor)

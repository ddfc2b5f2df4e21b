import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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

END_SLOWLY = """
import ctypes, os, platform, sys, threading
from pathlib import Path
from penstock_launcher import lock
lock.take(Path(sys.argv[1]))
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
print("held", flush=True)
# The first thread ends, and with it the process for all that /proc tells; its files are still open.
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)
"""


def holding(path: Path, program: str = HOLD) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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


def test_a_holder_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holding(path, END_SLOWLY) as dying, ThreadPoolExecutor() as threads:
        assert dying.stdout is not None
        assert dying.stdout.readline() == "held\n"
        while not lock.is_ending(dying.pid):
            pass
        holder = threads.submit(lock.holder, path)
        dying.communicate()
        assert holder.result() is None

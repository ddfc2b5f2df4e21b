"""What a child process does before it becomes the program it runs."""

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent(death_signal: signal.Signals, *, as_user: tuple[int, int] | None = None) -> Callable[[], None]:
    """A `preexec_fn`: a session of its own, another user if asked, and a signal when its parent dies.

    Without the last, servers would outlive a supervisor that was killed, and hold its ports. Linux
    sends the signal when the *thread* that started the child ends: start children from a thread
    that lives as long as the process.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def prepare() -> None:
        os.setsid()
        if as_user is not None:
            os.setgroups([])
            os.setgid(as_user[1])
            os.setuid(as_user[0])
        # After the change of user, which would clear it.
        libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            # The parent died before we could ask.
            os.kill(os.getpid(), death_signal)

    return prepare

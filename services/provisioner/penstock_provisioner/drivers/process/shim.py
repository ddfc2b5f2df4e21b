"""Starts a replica below a tiny shell that outlives signals, to note how the replica ended.

The shell is what makes a restart of the provisioner harmless: whoever comes next is not the parent
of what runs, so only a file can say how it ended.
"""

import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

LISTEN_FD = 3
"""Where a replica finds its listening socket."""

_RESTORED_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGTERM)

# $1: file for the exit code, $2: most open files, $3: niceness, rest: the command.
# The shell gets SIGTERM with the rest of the group and must stay, so it traps; a trap that does
# something is not inherited. `wait` returns early when a trapped signal comes, so it is asked again
# until the child is gone. `command -p` finds nice outside the replica's own PATH. The listening
# socket is closed here, so that connections are refused as soon as the replica is dead; and stderr,
# on which shells remark how a child died, as if it were the replica's last word.
_SCRIPT = f"""
exit_file=$1 open_files=$2 nice=$3
shift 3
trap : TERM INT HUP
ulimit -c 0
ulimit -S -n "$open_files" 2>/dev/null
command -p nice -n "$nice" "$@" &
child=$!
exec {LISTEN_FD}>&- 2>/dev/null
while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done
echo "$code" >"$exit_file"
"""


def spawn(
    command: Sequence[str],
    *,
    exit_file: Path,
    output: Path,
    directory: Path,
    env: Mapping[str, str],
    listen_fd: int,
    open_files_max: int,
    niceness: int,
) -> int:
    """Start `command` in a session of its own and return the shell's process id.

    Its output is appended to `output`. Raises OSError when the machine cannot.
    """
    script = f"cd {shlex.quote(str(directory))} || exit 126\n{_SCRIPT}"
    arguments = [str(exit_file), str(open_files_max), str(niceness)]
    output_fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        # Not subprocess: nothing of this process has to live on with the child, not even an object.
        return os.posix_spawn(
            "/bin/sh",
            ["penstock-replica", "-c", script, "penstock-replica", *arguments, *command],
            dict(env),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output_fd, 1),
                (os.POSIX_SPAWN_DUP2, output_fd, 2),
                (os.POSIX_SPAWN_DUP2, listen_fd, LISTEN_FD),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=_RESTORED_SIGNALS,
        )
    finally:
        os.close(output_fd)

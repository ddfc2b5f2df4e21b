"""What the exit code of `penstock` says; scripts may rely on it."""

from penstock import errors

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
NOT_AUTHORISED = 4
CONFLICT = 5
UNAVAILABLE = 6
ENDPOINT_FAILED = 7
INTERRUPTED = 130

EPILOG = """\
Every command takes --json: one JSON document on standard output, or one
value a line where something is followed. All else goes to standard error.

Exit codes:
    0  ok
    1  failed
    2  wrong usage or input
    3  not found
    4  not authorised
    5  conflict with the present state
    6  unavailable, or timed out
    7  the endpoint failed
  130  interrupted by Ctrl-C"""


class UsageProblem(errors.PenstockError):
    """The command line itself is wrong, in a way that only the command can tell."""


_CODES: tuple[tuple[type[errors.PenstockError], int], ...] = (
    (errors.EndpointFailed, ENDPOINT_FAILED),
    (errors.NotFound, NOT_FOUND),
    (errors.Unauthorized, NOT_AUTHORISED),
    (errors.Forbidden, NOT_AUTHORISED),
    (errors.Conflict, CONFLICT),
    (errors.Unavailable, UNAVAILABLE),
    (errors.Unreachable, UNAVAILABLE),
    (errors.TimedOut, UNAVAILABLE),
    (errors.InvalidRequest, USAGE),
    (errors.NotConfigured, USAGE),
    (UsageProblem, USAGE),
)


def exit_code_of(error: errors.PenstockError) -> int:
    """The exit code for an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)

"""What is wrong with a source, in words for whoever asked for it."""

import difflib
from collections.abc import Iterable

from penstock_common.contracts.questions import FieldProblem

URI = "source.uri"
REF = "source.ref"


class SourceProblem(Exception):
    """The source cannot be used. `field` is the request's field at fault; the message says how to mend it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message

    def as_field_problem(self) -> FieldProblem:
        return FieldProblem(field=self.field, message=self.message)


def near(wanted: str, known: Iterable[str], most: int = 3) -> str:
    """ " (did you mean a, b?)" with the known names nearest to `wanted`, or an empty string."""
    names = list(dict.fromkeys(known))
    lowered = {name.lower(): name for name in names}
    found = [lowered[match] for match in difflib.get_close_matches(wanted.lower(), lowered, n=most, cutoff=0.6)]
    return f" (did you mean {', '.join(found)}?)" if found else ""


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names for a sentence, with how many more there are."""
    known = list(names)
    shown = ", ".join(known[:most])
    return f"{shown} and {len(known) - most} more" if len(known) > most else shown

"""The Prefer header of RFC 7240: which preferences a request states. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

CHARACTERS_MAX = 1024
"""A longer header states nothing: nobody has so much to prefer, and reading it takes time."""

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_VALUE = rf"(?:[ \t]*=[ \t]*(?P<value>{_TOKEN}|{_QUOTED})?)?"
_PARAMETER = rf"[ \t]*(?:{_TOKEN}(?:[ \t]*=[ \t]*(?:{_TOKEN}|{_QUOTED})?)?)?[ \t]*"
_PREFERENCE = re.compile(rf"[ \t]*(?P<name>{_TOKEN}){_VALUE}[ \t]*(?:;{_PARAMETER})*(?=,|$)")
_SECONDS_DIGITS_MAX = 9

_RESPOND_ASYNC = "respond-async"
_WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Asked:
    """That the caller wants the answer later. `wait_s`: how long it would wait for it at once."""

    wait_s: int | None = None


def asked(value: str) -> Asked | None:
    """What the Prefer header (several are joined by commas) says of answering later; None when it does not
    ask for that.

    The first of equal names counts, and an empty value is the same as none, as section 2 asks.
    """
    stated: dict[str, str] = {}
    for name, said, _ in _preferences(value):
        stated.setdefault(name, said)
    # With a value it would be another preference, which nobody knows.
    if stated.get(_RESPOND_ASYNC) != "":
        return None
    wait = stated.get(_WAIT, "")
    if not (wait.isascii() and wait.isdigit() and len(wait) <= _SECONDS_DIGITS_MAX):
        return Asked()
    return Asked(int(wait))


def others(value: str) -> str:
    """The preferences that are the endpoint's to honour, as they were written; empty when there are none."""
    return ", ".join(text for name, _, text in _preferences(value) if name not in {_RESPOND_ASYNC, _WAIT})


def applied(wait_s: int | None, *, later: bool) -> str:
    """The value of Preference-Applied: `later` when this is not yet the answer; `wait_s` if that was honoured."""
    said = [_RESPOND_ASYNC] if later else []
    if wait_s is not None:
        said.append(f"{_WAIT}={wait_s}")
    return ", ".join(said)


def _preferences(value: str) -> Iterator[tuple[str, str, str]]:
    """Name in lower case, value and text of each preference. What is not well-formed is read past up to the
    next comma: what is not understood is to be ignored."""
    at = 0
    while at < len(value) <= CHARACTERS_MAX:
        match = _PREFERENCE.match(value, at)
        if match is not None:
            yield match["name"].lower(), _plain(match["value"] or ""), match[0].strip(" \t")
            at = match.end() + 1
        else:
            comma = value.find(",", at)
            at = len(value) if comma < 0 else comma + 1


def _plain(value: str) -> str:
    if not value.startswith('"'):
        return value
    return re.sub(r"\\(.)", r"\1", value[1:-1])

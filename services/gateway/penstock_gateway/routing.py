"""Which endpoint a request is for: by host name, or by path. Pure.

An endpoint's name here is the bytes `<endpoint>.<workspace>`; slugs hold no dot, so it is unambiguous.
"""

import re
from dataclasses import dataclass

from penstock_gateway.domain import BadRequest

_HOST = re.compile(
    rb"(?P<name>[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
)
_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/?#@\\]*)(?P<rest>[/?].*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A request to `/e/<workspace>/<endpoint>/…`."""

    name: bytes
    target: bytes
    """Path and query with the prefix taken away."""
    prefix: bytes


def endpoint_name(endpoint: str, workspace: str) -> bytes:
    """The name under which an endpoint is found."""
    return f"{endpoint}.{workspace}".encode()


def name_of_host(host: bytes, domain: bytes) -> bytes | None:
    """The endpoint that a Host header names, or None when it is not of the form that endpoints have.

    Raises BadRequest for what is no host name at all.
    """
    match = _HOST.fullmatch(host)
    if match is None or (match["port"] is not None and int(match["port"]) > 65535):
        raise BadRequest("the Host header is not a host name with an optional port")
    name = match["name"].lower().removesuffix(b".")
    if b".." in name:
        raise BadRequest("the Host header holds an empty label")
    head = name.removesuffix(b"." + domain)
    return head if head != name and head.count(b".") == 1 else None


def match_path(target: bytes) -> PathMatch | None:
    """The endpoint that a path names, or None when the path is not below `/e/`."""
    parts = target.split(b"/", 4)
    if len(parts) < 4 or parts[0] or parts[1] != b"e":
        return None
    workspace, endpoint = parts[2], parts[3]
    if len(parts) == 5:
        rest = b"/" + parts[4]
    else:
        endpoint, mark, query = endpoint.partition(b"?")
        rest = b"/" + mark + query
    return PathMatch(b"%b.%b" % (endpoint, workspace), rest, b"/e/%b/%b" % (workspace, endpoint))


def origin_form(target: bytes, host: bytes | None) -> bytes:
    """The target as a replica gets it: a path with an optional query.

    A client may send the absolute form; it must name the same authority as Host, or two readers of
    one request could see two hosts. Raises BadRequest for that and for every other form.
    """
    if b"#" in target:
        raise BadRequest("the request target holds a fragment")
    if target.startswith(b"/"):
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise BadRequest("the request target is not a path")
    if host is None or match["authority"].lower() != host.lower():
        raise BadRequest("the request target names another host than the Host header")
    rest: bytes = match["rest"] or b"/"
    return rest if rest.startswith(b"/") else b"/" + rest

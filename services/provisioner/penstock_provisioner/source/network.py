"""Which servers a source may be fetched from: the host must not be used to look into its own network."""

import asyncio
import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence

from penstock_provisioner.source.address import RemoteAddress
from penstock_provisioner.source.problems import URI, SourceProblem

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_RESOLVE_TIMEOUT_S = 10.0

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: IpAddress) -> bool:
    """Whether it belongs to the public internet, also when an IPv4 address hides in it."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


async def checked_addresses(remote: RemoteAddress, *, allow_private: bool) -> tuple[IpAddress, ...]:
    """Every address of the server, to be connected to and no other, so that a second look-up cannot differ.

    Empty when an operator's proxy does the looking up. Raises SourceProblem when the name is not
    known, or when any of its addresses is private and that is not allowed.
    """
    proxied = _is_proxied(remote, os.environ)
    try:
        async with asyncio.timeout(_RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(remote.host, remote.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        if proxied:
            return ()
        raise SourceProblem(
            URI, f"the server {remote.host} cannot be reached: its name is not known here; check the address"
        ) from error
    addresses = tuple(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
    if not allow_private:
        _refuse_private(remote.host, addresses)
    return () if proxied else addresses


def _refuse_private(host: str, addresses: Sequence[IpAddress]) -> None:
    if any(not is_public(address) for address in addresses):
        raise SourceProblem(
            URI,
            f"the server {host} is in a private network, from which nothing is fetched: use a public server, "
            "or set PENSTOCK_ALLOW_PRIVATE_SOURCES=true on the hosts",
        )


def _is_proxied(remote: RemoteAddress, environ: Mapping[str, str]) -> bool:
    proxies = {
        name: environ.get(f"{name}_proxy") or environ.get(f"{name.upper()}_PROXY") or "" for name in ("https", "all")
    }
    exempt = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    return any(proxies.values()) and not _is_exempt(remote.host, exempt)


def _is_exempt(host: str, exempt: str) -> bool:
    """Whether a no_proxy list names the host or a domain that it is in, as curl reads it."""
    names = [name.strip().lstrip(".").lower() for name in exempt.split(",")]
    return any(name == "*" or host.lower() == name or host.lower().endswith(f".{name}") for name in names if name)

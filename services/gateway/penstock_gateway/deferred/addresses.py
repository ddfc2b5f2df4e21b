"""Where webhooks may go: a check of the address that is written, and one of the address connected to. Pure."""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

URL_CHARACTERS_MAX = 2048

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_TUNNELS = (ipaddress.ip_network("2001::/32"), ipaddress.ip_network("2002::/16"))
"""Teredo and 6to4: they hold an IPv4 address, which may be a private one."""
_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_PLAIN = re.compile(r"[\x21-\x7e]+")


class BadWebhook(ValueError):
    """An address that no webhook goes to; the message says what is wrong and how to mend it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A webhook's address, taken apart. `host` is a name or a plain IP address."""

    secure: bool
    host: str
    port: int
    path: str
    authority: str
    """What the Host header says."""


def is_public(address: str) -> bool:
    """Whether an IP address is of the public internet: not private, loopback, link-local, multicast, shared,
    reserved or unspecified, and none that leads to an IPv4 address by way of IPv6."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    # Not in the range either: mapped and translated IPv4 (::ffff:0:0/96, 64:ff9b::/96).
    if ip.version == 6 and (ip not in _GLOBAL_UNICAST or any(ip in tunnel for tunnel in _TUNNELS)):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def parse_target(url: str, *, allow_http: bool, allow_private: bool) -> Target:
    """Take the address of a webhook apart. Raises BadWebhook; names are looked up only when connecting."""
    if len(url) > URL_CHARACTERS_MAX or _PLAIN.fullmatch(url) is None:
        raise BadWebhook(f"it is not a URL of at most {URL_CHARACTERS_MAX} printable ASCII characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadWebhook(f"it is not a URL: {error}") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and allow_http):
        raise BadWebhook("it must be an https address")
    if "@" in parts.netloc:
        raise BadWebhook("it holds a user name or a password: leave them out and check the signature instead")
    if parts.fragment:
        raise BadWebhook("it holds a fragment, which is never sent: leave it out")
    host = parts.hostname or ""
    literal = _literal(host)
    if literal is None and (_HOST_NAME.fullmatch(host) is None or host.rstrip(".").rpartition(".")[2].isdigit()):
        raise BadWebhook("its host is neither a name nor an IP address")
    if literal is not None and not allow_private and not is_public(literal):
        raise BadWebhook(f"{literal} is not a public address")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(secure, host, port or (443 if secure else 80), path, parts.netloc)


def _literal(host: str) -> str | None:
    """The host if it is an IP address."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None

"""Delivers webhooks: one POST to an address that is checked as it is connected to, and no redirects.

Written with plain streams, because what matters is which address is connected to and that nothing else is
done: no proxies, no cookies, no redirects, and no more of the answer is read than its status.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from penstock_gateway.deferred.addresses import BadWebhook, Target, is_public, parse_target
from penstock_gateway.deferred.settings import DeferredSettings
from penstock_gateway.deferred.signing import organization_secret, signature

ADDRESSES_MAX = 4
ANSWER_HEAD_BYTES_MAX = 32 * 1024
INTERIM_MAX = 4
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")
_GONE = 410

LookUp = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Attempted:
    """How an attempt went: `problem` is empty when it was delivered; `final`: another would go the same way."""

    problem: str = ""
    final: bool = False


class WebhookSender:
    """Signs and sends. `look_up` gives the IP addresses of a host name, or raises OSError."""

    def __init__(
        self, settings: DeferredSettings, tls: ssl.SSLContext | None = None, *, look_up: LookUp | None = None
    ) -> None:
        self._settings = settings
        self._look_up = look_up or _look_up
        self._tls = tls or ssl.create_default_context()

    def secret(self, organization_id: str) -> bytes | None:
        """The organization's secret; None when this gateway signs nothing."""
        secret = self._settings.webhook_secret
        return None if secret is None else organization_secret(secret.get_secret_value(), organization_id)

    def check(self, url: str) -> Target:
        """Raises BadWebhook."""
        settings = self._settings
        return parse_target(url, allow_http=settings.webhook_allow_http, allow_private=settings.webhook_allow_private)

    async def send(self, url: str, organization_id: str, webhook_id: str, body: bytes, unix_s: int) -> Attempted:
        """Deliver once, within the time that one delivery may take."""
        secret = self.secret(organization_id)
        if secret is None:
            return Attempted("the gateway has no webhook_secret to sign with", final=True)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "penstock-webhook/1",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(unix_s),
            "webhook-signature": signature(secret, webhook_id, unix_s, body),
        }
        try:
            target = self.check(url)
            async with asyncio.timeout(self._settings.webhook_timeout_s):
                status = await self._post(target, headers, body)
        except BadWebhook as bad:
            return Attempted(str(bad), final=True)
        except TimeoutError:
            return Attempted(f"it did not answer within {self._settings.webhook_timeout_s:g} s")
        except ssl.SSLError as error:
            return Attempted(f"TLS failed: {error.reason or 'the connection was closed'}")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            return Attempted(f"it could not be reached, or did not answer with HTTP: {type(error).__name__}")
        if 200 <= status < 300:
            return Attempted()
        return Attempted(f"it answered {status}", final=status == _GONE)

    async def _post(self, target: Target, headers: Mapping[str, str], body: bytes) -> int:
        reader, writer = await self._connect(target)
        try:
            lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.authority}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            lines += [f"Content-Length: {len(body)}", "", ""]
            writer.write("\r\n".join(lines).encode("latin-1") + body)
            await writer.drain()
            for _ in range(INTERIM_MAX):
                status = _status(await reader.readuntil(b"\r\n\r\n"))
                if status >= 200:
                    return status
            raise ValueError("there is no end to the interim answers")
        finally:
            writer.transport.abort()

    async def _connect(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first address of the name that can be reached. Raises BadWebhook when the name stands for
        an address that is not allowed, and OSError."""
        addresses = await self._look_up(target.host, target.port)
        if not self._settings.webhook_allow_private and not all(map(is_public, addresses)):
            raise BadWebhook("its host stands for an address that is not public")
        failure: OSError = OSError("its host stands for no address")
        for address in addresses[:ADDRESSES_MAX]:
            # By its number: what was checked is what is connected to, whatever the name stands for by now.
            numeric = str(ipaddress.ip_address(address))
            try:
                return await asyncio.open_connection(
                    numeric,
                    target.port,
                    limit=ANSWER_HEAD_BYTES_MAX,
                    ssl=self._tls if target.secure else None,
                    server_hostname=target.host if target.secure else None,
                )
            except ssl.SSLError:
                raise
            except OSError as error:
                failure = error
        raise failure


async def _look_up(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


def _status(head: bytes) -> int:
    match = _STATUS.match(head)
    if match is None:
        raise ValueError("the answer is not HTTP/1")
    return int(match[1])
